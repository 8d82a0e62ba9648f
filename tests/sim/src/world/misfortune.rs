//! Letting bad things begin and end, each at the rate of its scenario. Nothing here looks at what the hosts do.

use broker::core::admin::ConfigChange;
use broker::core::batch::build::{BatchBuilder, NewRecord, ProducerStamp};
use broker::core::refusal::Refusal;
use broker::core::transaction::TransactionalProducer;
use broker::direct::FaultRates;
use engine::record::TopicPartition;
use engine::topology::changelog_topic;

use super::World;
use crate::host::{APPLICATION, Host};
use crate::tally::{LATEST, OUTPUT, TALLIES, generation};
use crate::workload::source_topic;

/// Stands for the threads of a host that closes, one after the other.
const CLOSING: usize = usize::MAX;

impl World {
    /// Lets bad things begin.
    pub(super) fn misfortune(&self) {
        self.crash_somebody();
        self.let_somebody_leave();
        self.stall_somebody();
        let scenario = &self.scenario;
        if self.happens(scenario.broker_restart_one_in) {
            self.broker.restart().expect("the memory storage opens");
            self.note("broker", "restarts");
            self.count("broker restart");
        }
        self.trouble_disks();
        self.trouble_logs();
        if self.happens(scenario.forget_offsets_one_in) {
            self.forget_offsets();
        }
        let forgotten_until = self.state.borrow().offsets_forgotten_until;
        if forgotten_until.is_some_and(|until| self.step() >= until) {
            self.broker.faults().forget_offsets(false);
            self.state.borrow_mut().offsets_forgotten_until = None;
            self.note("broker", "knows committed offsets again");
        }
    }

    /// Partitions are given to others soon: with luck the coordinator has forgotten their offsets then.
    pub(super) fn forget_offsets_in_rebalance(&self) {
        if self.scenario.forget_offsets_one_in > 0 && self.happens(2) {
            self.forget_offsets();
        }
    }

    /// The coordinator knows no committed offset for a while. Where there is no state yet nobody could tell that from a
    /// first start, so every task has some.
    fn forget_offsets(&self) {
        let has_state = |partition: i32| {
            [TALLIES, LATEST].into_iter().any(|store| {
                let log = self.broker.core().partition(&changelog_topic(APPLICATION, store), partition);
                log.is_ok_and(|log| log.bounds().last_stable_offset > log.bounds().log_start_offset)
            })
        };
        if !self.state.borrow().is_troubled || !(0..self.scenario.partitions).all(has_state) {
            return;
        }
        self.broker.faults().forget_offsets(true);
        let until = self.step() + 1 + self.below(600);
        self.state.borrow_mut().offsets_forgotten_until = Some(until);
        self.note("broker", "knows no committed offsets");
        self.count("offsets forgotten");
    }

    fn crash_somebody(&self) {
        if self.happens(self.scenario.crash_one_in) {
            let (host, calls) = (self.any_host(), self.below(60));
            if self.hosts[host].try_borrow().is_ok_and(|host| host.is_up()) {
                self.broker.faults().crash_after(&self.name(host), calls);
                self.count("crash");
            }
        }
        if self.happens(self.scenario.crash_in_commit_one_in) {
            let (host, stage) = (self.any_host(), self.any_stage());
            // Mostly exactly between two stages, and within the writes of the stores at each place.
            let calls = if stage == "write stores" || self.happens(4) { self.below(5) } else { 0 };
            if self.hosts[host].try_borrow().is_ok_and(|host| host.is_up()) {
                self.state.borrow_mut().plans[host].crash_at = Some((stage, calls));
                self.count("crash in a commit");
            }
        }
    }

    fn let_somebody_leave(&self) {
        if !self.happens(self.scenario.leave_one_in) {
            return;
        }
        let (index, until) = (self.any_host(), self.step() + self.below(200));
        let Ok(mut host) = self.hosts[index].try_borrow_mut() else { return };
        let stalled = host.stalled_until > self.step();
        if host.is_up() && !stalled && !self.broker.faults().is_crashed(&host.name) {
            self.note(&host.name, "leaves");
            self.close(index, &mut host, until);
        }
    }

    /// Ends a process in good order, until this step.
    pub(super) fn close(&self, index: usize, host: &mut Host, until: u64) {
        self.state.borrow_mut().running.push((index, CLOSING));
        // A close that fails under a fault has dropped work, which the failures count already.
        let closed = host.close(until);
        self.state.borrow_mut().running.pop();
        self.count(if closed.is_ok() { "clean leave" } else { "failed leave" });
        self.forget_offsets_in_rebalance();
        if self.broker.faults().is_crashed(&host.name) {
            host.crash(&mut self.state.borrow_mut().seed, until);
            self.broker.faults().revive(&host.name);
        }
    }

    fn stall_somebody(&self) {
        if !self.happens(self.scenario.stall_one_in) {
            return;
        }
        let (index, step) = (self.any_host(), self.step());
        // One at a time, so that somebody takes over.
        let awake = |host: &std::cell::RefCell<crate::host::Host>| {
            host.try_borrow().is_ok_and(|host| host.stalled_until <= step)
        };
        if !self.hosts.iter().all(awake) || !self.hosts[index].borrow().is_up() {
            return;
        }
        match self.below(4) {
            0 => {
                self.hosts[index].borrow_mut().stalled_until = step + 450 + self.below(300);
                self.note(&self.name(index), "stands still");
                self.count("stall");
            }
            1 => {
                let calls = self.below(40);
                self.state.borrow_mut().plans[index].stall_after = Some(calls);
            }
            _ => {
                let (stage, calls) = (self.any_stage(), self.below(5).saturating_sub(2));
                self.state.borrow_mut().plans[index].stall_at = Some((stage, calls));
            }
        }
    }

    fn trouble_disks(&self) {
        if self.happens(self.scenario.disk_full_one_in) && self.state.borrow().disk_full.is_none() {
            let (host, until) = (self.any_host(), self.step() + 30 + self.below(100));
            self.stores[host].fill_disk(true);
            self.state.borrow_mut().disk_full = Some((host, until));
            self.note(&self.name(host), "disk full");
            self.count("full disk");
        }
        let full = self.state.borrow().disk_full;
        if let Some((host, until)) = full
            && self.step() >= until
        {
            self.stores[host].fill_disk(false);
            self.state.borrow_mut().disk_full = None;
        }
        if self.happens(self.scenario.damage_one_in) {
            let host = self.any_host();
            let damaged = self.stores[host].damage_any(&mut self.state.borrow_mut().seed);
            if let Some((task, store)) = damaged {
                self.note(&self.name(host), &format!("{task}/{store} is damaged"));
                self.count("damaged store");
            }
        }
    }

    fn trouble_logs(&self) {
        let scenario = &self.scenario;
        if self.happens(scenario.compact_one_in) {
            self.watch.borrow_mut().look_before_thinning(&self.broker, scenario);
            let report = self.broker.core().clean(self.broker_ms());
            if report.finished_passes > 0 {
                self.note("broker", &format!("compacts {} logs", report.finished_passes));
                self.count("compaction");
            }
        }
        if self.happens(scenario.truncate_one_in) {
            let store = if self.happens(2) { self.any_generation() } else { LATEST.to_owned() };
            let partition = self.below(scenario.partitions as u64) as i32;
            self.truncate(&TopicPartition::new(changelog_topic(APPLICATION, &store), partition));
        }
        if self.happens(scenario.hang_one_in) {
            let tallies = changelog_topic(APPLICATION, &self.any_generation());
            let topics = [tallies, changelog_topic(APPLICATION, LATEST), OUTPUT.into()];
            let topic = topics[self.below(3) as usize].clone();
            let partition = TopicPartition::new(topic, self.below(scenario.partitions as u64) as i32);
            let timeout_ms = 1_000 + self.below(8_000) as i32;
            // Before the group has committed anything, whatever is in a changelog means that offsets were lost.
            let begun = self.committed(&TopicPartition::new(source_topic(0), partition.partition)).is_some();
            if begun && self.begin_foreign(&partition, timeout_ms).is_ok() {
                self.note("foreign", &format!("writes to {partition} and hangs for {timeout_ms} ms"));
                self.count("hanging transaction");
            }
        }
        if self.happens(scenario.aborted_input_one_in) {
            let topic = self.below(u64::from(scenario.topics)) as u32;
            let partition = self.below(scenario.partitions as u64) as i32;
            let partition = TopicPartition::new(source_topic(topic), partition);
            let begun = self.begin_foreign(&partition, 60_000).and_then(|(id, producer_id, epoch)| {
                let producer = TransactionalProducer { transactional_id: &id, producer_id, epoch };
                self.broker.core().end_transaction(self.broker_ms(), &producer, false)
            });
            if begun.is_ok() {
                self.note("foreign", &format!("writes to {partition} and aborts"));
                self.count("aborted input");
            }
        }
    }

    /// One of the generations that rows of `tallies` may be in by now.
    fn any_generation(&self) -> String {
        let schema = self.deployments.borrow().schema();
        generation(if schema == 1 { 1 } else { 1 + self.below(u64::from(schema)) as u32 })
    }

    fn broker_ms(&self) -> i64 {
        engine::clock::Clock::wall_clock_ms(&self.clock)
    }

    /// Writes a record that nobody may ever read, in a transaction of its own.
    fn begin_foreign(&self, partition: &TopicPartition, timeout_ms: i32) -> Result<(String, i64, i16), Refusal> {
        let number = {
            let mut state = self.state.borrow_mut();
            state.foreign += 1;
            state.foreign
        };
        let (core, now_ms, id) = (self.broker.core(), self.broker_ms(), format!("foreign-{number}"));
        let (topic, index) = (&*partition.topic, partition.partition);
        core.partition(topic, index)?;
        let (owner, _) = core.init_transactional_producer(now_ms, &id, timeout_ms, None)?;
        let (producer_id, epoch) = (owner.producer_id, owner.epoch);
        let producer = TransactionalProducer { transactional_id: &id, producer_id, epoch };
        core.add_partitions_to_transaction(now_ms, &producer, &[(topic, index)])?
            .into_iter()
            .collect::<Result<Vec<()>, Refusal>>()?;
        let stamp = ProducerStamp { producer_id, epoch, base_sequence: 0, transactional: true };
        let mut batch = BatchBuilder::new(Some(stamp));
        batch.push(&NewRecord { timestamp: now_ms, key: Some(b"foreign"), value: Some(b"never read"), headers: &[] });
        core.append_in_transaction(now_ms, &id, topic, index, &batch.finish())?;
        Ok((id, producer_id, epoch))
    }

    /// Deletes the records of a changelog that are older than the newest record of every key that has a value. Whoever
    /// has read them does not know of deletes that came after, so a store that was away must begin anew.
    fn truncate(&self, changelog: &TopicPartition) {
        self.watch.borrow_mut().look_before_thinning(&self.broker, &self.scenario);
        let Some(offset) = self.watch.borrow().first_needed(changelog) else { return };
        let core = self.broker.core();
        let low = core.partition(&changelog.topic, changelog.partition).map_or(0, |log| log.bounds().log_start_offset);
        if offset <= low {
            return;
        }
        let policy = |value: &str| {
            let change = ConfigChange::Set(value.to_owned());
            core.incremental_alter_configs(&changelog.topic, &[("cleanup.policy".to_owned(), change)], false)
        };
        policy("compact,delete").expect("the policy can be changed");
        let deleted = core.delete_records(&changelog.topic, changelog.partition, offset);
        policy("compact").expect("the policy can be changed");
        if deleted.is_ok() {
            self.note("broker", &format!("deletes the records of {changelog} below {offset}"));
            self.count("truncated changelog");
        }
    }

    /// Ends every fault and starts every host.
    pub(super) fn make_well(&self) {
        self.broker.faults().set_rates(FaultRates::default());
        self.broker.faults().forget_offsets(false);
        self.note("world", "all is well from here on");
        {
            let mut state = self.state.borrow_mut();
            state.is_troubled = false;
            state.disk_full = None;
            state.offsets_forgotten_until = None;
            state.plans.iter_mut().for_each(|plan| {
                (plan.crash_at, plan.stall_at, plan.stall_after) = (None, None, None);
            });
        }
        for (host, stores) in self.hosts.iter().zip(&self.stores) {
            stores.fill_disk(false);
            stores.repair();
            let mut host = host.borrow_mut();
            host.stalled_until = 0;
            if self.broker.faults().is_crashed(&host.name) && host.is_up() {
                host.crash(&mut self.state.borrow_mut().seed, 0);
            }
            self.broker.faults().revive(&host.name);
            if let Some(until) = &mut host.down_until {
                *until = 0;
            }
        }
    }
}
