//! Commands on stores: every function of `state`, and misuse of it.

use sandbar::bindings::sandbar::processor::state::{self, Bound, Page};
use sandbar::bindings::sandbar::processor::types::{Columns, NullableColumns, Outcome};

use crate::answer;

pub fn run(command: &str, argument: &str) -> Option<Result<Outcome, String>> {
    let number = || argument.parse::<usize>().unwrap_or(0);
    let data = || state::open("data");
    Some(match command {
        "open" => Ok(answer(&format!("{:?}", state::open(argument)))),
        "unopened" => Ok(answer(&format!("{:?}", state::get(number() as u32, b"key")))),
        "every-function" => data().map(|store| answer(&every_function(store))),
        "put" => data().map(|store| {
            state::put(store, argument.as_bytes(), Some(b"1"));
            answer("put")
        }),
        "get" => data().map(|store| answer(&format!("{:?}", state::get(store, argument.as_bytes())))),
        "put-and-panic" => data().map(|store| {
            state::put(store, argument.as_bytes(), Some(b"half"));
            panic!("after a put")
        }),
        "put-and-fail" => data().and_then(|store| {
            state::put(store, argument.as_bytes(), Some(b"half"));
            Err("after a put".to_owned())
        }),
        "put-megabytes" => data().map(|store| {
            let value = vec![1; 1 << 20];
            (0..number()).for_each(|key| state::put(store, &key.to_be_bytes(), Some(&value)));
            answer("put")
        }),
        "put-entries" => data().map(|store| {
            for first in (0..number()).step_by(1_000) {
                let keys = columns((first..first + 1_000).map(|key| format!("{key:08}").into_bytes()));
                let values = NullableColumns { bytes: keys.bytes.clone(), ends: keys.ends.clone(), nulls: Vec::new() };
                state::put_many(store, &keys, &values, &[]);
            }
            answer("put")
        }),
        "get-same-many" => data().map(|store| {
            // How often, and how many mebibytes: one where that is not said.
            let (times, mebibytes) = argument.split_once(' ').unwrap_or((argument, "1"));
            let [times, mebibytes] = [times, mebibytes].map(|number| number.parse::<usize>().unwrap_or(0));
            state::put(store, b"big", Some(&vec![1; mebibytes << 20]));
            let keys = columns((0..times).map(|_| b"big".to_vec()));
            let found = state::get_many(store, &keys);
            answer(&format!("{} bytes", found.bytes.len()))
        }),
        "get-many-count" => data().map(|store| {
            let keys = columns((0..number()).map(|key| format!("{key:08}").into_bytes()));
            let found = state::get_many(store, &keys);
            let right = (0..number()).filter(|&key| item(&found, key) == Some(format!("{key:08}").as_bytes())).count();
            answer(&format!("{right} of {}, {} nulls", found.ends.len(), found.nulls.len()))
        }),
        "range-all" => data().map(|store| {
            let page = state::range(store, &Bound::Unbounded, &Bound::Unbounded, false, number() as u32);
            let sorted = (1..page.keys.ends.len()).all(|index| key(&page, index - 1) < key(&page, index));
            answer(&format!("{} sorted {sorted} more {}", page.keys.ends.len(), page.more))
        }),
        "scan-for-ever" => data().map(|store| {
            loop {
                state::range(store, &Bound::Unbounded, &Bound::Unbounded, true, u32::MAX);
            }
        }),
        _ => return misuse(command),
    })
}

/// Host calls with malformed columns.
fn misuse(command: &str) -> Option<Result<Outcome, String>> {
    let data = || state::open("data");
    Some(match command {
        "get-many-malformed" => data().map(|store| {
            state::get_many(store, &Columns { bytes: b"abc".to_vec(), ends: vec![3, 2] });
            answer("passed")
        }),
        "put-many-count" => data().map(|store| {
            state::put_many(store, &columns([b"a".to_vec()]), &NullableColumns::default(), &[]);
            answer("passed")
        }),
        "put-many-timestamps" => data().map(|store| {
            state::put_many(store, &columns([b"a".to_vec()]), &one_null(), &[1, 2]);
            answer("passed")
        }),
        "put-many-negative" => data().map(|store| {
            state::put_many(store, &columns([b"a".to_vec()]), &one_null(), &[-1]);
            answer("passed")
        }),
        _ => return None,
    })
}

/// Calls everything once and tells what came back.
fn every_function(store: u32) -> String {
    let mut seen = Vec::new();
    state::put(store, b"a1", Some(b"one"));
    state::put_many(
        store,
        &columns([b"a2".to_vec(), b"a3".to_vec(), b"b1".to_vec()]),
        &NullableColumns { bytes: b"twothreefour".to_vec(), ends: vec![3, 8, 12], nulls: Vec::new() },
        &[7, 8, 9],
    );
    seen.push(format!("get {:?}", state::get(store, b"a2").map(|value| String::from_utf8_lossy(&value).into_owned())));
    let many = state::get_many(store, &columns([b"b1".to_vec(), b"zz".to_vec(), b"a1".to_vec()]));
    seen.push(format!("many {:?} {:?}", String::from_utf8_lossy(&many.bytes), many.nulls));
    let range =
        |lower: Bound, upper: Bound, reverse, limit| shown(&state::range(store, &lower, &upper, reverse, limit));
    seen.push(format!("all {}", range(Bound::Unbounded, Bound::Unbounded, false, 10)));
    seen.push(format!("page {}", range(Bound::Unbounded, Bound::Unbounded, false, 2)));
    seen.push(format!("back {}", range(Bound::Excluded(b"a1".to_vec()), Bound::Included(b"a3".to_vec()), true, 10)));
    seen.push(format!("none {}", range(Bound::Unbounded, Bound::Unbounded, false, 0)));
    seen.push(format!("prefix {}", shown(&state::prefix(store, b"a", None, false, 10))));
    seen.push(format!("after {}", shown(&state::prefix(store, b"a", Some(b"a1"), false, 1))));
    state::put(store, b"a1", None);
    seen.push(format!("deleted {:?}", state::get(store, b"a1")));
    // Nothing is committed yet.
    seen.push(format!("about {}", state::approximate_entries(store)));
    seen.join("; ")
}

fn shown(page: &Page) -> String {
    let keys: Vec<_> = (0..page.keys.ends.len()).map(|index| String::from_utf8_lossy(key(page, index))).collect();
    format!("{}{}", keys.join(","), if page.more { "+" } else { "" })
}

fn key(page: &Page, index: usize) -> &[u8] {
    let start = if index == 0 { 0 } else { page.keys.ends[index - 1] as usize };
    &page.keys.bytes[start..page.keys.ends[index] as usize]
}

fn item(columns: &NullableColumns, index: usize) -> Option<&[u8]> {
    if columns.nulls.contains(&(index as u32)) {
        return None;
    }
    let start = if index == 0 { 0 } else { columns.ends[index - 1] as usize };
    Some(&columns.bytes[start..columns.ends[index] as usize])
}

fn columns(items: impl IntoIterator<Item = Vec<u8>>) -> Columns {
    let mut columns = Columns::default();
    for item in items {
        columns.bytes.extend_from_slice(&item);
        columns.ends.push(columns.bytes.len() as u32);
    }
    columns
}

fn one_null() -> NullableColumns {
    NullableColumns { bytes: Vec::new(), ends: vec![0], nulls: vec![0] }
}
