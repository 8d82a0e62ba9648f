//! Deploying versions of the processor while everything else goes on, and spreading the word among the hosts.

use super::World;
use crate::tally::TALLIES;
use crate::workload::source_topic;

/// How many turns of a host pass, about, before it hears what is new.
const HEARS_ONE_IN: u64 = 5;

/// How many turns of a host pass, about, before somebody looks after it.
const OPERATES_ONE_IN: u64 = 100;

/// As many deployments as this stay on probation.
const CONFIRMED_ONE_IN: u64 = 2;

impl World {
    /// Deploys another version, sound or not, at the rate of the scenario.
    pub(super) fn deploy_something(&self) {
        if self.happens(self.scenario.deploy_one_in) {
            let (number, version) = self.deployments.borrow_mut().deploy(&mut self.state.borrow_mut().seed);
            self.note("deployments", &format!("version {number} is wanted, {version:?}"));
            self.count("deployment");
        }
        if self.happens(self.scenario.migrate_one_in) {
            let deployed = self.deployments.borrow_mut().deploy_migrating(&mut self.state.borrow_mut().seed);
            if let Some((number, version)) = deployed {
                self.note("deployments", &format!("version {number} is wanted, {version:?}"));
                self.count("migration");
            }
        }
    }

    /// What an operator does where nothing goes on: deploys a sound version forward, or starts a host again that does
    /// not have the rows which its tasks wait for.
    pub(super) fn operate(&self, index: usize) {
        if self.scenario.migrate_one_in == 0 || !self.happens(OPERATES_ONE_IN) {
            return;
        }
        let Ok(mut host) = self.hosts[index].try_borrow_mut() else { return };
        if !host.is_up() || host.stalled_until > self.step() || self.broker.faults().is_crashed(&host.name) {
            return;
        }
        let Some(versions) = host.versions.clone() else { return };
        if host.waits_for("were not taken over yet") {
            self.note(&host.name, "starts again for older rows");
            self.count("restart for older rows");
            self.close(index, &mut host, self.step());
            return;
        }
        let mut deployments = self.deployments.borrow_mut();
        let is_newer =
            versions.target_number() == deployments.active() && host.waits_for("a newer version has written");
        if is_newer || deployments.stands_still(&versions) {
            let number = deployments.mend(self.committed_schema());
            self.note(
                "deployments",
                &format!("version {number} mends what stands still, schema {}", deployments.schema()),
            );
            self.count("mended version");
        }
    }

    /// The newest schema that rows have.
    fn committed_schema(&self) -> u32 {
        let partitions = (0..self.scenario.topics).flat_map(|topic| self.partitions_of(&source_topic(topic)));
        let known = partitions.filter_map(|partition| self.committed_metadata(&partition));
        { known }.filter_map(|known| known.schemas.get(TALLIES).copied()).max().unwrap_or(1)
    }

    /// A host hears what is wanted, and says what it has given up.
    pub(super) fn tell_of_versions(&self, index: usize) {
        let deploys = self.scenario.deploy_one_in > 0 || self.scenario.migrate_one_in > 0;
        if !deploys || !self.happens(HEARS_ONE_IN) {
            return;
        }
        let Ok(mut host) = self.hosts[index].try_borrow_mut() else { return };
        let Some(versions) = host.versions.clone().filter(|_| host.is_up()) else { return };
        let mut deployments = self.deployments.borrow_mut();
        if let Some(number) = deployments.hear(&versions) {
            self.note(&host.name, &format!("went back from version {number}"));
            self.count("rollback");
        } else if self.happens(20 * CONFIRMED_ONE_IN) && host.runs_version(deployments.active()) {
            deployments.confirm();
        }
        if deployments.has_other_topology(&versions) {
            let active = deployments.active();
            drop(deployments);
            if host.stalled_until <= self.step() && !self.broker.faults().is_crashed(&host.name) {
                self.note(&host.name, &format!("starts again for version {active}"));
                self.count("restart for a migration");
                self.close(index, &mut host, self.step());
            }
        } else if deployments.tell(&versions) {
            self.note(&host.name, &format!("hears of version {}", deployments.active()));
        }
    }

    /// Whether everybody runs what is wanted, and the committed offsets say so.
    pub(super) fn runs_active_version(&self) -> bool {
        let active = self.deployments.borrow().active();
        let said = |topic: u32| {
            let marks = self.partitions_of(&source_topic(topic)).into_iter().map(|one| self.committed_version(&one));
            { marks }.all(|mark| mark.map_or(active == 1, |mark| mark.number == active))
        };
        self.hosts.iter().all(|host| host.borrow().runs_version(active)) && (0..self.scenario.topics).all(said)
    }
}
