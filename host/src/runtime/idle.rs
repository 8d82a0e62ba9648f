//! When a run that ends by itself may end: once all of its applications are idle at the same time, since one may still
//! make records for another. A decision stays, so that none of them is left behind.

use std::sync::{Mutex, PoisonError};

/// What the applications of a process say of themselves.
#[derive(Debug)]
pub struct IdleVotes(Mutex<Votes>);

#[derive(Debug)]
struct Votes {
    idle: Vec<bool>,
    is_decided: bool,
}

impl IdleVotes {
    /// For so many applications, none of which is idle yet.
    pub fn new(applications: usize) -> Self {
        Self(Mutex::new(Votes { idle: vec![false; applications], is_decided: false }))
    }

    /// Says whether an application is idle now. True once all of them are, and from then on.
    pub fn vote(&self, application: usize, is_idle: bool) -> bool {
        let mut votes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vote) = votes.idle.get_mut(application) {
            *vote = is_idle;
        }
        votes.is_decided |= votes.idle.iter().all(|idle| *idle);
        votes.is_decided
    }

    /// Says that an application has ended, so that the others need not wait for it.
    pub fn withdraw(&self, application: usize) {
        self.vote(application, true);
    }
}

#[cfg(test)]
mod tests;
