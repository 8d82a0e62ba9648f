//! Which versions of the processor were deployed in a run, and which of them is wanted. Stands for what the hosts tell
//! one another: each hears of a deployment at some time, and one that goes back tells the others. Version 1 is sound.

use std::sync::Arc;

use engine::processor::ProcessorSupplier;
use engine::testing::{NativeSupplier, Seed};
use engine::version::{Probation, ProcessorVersion, Versions};

use crate::tally::{Tally, declare};

/// Nothing is allowed that the version before did not do.
const STRICT: Probation = Probation { failures_max: 0, output_factor: 10.0 };

/// What is wrong with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionFault {
    None,
    /// Its `init` writes and fails.
    Init,
    /// It writes, and traps at a third of the records.
    Traps,
    /// The same with an error in good order.
    Refuses,
}

impl VersionFault {
    /// Whether a record makes it fail.
    pub fn hits(self, sequence: u32) -> bool {
        matches!(self, Self::Traps | Self::Refuses) && sequence % 3 == 2
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Deployments {
    topics: u32,
    fails_one_in: u64,
    /// Of each version, from number 1 on.
    faults: Vec<VersionFault>,
    active: u64,
    /// The last one that is on probation no more.
    confirmed: u64,
}

impl Deployments {
    pub fn new(topics: u32, fails_one_in: u64) -> Self {
        Self { topics, fails_one_in, faults: vec![VersionFault::None], active: 1, confirmed: 1 }
    }

    pub fn active(&self) -> u64 {
        self.active
    }

    /// Makes a version, and wants it.
    pub fn deploy(&mut self, seed: &mut Seed) -> (u64, VersionFault) {
        const FAULTS: [VersionFault; 3] = [VersionFault::Init, VersionFault::Traps, VersionFault::Refuses];
        let fault = if seed.one_in(2) { VersionFault::None } else { FAULTS[seed.below(3) as usize] };
        self.faults.push(fault);
        self.active = self.faults.len() as u64;
        (self.active, fault)
    }

    /// Ends the probation of the active version, where it is sound.
    pub fn confirm(&mut self) {
        if self.faults.get(self.active as usize - 1) == Some(&VersionFault::None) {
            self.confirmed = self.active;
        }
    }

    /// A process that starts: with the active version, and with what a rollback returns to.
    pub fn start(&self) -> Arc<Versions> {
        let versions = Versions::new(self.version(self.confirmed));
        if self.active != self.confirmed {
            versions.deploy(self.version(self.active), Some(STRICT));
        }
        Arc::new(versions)
    }

    /// Hears what a host has given up by itself. Returns the number where that is news.
    pub fn hear(&mut self, versions: &Versions) -> Option<u64> {
        let back = versions.rolled_back().filter(|back| back.number == self.active)?;
        self.active = self.confirmed;
        Some(back.number)
    }

    /// Tells a host what is wanted. True where that is news.
    pub fn tell(&self, versions: &Versions) -> bool {
        let target = versions.target_number();
        if target == self.active {
            if self.active == self.confirmed {
                versions.confirm(target);
            }
            return false;
        }
        let is_back = versions.previous().is_some_and(|previous| previous.number == self.active);
        if !is_back || !versions.roll_back(target, "another host went back") {
            let probation = (self.active != self.confirmed).then_some(STRICT);
            versions.deploy(self.version(self.active), probation);
        }
        true
    }

    fn version(&self, number: u64) -> Arc<ProcessorVersion> {
        let fault = self.faults.get(number as usize - 1).copied().unwrap_or(VersionFault::None);
        let fails_one_in = self.fails_one_in;
        let make = move |_| Tally::new(fails_one_in, number, fault);
        let supplier: Arc<dyn ProcessorSupplier> = Arc::new(NativeSupplier::new(declare(self.topics), make));
        ProcessorVersion::new(number, supplier, Arc::default())
    }
}
