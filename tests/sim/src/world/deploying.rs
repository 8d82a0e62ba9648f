//! Deploying versions of the processor while everything else goes on, and spreading the word among the hosts.

use super::World;
use crate::workload::source_topic;

/// How many turns of a host pass, about, before it hears what is new.
const HEARS_ONE_IN: u64 = 5;

/// As many deployments as this stay on probation.
const CONFIRMED_ONE_IN: u64 = 2;

impl World {
    /// Deploys another version, sound or not, at the rate of the scenario.
    pub(super) fn deploy_something(&self) {
        if !self.happens(self.scenario.deploy_one_in) {
            return;
        }
        let (number, fault) = self.deployments.borrow_mut().deploy(&mut self.state.borrow_mut().seed);
        self.note("deployments", &format!("version {number} is wanted, fault {fault:?}"));
        self.count("deployment");
    }

    /// A host hears what is wanted, and says what it has given up.
    pub(super) fn tell_of_versions(&self, index: usize) {
        if self.scenario.deploy_one_in == 0 || !self.happens(HEARS_ONE_IN) {
            return;
        }
        let Ok(host) = self.hosts[index].try_borrow() else { return };
        let Some(versions) = host.versions.as_ref().filter(|_| host.is_up()) else { return };
        let mut deployments = self.deployments.borrow_mut();
        if let Some(number) = deployments.hear(versions) {
            self.note(&host.name, &format!("went back from version {number}"));
            self.count("rollback");
        } else if self.happens(20 * CONFIRMED_ONE_IN) && host.runs_version(deployments.active()) {
            deployments.confirm();
        }
        if deployments.tell(versions) {
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
