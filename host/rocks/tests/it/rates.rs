//! Raw rates of a store, printed on demand: set `SANDBAR_RATES=<entries>` and run with `--nocapture`. Never a judgement.

use std::time::Instant;

use bytes::Bytes;

use crate::folder::{Folder, open};

fn report(what: &str, entries: usize, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{what}: {:.2} us an entry ({entries} entries, {seconds:.2} s)", seconds * 1e6 / entries as f64);
}

#[test]
fn rates() {
    let Ok(entries) = std::env::var("SANDBAR_RATES") else { return };
    let entries: usize = entries.parse().expect("a number");
    let folder = Folder::new("rates");
    let provider = folder.provider();
    let mut store = open(&provider, "store");
    let key = |i: usize| Bytes::copy_from_slice(&((i.wrapping_mul(0x9e37_79b9) % 100_000) as u64).to_be_bytes());
    let value = Bytes::from(vec![b'x'; 100]);
    for batch in [100, 1_000] {
        let started = Instant::now();
        for start in (0..entries).step_by(batch) {
            let writes: Vec<_> = (start..start + batch).map(|i| (key(i), Some(value.clone()))).collect();
            store.write(&writes, Some(start as i64)).expect("write");
        }
        report(&format!("write, batches of {batch}"), entries, started);
    }
    for flushed in [false, true] {
        if flushed {
            store.flush().expect("flush");
        }
        let state = if flushed { "in tables" } else { "in memory too" };
        for batch in [100, 1_000] {
            let started = Instant::now();
            let mut bytes = 0;
            for start in (0..entries).step_by(batch) {
                let keys: Vec<_> = (start..start + batch).map(key).collect();
                let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                store.get_many(&keys, &mut |_, value| bytes += value.map_or(0, <[u8]>::len)).expect("get");
            }
            report(&format!("get_many, batches of {batch}, {state}"), entries, started);
            assert_eq!(bytes, entries * 100);
        }
        let started = Instant::now();
        for i in 0..entries {
            assert!(store.get(&key(i)).expect("get").is_some());
        }
        report(&format!("get, {state}"), entries, started);
    }
}
