//! Recordings with one defect each, and one without.

use super::*;

const PLAN: Plan = Plan { seed: 5, partitions: 3, keys: 4, poison_one_in: 0, preloaded: 0 };
const SENT: u64 = 60;

fn query(begin_us: u64, said: Said) -> Query {
    Query { begin_us, end_us: begin_us + 100, sent: SENT, copies: Copies::None, said }
}

/// The rows after so many entries of each partition.
fn rows(entries: u64) -> Vec<(Key, Balance)> {
    let model = Model::of(&PLAN, entries);
    model.0.iter().filter_map(|(key, balances)| Some((*key, balances.last()?.1))).collect()
}

fn keys(exact: bool, rows: &[(Key, Balance)]) -> Said {
    Said::Keys { exact, found: rows.iter().map(|(key, balance)| (*key, Some(*balance))).collect() }
}

/// A walk, then keys one by one, a copy that is behind, and a walk again.
fn recording() -> Vec<Query> {
    let absent = Key { partition: 1, number: 9_000 };
    let mut queries = vec![query(0, Said::Walk { exact: true, rows: rows(40) })];
    queries.extend(rows(50).iter().zip(0..).map(|(row, at)| query(200 + at * 200, keys(true, &[*row]))));
    queries.push(query(5_000, keys(false, &rows(20)[..2])));
    queries.push(query(5_000, Said::Keys { exact: true, found: vec![(absent, None)] }));
    queries.push(query(5_200, Said::Later(Some(1), String::new())));
    queries.push(query(5_400, Said::Count(vec![0, 1, 2])));
    queries.push(query(6_000, Said::Walk { exact: true, rows: rows(55) }));
    queries.push(query(7_000, keys(true, &rows(55)[..3])));
    queries
}

#[test]
fn a_recording_without_a_defect_has_no_findings() {
    assert_eq!(rows(20).len(), 12, "each key is there by then");
    assert_eq!(judge(&recording(), &PLAN), Findings::default());
}

/// The answer to the last query, which is for three keys.
fn last(queries: &mut [Query]) -> &mut Vec<(Key, Option<Balance>)> {
    match queries.last_mut().map(|query| &mut query.said) {
        Some(Said::Keys { found, .. }) => found,
        other => panic!("{other:?}"),
    }
}

fn last_walk(queries: &mut [Query]) -> &mut Vec<(Key, Balance)> {
    let place = queries.len() - 2;
    match &mut queries[place].said {
        Said::Walk { rows, .. } => rows,
        other => panic!("{other:?}"),
    }
}

/// Puts one defect in.
type PutIn = fn(&mut Vec<Query>);

#[test]
fn every_kind_of_defect_is_found_and_nothing_else() {
    let cases: [(&str, PutIn); 12] = [
        (WRONG, |queries| last(queries)[0].1 = Some(Balance { count: 1, sum: 123_456 })),
        (WRONG, |queries| last(queries)[0].1 = Some(Balance { count: 0, sum: 0 })),
        (WRONG, |queries| last(queries)[1].1 = rows(55)[0].1.into()),
        (OLD, |queries| last(queries)[0].1 = Some(rows(20)[0].1)),
        (OLD, |queries| last_walk(queries)[3].1 = rows(20)[3].1),
        (EARLY, |queries| {
            let place = queries.len() - 1;
            queries[place].sent = 1;
            last(queries).truncate(1);
        }),
        (EMPTY, |queries| last(queries)[2].1 = None),
        (INVENTED, |queries| last(queries)[0].0.number = 9_000),
        (PAGES, |queries| {
            last_walk(queries).remove(5);
        }),
        (PAGES, |queries| {
            let again = last_walk(queries)[4];
            last_walk(queries).insert(5, again);
        }),
        (PAGES, |queries| queries.push(query(8_000, Said::Count(vec![0, 2])))),
        (STRANGE, |queries| queries.push(query(8_000, Said::Strange("500".to_owned())))),
    ];
    for (number, (kind, put_in)) in cases.into_iter().enumerate() {
        let mut queries = recording();
        put_in(&mut queries);
        let findings = judge(&queries, &PLAN);
        assert_eq!(findings.counts, [(kind, 1)].into(), "case {number}: {:?}", findings.examples);
    }
}

#[test]
fn answers_that_overlap_may_be_in_any_order() {
    let mut queries = recording();
    let older = query(7_050, keys(true, &rows(55)[..1]));
    queries.push(query(7_000, keys(true, &rows(60)[..1])));
    queries.push(older.clone());
    assert_eq!(judge(&queries, &PLAN), Findings::default());
    queries.push(Query { begin_us: 7_100, ..older });
    let is_older = rows(60)[0] != rows(55)[0];
    assert_eq!(judge(&queries, &PLAN).counts.contains_key(OLD), is_older);
}

#[test]
fn a_copy_may_be_behind_but_never_empty_or_wrong() {
    let mut queries = vec![query(0, keys(true, &rows(40))), query(200, keys(false, &rows(20)))];
    assert_eq!(judge(&queries, &PLAN), Findings::default());
    let empty = query(400, Said::Keys { exact: false, found: vec![(rows(40)[0].0, None)] });
    for copies in [Copies::None, Copies::Close, Copies::Any] {
        queries.truncate(2);
        queries.push(Query { copies, ..empty.clone() });
        assert_eq!(judge(&queries, &PLAN).counts, [(EMPTY, 1)].into());
    }
}

#[test]
fn an_outage_ends_with_the_first_answer_that_was_asked_for_later() {
    let at = |begin_us: u64, end_us: u64, said: Said| Query { end_us, ..query(begin_us, said) };
    let row = rows(40)[0];
    assert_eq!(row.0.partition, 0);
    let later = |partition| Said::Later(Some(partition), format!("of {partition}"));
    let mut queries = vec![
        at(0, 1_000, keys(true, &[row])),
        at(2_000, 9_000, later(0)),
        // It began before the one that failed, so that it says nothing of the time since.
        at(1_000, 3_000, keys(true, &[row])),
        at(4_000, 5_000, later(0)),
        at(8_000, 12_000, keys(true, &[row])),
        at(10_000, 90_000, keys(true, &[row])),
        at(0, 100_000, later(1)),
    ];
    assert_eq!(longest_outage(&queries, Copies::None).length_ms(), 10);
    assert_eq!(longest_outage(&queries, Copies::Any).length_ms(), 0);
    queries[1].copies = Copies::Any;
    assert_eq!(longest_outage(&queries, Copies::None).length_ms(), 8);
}
