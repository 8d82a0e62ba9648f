//! What a check is and what it is given. A check gets names of its own, so that checks never meet; it returns Ok or an
//! error that says what was expected and what was found.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::client::{Clients, Sender};

pub type Outcome = Result<()>;

/// The half of a check that runs after the broker came back.
pub type After = Box<dyn FnOnce(&Context) -> Outcome + Send>;

/// How a check may run.
#[derive(Clone, Copy)]
pub enum Body {
    /// Beside other checks.
    Together(fn(&Context) -> Outcome),
    /// With nothing else running: it measures times, or loads the machine.
    Alone(fn(&Context) -> Outcome),
    /// Before and after an orderly restart, and again before and after a SIGKILL.
    AcrossRestart(fn(&Context) -> Result<After>),
    /// Kills the broker itself; alone.
    Kills(fn(&Context, &crate::broker::Broker) -> Outcome),
}

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Check {
    /// `theme/what`.
    pub name: &'static str,
    /// What it proves, as one line.
    pub proves: &'static str,
    pub body: Body,
}

/// What a check works with.
pub struct Context<'a> {
    pub clients: &'a Clients,
    prefix: String,
    names: AtomicU32,
}

impl<'a> Context<'a> {
    /// `run` tells apart the runs of one check on one broker.
    pub fn new(clients: &'a Clients, check: &str, run: &str) -> Self {
        Self { clients, prefix: format!("{}{run}", check.replace('/', ".")), names: AtomicU32::new(0) }
    }

    pub fn bootstrap(&self) -> &str {
        &self.clients.bootstrap
    }

    /// A name that no other check has: of a topic, a group, a transactional id.
    pub fn name(&self, what: &str) -> String {
        format!("{}.{}.{what}", self.prefix, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A new topic.
    pub fn topic(&self, partitions: i32, settings: &[(&str, &str)]) -> Result<String> {
        let name = self.name("topic");
        self.clients.create_topic(&name, partitions, settings)?;
        Ok(name)
    }

    pub fn sender(&self, settings: &[(&str, &str)]) -> Result<Sender> {
        Sender::new(self.bootstrap(), settings)
    }

    /// A transactional producer with a new id.
    pub fn transactional(&self) -> Result<Sender> {
        Sender::transactional(self.bootstrap(), &self.name("transactional"), &[])
    }

    /// A topic whose partition 0 holds the numbers from 0.
    pub fn numbers(&self, count: usize) -> Result<String> {
        let topic = self.topic(1, &[])?;
        let sender = self.sender(&[])?;
        sender.put_numbers(&topic, 0, 0, count)?;
        sender.flush()?;
        Ok(topic)
    }
}
