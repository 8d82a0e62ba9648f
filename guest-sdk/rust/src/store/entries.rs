//! `Entries`: an ordered walk over a store. It sees the store as it was when the first entry was asked for, the running
//! record's own writes included: pages come from the host, and those writes are merged in here. It never writes.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;

use super::StoreCell;
use crate::bindings::sandbar::processor::state::{Bound, Page};
use crate::{Result, Serde};

/// Entries a page. Large enough that a host call does not count, small enough that a walk that stops early is cheap.
const PAGE_ENTRIES: u32 = 256;

/// What to walk over.
#[derive(Debug, Clone)]
pub(super) enum Span {
    /// Both ends included, as in Kafka Streams.
    Range {
        from: Option<Vec<u8>>,
        to: Option<Vec<u8>>,
    },
    Prefix(Vec<u8>),
    /// The bounds of the range could not be written.
    Invalid(String),
}

impl Span {
    fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Range { from, to } => {
                from.as_ref().is_none_or(|from| key >= from.as_slice())
                    && to.as_ref().is_none_or(|to| key <= to.as_slice())
            }
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Invalid(_) => false,
        }
    }
}

/// An iterator over the entries of a store in byte order of the keys. Entries written or deleted while it runs do not
/// change what it yields.
pub struct Entries<K, V> {
    cell: Rc<StoreCell>,
    span: Span,
    reverse: bool,
    state: Option<Walk>,
    types: PhantomData<fn() -> (K, V)>,
}

struct Walk {
    page: Page,
    position: usize,
    /// The running record's writes, next one in front.
    own: VecDeque<(Vec<u8>, Option<Vec<u8>>)>,
}

impl<K: Serde, V: Serde> Entries<K, V> {
    pub(super) fn new(cell: Rc<StoreCell>, span: Span) -> Self {
        Self { cell, span, reverse: false, state: None, types: PhantomData }
    }

    /// Walks in descending order. Call it before the first entry is taken.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = !self.reverse;
        self
    }

    fn start(&mut self) -> Walk {
        let own = self.cell.with_cache(|cache, host, store| {
            cache.flush_finished(host, store);
            cache.record_writes(|key| self.span.contains(key))
        });
        let mut own = VecDeque::from(own);
        if self.reverse {
            own.make_contiguous().reverse();
        }
        Walk { page: self.fetch(None), position: 0, own }
    }

    fn fetch(&self, after: Option<&[u8]>) -> Page {
        self.cell.with_cache(|_, host, store| match &self.span {
            Span::Prefix(prefix) => host.prefix(store, prefix, after, self.reverse, PAGE_ENTRIES),
            Span::Range { from, to } => {
                let included = |end: &Option<Vec<u8>>| end.clone().map_or(Bound::Unbounded, Bound::Included);
                let (mut lower, mut upper) = (included(from), included(to));
                if let Some(after) = after {
                    let end = if self.reverse { &mut upper } else { &mut lower };
                    *end = Bound::Excluded(after.to_vec());
                }
                host.range(store, &lower, &upper, self.reverse, PAGE_ENTRIES)
            }
            Span::Invalid(_) => Page::default(),
        })
    }

    fn turn_page(&self, walk: &mut Walk) {
        while walk.position >= walk.page.keys.len() && walk.page.more {
            let last = match walk.page.keys.len() {
                0 => return walk.page.more = false,
                length => walk.page.keys.get(length - 1).to_vec(),
            };
            walk.page = self.fetch(Some(&last));
            walk.position = 0;
        }
    }

    /// The next entry of page and own writes, which hide the page's.
    fn step(&self, walk: &mut Walk) -> Option<Result<(K::Owned, V::Owned)>> {
        loop {
            self.turn_page(walk);
            let stored = walk.position < walk.page.keys.len();
            let order = match walk.own.front() {
                None if !stored => return None,
                None => Ordering::Greater,
                Some(_) if !stored => Ordering::Less,
                Some((own, _)) => {
                    let order = own.as_slice().cmp(walk.page.keys.get(walk.position));
                    if self.reverse { order.reverse() } else { order }
                }
            };
            if order == Ordering::Greater {
                let index = walk.position;
                walk.position += 1;
                return Some(self.decode(walk.page.keys.get(index), walk.page.values.get(index)));
            }
            if order == Ordering::Equal {
                walk.position += 1;
            }
            if let Some((key, Some(value))) = walk.own.pop_front() {
                return Some(self.decode(&key, &value));
            }
        }
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<(K::Owned, V::Owned)> {
        let key = K::decode_owned(Some(key)).map_err(|error| self.cell.error("a key of", error))?;
        let value = V::decode_owned(Some(value)).map_err(|error| self.cell.error("a value of", error))?;
        Ok((key, value))
    }
}

impl<K: Serde, V: Serde> Iterator for Entries<K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Span::Invalid(reason) = &self.span {
            let error = crate::Error::new(reason);
            self.span = Span::Prefix(Vec::new());
            self.state = Some(Walk { page: Page::default(), position: 0, own: VecDeque::new() });
            return Some(Err(error));
        }
        let mut walk = match self.state.take() {
            Some(walk) => walk,
            None => self.start(),
        };
        let entry = self.step(&mut walk);
        self.state = Some(walk);
        entry
    }
}
