//! Scans of a store over the partitions of this process, and the merge of what partitions or whole hosts have found
//! into one page. A page ends where its knowledge ends: nothing is taken past what one of its parts has not looked at,
//! so that pages one after the other neither miss nor repeat anything.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::num::NonZeroUsize;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{PartitionPosition, QueryError, QueryRegistry, Registration, available, position};
use crate::state::{KeyRange, PAGE_MAX_BYTES, Page, PageBuilder};

/// Bytes that the partitions of a host may gather together before they are merged to a page.
const GATHERED_BYTES_MAX: usize = 32 << 20;
/// However many partitions there are, each may gather this much.
const GATHERED_BYTES_MIN: usize = 64 << 10;

/// Where the next page begins: after this key of this partition, in the order of the scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeKey {
    pub key: Bytes,
    pub partition: i32,
}

/// One entry of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryEntry {
    pub partition: i32,
    pub key: Bytes,
    pub value: Bytes,
}

/// A page over the local partitions, merged in key order; equal keys in the order of their partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryPage {
    pub entries: Vec<QueryEntry>,
    /// Pass it to the same query for the next page; `None` when this is the last one.
    pub resume: Option<ResumeKey>,
    /// The partitions that were read, in order, each with what the entries are at least as new as.
    pub positions: Vec<PartitionPosition>,
    /// And what they are no newer than.
    pub seen: Vec<PartitionPosition>,
    /// Local partitions that are missing from the answer because they are being restored.
    pub restoring: Vec<i32>,
    /// How many entries were looked at.
    pub scanned: u64,
}

/// Says which entries a scan is after, by key and value.
#[derive(Clone, Copy)]
pub struct Filter<'a> {
    pub accepts: &'a dyn Fn(&[u8], &[u8]) -> bool,
    /// Entries that one page may look at, over all local partitions; each of them may look at one in any case.
    pub scanned_max: NonZeroUsize,
    /// The same for the bytes of keys and values.
    pub scanned_bytes_max: usize,
}

/// A scan over the local partitions of a store.
#[derive(Clone, Copy)]
pub struct ScanQuery<'a> {
    pub store: &'a str,
    /// `None` asks all local partitions, else those of these that are here.
    pub partitions: Option<&'a [i32]>,
    pub range: KeyRange<'a>,
    pub reverse: bool,
    pub limit: NonZeroUsize,
    pub resume: Option<&'a ResumeKey>,
    /// With it copies may answer that lack at most so many offsets of their changelog: standby tasks, and active ones
    /// that are being restored.
    pub max_lag: Option<u64>,
    /// With it a page may hold fewer entries than its limit, or none, and still say that more may follow.
    pub filter: Option<Filter<'a>>,
}

impl QueryRegistry {
    /// A page of a range. Partitions that are being restored are left out and named.
    pub fn scan(&self, query: ScanQuery<'_>) -> Result<QueryPage, QueryError> {
        let registrations = self.local(query.store, query.partitions, query.max_lag.is_some())?;
        let mut page = QueryPage::default();
        let mut sources = Vec::new();
        for registration in &registrations {
            if available(registration, query.max_lag).is_err() {
                page.restoring.push(registration.task.partition);
                continue;
            }
            page.positions.push(position(registration)?);
            let (source, scanned) = read_source(registration, &query, registrations.len())?;
            page.scanned += scanned;
            page.seen.push(position(registration)?);
            sources.push(source);
        }
        merge(sources, query.reverse, query.limit, &mut page);
        Ok(page)
    }
}

/// Entries in the order of a scan, and where its knowledge ends; `None` where there is nothing more.
struct Source<I: Iterator<Item = QueryEntry>> {
    entries: Peekable<I>,
    known_to: Option<ResumeKey>,
}

/// One partition's page, whose entries are copied as they are taken, and how many entries were looked at for it.
fn read_source(
    registration: &Registration,
    query: &ScanQuery<'_>,
    partitions: usize,
) -> Result<(Source<impl Iterator<Item = QueryEntry> + use<>>, u64), QueryError> {
    let partition = registration.task.partition;
    let range = match query.resume {
        // Equal keys come in the order of their partitions, so later ones may still hold the key itself.
        Some(resume) if partition > resume.partition => from(query.range, &resume.key, query.reverse),
        Some(resume) => query.range.after(&resume.key, query.reverse),
        None => query.range,
    };
    let bytes_max = (GATHERED_BYTES_MAX / partitions).clamp(GATHERED_BYTES_MIN, PAGE_MAX_BYTES);
    let mut page = PageBuilder::new(query.limit.get()).bytes_max(bytes_max);
    let scanned_max = query.filter.map_or(u64::MAX, |filter| (filter.scanned_max.get() / partitions).max(1) as u64);
    let scanned_bytes_max = query.filter.map_or(usize::MAX, |filter| filter.scanned_bytes_max / partitions);
    let (mut scanned, mut scanned_bytes, mut last_refused) = (0, 0, None);
    let mut visit = |key: &[u8], value: &[u8]| {
        if scanned >= scanned_max || (scanned > 0 && scanned_bytes >= scanned_bytes_max) {
            page.cut();
            return ControlFlow::Break(());
        }
        scanned += 1;
        scanned_bytes += key.len() + value.len();
        match query.filter {
            Some(filter) if !(filter.accepts)(key, value) => {
                if scanned == scanned_max || scanned_bytes >= scanned_bytes_max {
                    last_refused = Some(Bytes::copy_from_slice(key));
                }
                ControlFlow::Continue(())
            }
            _ => page.offer(key, value),
        }
    };
    registration.view.scan(range, query.reverse, &mut visit)?;
    let Page { keys, values, more } = page.finish();
    let count = keys.len();
    let last_key = last_refused.or_else(|| Some(Bytes::copy_from_slice(keys.get(count.checked_sub(1)?))));
    let known_to = last_key.filter(|_| more).map(|key| ResumeKey { key, partition });
    let entry = move |index: usize| QueryEntry {
        partition,
        key: Bytes::copy_from_slice(keys.get(index)),
        value: Bytes::copy_from_slice(values.get(index)),
    };
    Ok((Source { entries: (0..count).map(entry).peekable(), known_to }, scanned))
}

/// The part of the range that begins with the key `first` in the order asked.
fn from<'a>(mut range: KeyRange<'a>, first: &'a [u8], reverse: bool) -> KeyRange<'a> {
    if reverse {
        if range.after(first, true).upper == Bound::Excluded(first) && range.upper != Bound::Excluded(first) {
            range.upper = Bound::Included(first);
        }
    } else if range.after(first, false).lower == Bound::Excluded(first) && range.lower != Bound::Excluded(first) {
        range.lower = Bound::Included(first);
    }
    range
}

/// By key in the order of the scan, then by partition.
fn order(left: (&[u8], i32), right: (&[u8], i32), reverse: bool) -> Ordering {
    let by_key = if reverse { right.0.cmp(left.0) } else { left.0.cmp(right.0) };
    by_key.then(left.1.cmp(&right.1))
}

/// Takes entries in key order, equal keys in the order of their partitions, until the limit or the end of what is
/// known.
fn merge<I: Iterator<Item = QueryEntry>>(
    mut sources: Vec<Source<I>>,
    reverse: bool,
    limit: NonZeroUsize,
    page: &mut QueryPage,
) {
    let ends = sources.iter().filter_map(|source| source.known_to.clone());
    let end = ends.min_by(|a, b| order((&a.key, a.partition), (&b.key, b.partition), reverse));
    let is_known = |key: &[u8], partition: i32| {
        let end = end.as_ref();
        end.is_none_or(|end| order((key, partition), (&end.key, end.partition), reverse).is_le())
    };
    loop {
        let next = sources.iter_mut().filter_map(|Source { entries, .. }| {
            let QueryEntry { key, partition, .. } = entries.peek()?;
            Some(((key.clone(), *partition), entries))
        });
        let next = next.min_by(|((a, at), _), ((b, bt), _)| order((a, *at), (b, *bt), reverse));
        match next {
            Some(((key, partition), entries)) if is_known(&key, partition) => {
                if page.entries.len() >= limit.get() {
                    let last = page.entries.last();
                    page.resume = last.map(|last| ResumeKey { key: last.key.clone(), partition: last.partition });
                    return;
                }
                page.entries.extend(entries.next());
            }
            _ => {
                page.resume = end;
                return;
            }
        }
    }
}

/// Merges pages of one query that several hosts have answered, each for its own partitions, as if one had read them
/// all.
pub fn merge_pages(pages: Vec<QueryPage>, reverse: bool, limit: NonZeroUsize) -> QueryPage {
    let mut merged = QueryPage::default();
    let mut sources = Vec::new();
    for page in pages {
        merged.positions.extend(page.positions);
        merged.seen.extend(page.seen);
        merged.restoring.extend(page.restoring);
        merged.scanned += page.scanned;
        sources.push(Source { entries: page.entries.into_iter().peekable(), known_to: page.resume });
    }
    merged.positions.sort_by_key(|position| position.partition);
    merged.restoring.sort_unstable();
    merge(sources, reverse, limit, &mut merged);
    merged
}
