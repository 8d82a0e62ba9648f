//! When a run that ends by itself may end: once all of its applications are idle at the same time, since one may still
//! make records for another. A decision stays, so that none of them is left behind.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the applications of a process say of themselves.
#[derive(Debug, Default)]
pub struct IdleVotes(Mutex<Votes>);

#[derive(Debug, Default)]
struct Votes {
    /// Of those that have a say, by the places that they got.
    idle: BTreeMap<usize, bool>,
    /// The place of the next one; no place is given twice.
    next: usize,
    is_decided: bool,
}

impl IdleVotes {
    /// An application more, which is not idle yet. Returns its place.
    pub fn enter(&self) -> usize {
        let mut votes = self.lock();
        let place = votes.next;
        votes.next += 1;
        votes.idle.insert(place, false);
        place
    }

    /// Says whether the application of a place is idle now. True once all of them are, and from then on. One that has
    /// withdrawn decides nothing.
    pub fn vote(&self, place: usize, is_idle: bool) -> bool {
        let mut votes = self.lock();
        if let Some(vote) = votes.idle.get_mut(&place) {
            *vote = is_idle;
            votes.is_decided |= votes.idle.values().all(|idle| *idle);
        }
        votes.is_decided
    }

    /// Says that an application has ended, so that the others need not wait for it.
    pub fn withdraw(&self, place: usize) {
        self.lock().idle.remove(&place);
    }

    fn lock(&self) -> MutexGuard<'_, Votes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
