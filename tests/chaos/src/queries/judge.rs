//! Row Q2's verdict on what hosts answered while others were killed and added: compares each answer with the ledger of
//! what was written, and with what answers that were over before it began had shown already. Pure, and tested by
//! recordings with one defect each.

use std::collections::BTreeMap;

use crate::findings::Findings;
use crate::workload::{Balance, Key, Plan};

/// A query and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub begin_us: u64,
    pub end_us: u64,
    /// How many entries of each partition had been sent when the answer was there.
    pub sent: u64,
    pub copies: Copies,
    pub said: Said,
}

/// Which copies were allowed to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    None,
    /// Those that lack little (`max_lag`), and so have every key that was there long ago.
    Close,
    /// Those too of which nearly all is still to be restored.
    Any,
}

/// What a host said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// To a query for keys. `exact` where only tasks that run answered, which know everything that was committed.
    Keys { exact: bool, found: Vec<(Key, Option<Balance>)> },
    /// All pages of the store.
    Walk { exact: bool, rows: Vec<(Key, Balance)> },
    /// The partitions that were counted.
    Count(Vec<u32>),
    /// Nothing now, and why; where the query was for one key, its partition.
    Later(Option<u32>, String),
    /// What nobody should ever get.
    Strange(String),
}

pub const WRONG: &str = "wrong answers";
pub const OLD: &str = "answers older than earlier ones";
pub const EARLY: &str = "answers ahead of the input";
pub const EMPTY: &str = "wrong-empty answers";
pub const INVENTED: &str = "answers for absent keys";
pub const PAGES: &str = "pages with keys missing, twice or out of order";
pub const STRANGE: &str = "strange answers";

/// What the ledger says of each key: after which entry of its partition it has which balance.
struct Model(BTreeMap<Key, Vec<(u64, Balance)>>);

impl Model {
    fn of(plan: &Plan, entries: u64) -> Self {
        let mut of_key: BTreeMap<Key, Vec<(u64, Balance)>> = BTreeMap::new();
        for partition in 0..plan.partitions {
            for (seq, entry) in (0..entries).zip(plan.entries(partition)) {
                let balances = of_key.entry(entry.key).or_default();
                let mut balance = balances.last().map(|(_, balance)| *balance).unwrap_or_default();
                balance.add(entry.amount);
                balances.push((seq, balance));
            }
        }
        Self(of_key)
    }

    /// The entry after which a key has this balance.
    fn entry_of(&self, key: Key, balance: Balance) -> Option<u64> {
        let place = usize::try_from(balance.count).ok()?.checked_sub(1)?;
        let (seq, expected) = self.0.get(&key)?.get(place)?;
        (*expected == balance).then_some(*seq)
    }
}

/// The highest count of each key that answers had shown which were over by a moment.
struct Shown<'a> {
    /// By the end of the answer.
    answers: Vec<(u64, &'a Said)>,
    next: usize,
    counts: BTreeMap<Key, u64>,
}

impl<'a> Shown<'a> {
    fn of(queries: &'a [Query]) -> Self {
        let mut answers: Vec<_> = queries.iter().map(|query| (query.end_us, &query.said)).collect();
        answers.sort_by_key(|(end_us, _)| *end_us);
        Self { answers, next: 0, counts: BTreeMap::new() }
    }

    /// Moments only go on.
    fn by(&mut self, moment_us: u64) -> &BTreeMap<Key, u64> {
        while let Some((end_us, said)) = self.answers.get(self.next)
            && *end_us <= moment_us
        {
            match said {
                Said::Keys { exact: true, found } => {
                    found.iter().filter_map(|(key, balance)| Some((key, (*balance)?))).for_each(|(key, balance)| {
                        let count = self.counts.entry(*key).or_default();
                        *count = balance.count.max(*count);
                    });
                }
                Said::Walk { exact: true, rows } => rows.iter().for_each(|(key, balance)| {
                    let count = self.counts.entry(*key).or_default();
                    *count = balance.count.max(*count);
                }),
                _ => {}
            }
            self.next += 1;
        }
        &self.counts
    }
}

/// Judges all answers of a campaign.
pub fn judge(queries: &[Query], plan: &Plan) -> Findings {
    let mut findings = Findings::default();
    let model = Model::of(plan, queries.iter().map(|query| query.sent).max().unwrap_or(0));
    let mut shown = Shown::of(queries);
    let mut in_order: Vec<&Query> = queries.iter().collect();
    in_order.sort_by_key(|query| query.begin_us);
    for query in in_order {
        let shown = shown.by(query.begin_us);
        let judged = Judged { query, model: &model, shown, plan };
        judged.judge(&mut findings);
    }
    findings
}

/// A query with what it is measured by.
struct Judged<'a> {
    query: &'a Query,
    model: &'a Model,
    shown: &'a BTreeMap<Key, u64>,
    plan: &'a Plan,
}

impl Judged<'_> {
    fn judge(&self, findings: &mut Findings) {
        match &self.query.said {
            Said::Keys { exact, found } => {
                for (key, balance) in found {
                    match balance {
                        Some(balance) => self.judge_row(*key, *balance, *exact, findings),
                        None if self.shown.contains_key(key) => {
                            findings.found(EMPTY, || format!("{key:?}: nothing, exact {exact}, {}", self.times()));
                        }
                        None => {}
                    }
                }
            }
            Said::Walk { exact, rows } => {
                rows.iter().for_each(|(key, balance)| self.judge_row(*key, *balance, *exact, findings));
                self.judge_walk(*exact, rows, findings);
            }
            Said::Count(partitions) => {
                let all: Vec<u32> = (0..self.plan.partitions).collect();
                if *partitions != all {
                    findings.found(PAGES, || format!("a count of {partitions:?}"));
                }
            }
            Said::Later(..) => {}
            Said::Strange(what) => findings.found(STRANGE, || what.clone()),
        }
    }

    fn judge_row(&self, key: Key, balance: Balance, exact: bool, findings: &mut Findings) {
        let what = || format!("{key:?} is {balance:?}, {}", self.times());
        if key.number >= self.plan.keys || key.partition >= self.plan.partitions {
            return findings.found(INVENTED, what);
        }
        let Some(seq) = self.model.entry_of(key, balance) else { return findings.found(WRONG, what) };
        if seq >= self.query.sent {
            findings.found(EARLY, what);
        }
        let shown = self.shown.get(&key).copied().unwrap_or(0);
        if exact && balance.count < shown {
            findings.found(OLD, || format!("{}, shown was {shown}", what()));
        }
    }

    fn judge_walk(&self, exact: bool, rows: &[(Key, Balance)], findings: &mut Findings) {
        if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            findings.found(PAGES, || format!("{:?} comes after {:?}, {}", pair[1].0, pair[0].0, self.times()));
        }
        let is_in = |key: &Key| rows.binary_search_by_key(key, |(key, _)| *key).is_ok();
        if let (true, Some(key)) = (exact, self.shown.keys().find(|key| !is_in(key))) {
            findings.found(PAGES, || format!("{key:?} is missing among {}, {}", rows.len(), self.times()));
        }
    }

    fn times(&self) -> String {
        format!("from {} to {} ms", self.query.begin_us / 1_000, self.query.end_us / 1_000)
    }
}

/// A time in which a key could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outage {
    pub partition: u32,
    pub begin_us: u64,
    pub end_us: u64,
    /// Why the first query in it had no answer.
    pub reason: String,
}

impl Outage {
    pub fn length_ms(&self) -> u64 {
        self.end_us.saturating_sub(self.begin_us) / 1_000
    }
}

/// The longest of them: from the beginning of a query that had no answer to the end of the first one that began after
/// it and had one, for the same partition and with the same copies. An empty one where there is none.
pub fn longest_outage(queries: &[Query], copies: Copies) -> Outage {
    let mut of_partition: BTreeMap<u32, Vec<(&Query, Option<&str>)>> = BTreeMap::new();
    for query in queries.iter().filter(|query| query.copies == copies) {
        let (partition, reason) = match &query.said {
            Said::Later(Some(partition), reason) => (*partition, Some(&**reason)),
            Said::Keys { found, .. } if found.len() == 1 => (found[0].0.partition, None),
            _ => continue,
        };
        of_partition.entry(partition).or_default().push((query, reason));
    }
    let mut longest = Outage::default();
    for (partition, queries) in &mut of_partition {
        queries.sort_unstable_by_key(|(query, _)| query.begin_us);
        // From the last to the first, so that the earliest end of all later ones is known.
        let mut next_end_us = None;
        for (query, reason) in queries.iter().rev() {
            match (reason, next_end_us) {
                (None, _) => next_end_us = Some(next_end_us.map_or(query.end_us, |next: u64| next.min(query.end_us))),
                (Some(reason), Some(end_us))
                    if end_us.saturating_sub(query.begin_us) >= longest.end_us - longest.begin_us =>
                {
                    let reason = (*reason).to_owned();
                    longest = Outage { partition: *partition, begin_us: query.begin_us, end_us, reason };
                }
                (Some(_), _) => {}
            }
        }
    }
    longest
}

#[cfg(test)]
mod tests;
