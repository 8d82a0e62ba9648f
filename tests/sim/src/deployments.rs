//! Which versions of the processor were deployed in a run, and which of them is wanted. Stands for what the hosts tell
//! one another: each hears of a deployment at some time, and one that goes back tells the others. Version 1 is sound.
//! Later ones may have rows of a newer schema, for which a host starts its threads anew; who has processed with such
//! rows does not go back, and waits for a sound version of the same schema.

use std::sync::Arc;

use engine::processor::ProcessorSupplier;
use engine::testing::{NativeSupplier, Seed};
use engine::version::{Probation, ProcessorVersion, Versions};

use crate::tally::{SCHEMA_MAX, Tally, declare};

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
    /// It does not take every row over from an older schema.
    Migrate,
}

impl VersionFault {
    /// Whether a record makes it fail.
    pub fn hits(self, sequence: u32) -> bool {
        matches!(self, Self::Traps | Self::Refuses) && sequence % 3 == 2
    }
}

/// A version as it was deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub fault: VersionFault,
    /// Of the rows of `tallies`.
    pub schema: u32,
}

impl Version {
    const FIRST: Self = Self { fault: VersionFault::None, schema: 1 };
}

/// See the module's head.
#[derive(Debug)]
pub struct Deployments {
    topics: u32,
    fails_one_in: u64,
    /// Of each version, from number 1 on.
    versions: Vec<Version>,
    active: u64,
    /// The last one that is on probation no more.
    confirmed: u64,
}

impl Deployments {
    pub fn new(topics: u32, fails_one_in: u64) -> Self {
        Self { topics, fails_one_in, versions: vec![Version::FIRST], active: 1, confirmed: 1 }
    }

    pub fn active(&self) -> u64 {
        self.active
    }

    /// The schema of the wanted version.
    pub fn schema(&self) -> u32 {
        self.of(self.active).schema
    }

    /// Makes a version of the same schema, and wants it.
    pub fn deploy(&mut self, seed: &mut Seed) -> (u64, Version) {
        const FAULTS: [VersionFault; 3] = [VersionFault::Init, VersionFault::Traps, VersionFault::Refuses];
        let fault = if seed.one_in(2) { VersionFault::None } else { FAULTS[seed.below(3) as usize] };
        self.want(Version { fault, schema: self.schema() })
    }

    /// Makes a version of the next schema, and wants it. Nothing where there are enough of them.
    pub fn deploy_migrating(&mut self, seed: &mut Seed) -> Option<(u64, Version)> {
        const FAULTS: [VersionFault; 4] =
            [VersionFault::Migrate, VersionFault::Migrate, VersionFault::Init, VersionFault::Traps];
        let fault = if seed.one_in(2) { VersionFault::None } else { FAULTS[seed.below(4) as usize] };
        let schema = self.schema() + 1;
        (schema <= SCHEMA_MAX).then(|| self.want(Version { fault, schema }))
    }

    /// Makes a sound version that can go on with rows of this schema, and wants it for good.
    pub fn mend(&mut self, schema: u32) -> u64 {
        let schema = schema.max(self.schema());
        let (number, _) = self.want(Version { fault: VersionFault::None, schema });
        self.confirmed = number;
        number
    }

    fn want(&mut self, version: Version) -> (u64, Version) {
        self.versions.push(version);
        self.active = self.versions.len() as u64;
        (self.active, version)
    }

    fn of(&self, number: u64) -> Version {
        self.versions.get(number as usize - 1).copied().unwrap_or(Version::FIRST)
    }

    /// Ends the probation of the active version, where it is sound.
    pub fn confirm(&mut self) {
        if self.of(self.active).fault == VersionFault::None {
            self.confirmed = self.active;
        }
    }

    /// A process that starts: with the active version, and with what a rollback returns to.
    pub fn start(&self) -> Arc<Versions> {
        // Another schema is another topology: threads that have begun with it do not go back by themselves.
        if self.of(self.confirmed).schema != self.schema() {
            return Arc::new(Versions::on_probation(self.version(self.active), STRICT));
        }
        let versions = Versions::new(self.version(self.confirmed));
        if self.active != self.confirmed {
            versions.deploy(self.version(self.active), Some(STRICT));
        }
        Arc::new(versions)
    }

    /// Hears what a host has given up by itself, step by step. Returns the first number where that is news. Where it
    /// has processed records in a schema of its own already nothing could go on, and it stands still.
    pub fn hear(&mut self, versions: &Versions) -> Option<u64> {
        let mut first = None;
        for back in versions.rollbacks() {
            if back.number != self.active {
                continue;
            }
            if self.active == self.confirmed || back.to.is_none() && versions.target().tally.records() > 0 {
                break;
            }
            self.active = back.to.unwrap_or(self.confirmed);
            first = first.or(Some(back.number));
        }
        first
    }

    /// Whether a host has other threads than those of the wanted version: it must start again to run that.
    pub fn has_other_topology(&self, versions: &Versions) -> bool {
        self.of(versions.target_number()).schema != self.schema()
    }

    /// Whether a host has given up what is wanted, and stands still.
    pub fn stands_still(&self, versions: &Versions) -> bool {
        versions.is_paused() && versions.target_number() == self.active
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
        let (fails_one_in, version) = (self.fails_one_in, self.of(number));
        let make = move |_| Tally::new(fails_one_in, number, version);
        let supplier = NativeSupplier::new(declare(self.topics, version.schema), make).migrating();
        let supplier: Arc<dyn ProcessorSupplier> = Arc::new(supplier);
        ProcessorVersion::new(number, supplier, Arc::default())
    }
}
