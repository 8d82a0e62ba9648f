//! The mutants: each takes away one thing that the engine, or the simulated client under it, does for exactly-once. A
//! text must occur exactly once in its file, so that a mutant cannot rot silently.

/// One change of a source file: `{on}` in the new text stands for "this mutant is chosen".
pub struct Edit {
    pub file: &'static str,
    pub old: &'static str,
    pub new: &'static str,
}

/// Something that is taken away.
pub struct Mutant {
    pub name: &'static str,
    /// The rule that is broken, in the words of the design: R3 commit order, R5 doubt, R8 revoked and lost, R9 restore,
    /// R17 failed calls, swap versions and their rows.
    pub rule: &'static str,
    pub what: &'static str,
    pub edits: &'static [Edit],
}

const COMMIT: &str = "host/engine/src/task/commit.rs";
const COMMITTING: &str = "host/engine/src/task/stream_task/committing.rs";
const LIFECYCLE: &str = "host/engine/src/task/stream_task/lifecycle.rs";
const MIGRATING: &str = "host/engine/src/task/stream_task/migrating.rs";
const STREAMS_PRODUCER: &str = "host/engine/src/task/streams_producer.rs";
const TASK_STORE: &str = "host/engine/src/state/task_store.rs";
const TASK_MANAGER: &str = "host/engine/src/task_manager.rs";
const BRING_UP: &str = "host/engine/src/task_manager/bring_up.rs";
const PLAN: &str = "host/engine/src/task_manager/plan.rs";
const REBALANCE: &str = "host/engine/src/task_manager/rebalance.rs";
const RECOVERY: &str = "host/engine/src/stream_thread/recovery.rs";
const CONTEXT: &str = "host/engine/src/processor/context.rs";
const ISOLATION: &str = "host/engine/src/task/stream_task/isolation.rs";
const RESTORE: &str = "host/engine/src/restore.rs";
const VERSION: &str = "host/engine/src/version.rs";
const DIRECT_CONSUMER: &str = "host/broker/src/direct/consumer.rs";
const DIRECT_PRODUCER: &str = "host/broker/src/direct/producer.rs";
const DIRECT_RESTORE: &str = "host/broker/src/direct/restore_consumer.rs";

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "intake",
        rule: "R3",
        what: "records are processed while a commit is on its way",
        edits: &[Edit {
            file: TASK_MANAGER,
            old: "        if self.commit.is_some() || self.options.versions.is_paused() {\n            return Ok(total);",
            new: "        if self.commit.is_some() && !{on} || self.options.versions.is_paused() {\n            return Ok(total);",
        }],
    },
    Mutant {
        name: "drain",
        rule: "R3",
        what: "a commit does not wait for its deliveries",
        edits: &[Edit {
            file: COMMIT,
            old: "            CommitStage::DrainOutputs | CommitStage::Drain => Ok(",
            new: "            CommitStage::DrainOutputs | CommitStage::Drain if {on} => Ok(true),
            CommitStage::DrainOutputs | CommitStage::Drain => Ok(",
        }],
    },
    Mutant {
        name: "delivery-reports",
        rule: "R3",
        what: "a failed delivery does not stop a commit",
        edits: &[
            Edit {
                file: STREAMS_PRODUCER,
                old: "            self.poll(patience)?;",
                new: "            let polled = self.poll(patience);
            if !{on} { polled?; }",
            },
            Edit {
                file: STREAMS_PRODUCER,
                old: "        self.poll(Duration::ZERO)?;",
                new: "        let polled = self.poll(Duration::ZERO);
        if !{on} { polled?; }",
            },
        ],
    },
    Mutant {
        name: "metadata",
        rule: "R3",
        what: "offsets are sent without the member's generation, so that nobody checks it",
        edits: &[Edit {
            file: COMMIT,
            old: "let group = parts.consumer.group_metadata()?;",
            new: "let mut group = parts.consumer.group_metadata()?;
                    if {on} {
                        group.generation_id = -1;
                        group.member_id.clear();
                    }",
        }],
    },
    Mutant {
        name: "send-offsets",
        rule: "R3",
        what: "the offsets do not join the transaction",
        edits: &[Edit {
            file: COMMIT,
            old: "parts.producer.send_offsets(&offsets, &group, parts.timeout)?;",
            new: "if !{on} { parts.producer.send_offsets(&offsets, &group, parts.timeout)?; }",
        }],
    },
    Mutant {
        name: "commit-first",
        rule: "R3",
        what: "the stores are written before the transaction is committed",
        edits: &[
            Edit {
                file: COMMIT,
                old: "            (Self::SendOffsets, _) => Self::CommitTransaction,",
                new: "            (Self::SendOffsets, _) if {on} => Self::WriteStores,
            (Self::SendOffsets, _) => Self::CommitTransaction,",
            },
            Edit {
                file: COMMIT,
                old: "            (Self::CommitOffsets | Self::CommitTransaction, _) => Self::WriteStores,",
                new: "            (Self::CommitTransaction, _) if {on} => Self::Completed,
            (Self::CommitOffsets | Self::CommitTransaction, _) => Self::WriteStores,",
            },
            Edit {
                file: COMMIT,
                old: "            (Self::WriteStores, _) => Self::Completed,",
                new: "            (Self::WriteStores, ProcessingGuarantee::ExactlyOnceV2) if {on} => Self::CommitTransaction,
            (Self::WriteStores, _) => Self::Completed,",
            },
        ],
    },
    Mutant {
        name: "offset-missing",
        rule: "R3",
        what: "a store's batch does not have the changelog offset",
        edits: &[Edit {
            file: TASK_STORE,
            old: "self.overlay.commit(|writes| backend.write(writes, changelog_offset))",
            new: "let changelog_offset = changelog_offset.filter(|_| !{on});
        self.overlay.commit(|writes| backend.write(writes, changelog_offset))",
        }],
    },
    Mutant {
        name: "offset-apart",
        rule: "R3",
        what: "the changelog offset is written before the data, in a batch of its own",
        edits: &[Edit {
            file: TASK_STORE,
            old: "        let backend = &mut self.backend;\n",
            new: "        let backend = &mut self.backend;
        if {on} {
            backend.write(&[], changelog_offset)?;
            return self.overlay.commit(|writes| backend.write(writes, None));
        }\n",
        }],
    },
    Mutant {
        name: "outputs-first",
        rule: "R3",
        what: "under at-least-once, changelogs are written before the outputs are acknowledged",
        edits: &[Edit {
            file: COMMIT,
            old: "            (Self::SendOutputs, ProcessingGuarantee::AtLeastOnce) => Self::DrainOutputs,",
            new: "            (Self::SendOutputs, ProcessingGuarantee::AtLeastOnce) if {on} => Self::WriteChangelogs,
            (Self::SendOutputs, ProcessingGuarantee::AtLeastOnce) => Self::DrainOutputs,",
        }],
    },
    Mutant {
        name: "stream-time",
        rule: "R3",
        what: "the partition time is not committed with the offset",
        edits: &[Edit {
            file: COMMITTING,
            old: "                said.partition_time = queue.partition_time();",
            new: "                if !{on} { said.partition_time = queue.partition_time(); }",
        }],
    },
    Mutant {
        name: "recycle",
        rule: "R5",
        what: "after doubt the same producer goes on, once it has aborted",
        edits: &[
            Edit {
                file: RECOVERY,
                old: "        self.producer = None;\n        self.manager.suspend_all()?;\n        Ok(self.options",
                new: "        match &mut self.producer {
            Some(producer)
                if {on} && self.options.config.processing_guarantee == ProcessingGuarantee::ExactlyOnceV2 =>
            {
                drop(producer.abort(std::time::Duration::from_secs(1)));
            }
            _ => self.producer = None,
        }
        self.manager.suspend_all()?;
        Ok(self.options",
            },
            // The simulated client refuses to go on after doubt; this one does not.
            Edit {
                file: DIRECT_PRODUCER,
                old: "        self.failed = None;\n        self.end(false)",
                new: "        self.failed = None;
        let ended = self.end(false);
        self.in_doubt &= !{on};
        ended",
            },
        ],
    },
    Mutant {
        name: "doubt",
        rule: "R5",
        what: "a failed call of a transaction is tried again, as if nothing were in doubt",
        edits: &[Edit {
            file: STREAMS_PRODUCER,
            old: "fn in_doubt(mut error: BrokerError) -> BrokerError {\n    if matches!(",
            new: "fn in_doubt(mut error: BrokerError) -> BrokerError {\n    if !{on} && matches!(",
        }],
    },
    Mutant {
        name: "overlay",
        rule: "R5",
        what: "after doubt the uncommitted writes stay",
        edits: &[Edit {
            file: LIFECYCLE,
            old: "        self.stores.iter_mut().for_each(TaskStore::abort);",
            new: "        if !{on} { self.stores.iter_mut().for_each(TaskStore::abort); }",
        }],
    },
    Mutant {
        name: "rewind",
        rule: "R5",
        what: "after doubt the consumer stays where it is",
        edits: &[Edit {
            file: LIFECYCLE,
            old: "        self.rewind = true;\n        for queue",
            new: "        self.rewind = !{on};\n        for queue",
        }],
    },
    Mutant {
        name: "unstable-offsets",
        rule: "R5",
        what: "committed offsets are read while a transaction is about to change them",
        edits: &[Edit {
            file: DIRECT_CONSUMER,
            old: "partitions.iter().find(is_unstable)",
            new: "partitions.iter().find(is_unstable).filter(|_| !{on})",
        }],
    },
    Mutant {
        name: "revoked",
        rule: "R8",
        what: "nothing is committed before partitions are given up",
        edits: &[Edit {
            file: REBALANCE,
            old: "self.commit_now(producer, consumer).map(|_| ())",
            new: "if {on} { Ok(()) } else { self.commit_now(producer, consumer).map(|_| ()) }",
        }],
    },
    Mutant {
        name: "lost",
        rule: "R8",
        what: "what is lost is committed as if it were only revoked",
        edits: &[Edit {
            file: PLAN,
            old: "RebalanceEvent::Lost(partitions) => plan_taken(partitions, facts, false),",
            new: "RebalanceEvent::Lost(partitions) => plan_taken(partitions, facts, {on}),",
        }],
    },
    Mutant {
        name: "lost-transaction",
        rule: "R8",
        what: "a transaction that holds work of a lost task is committed",
        edits: &[Edit {
            file: REBALANCE,
            old: "            Action::CloseDirty(id) => {\n                producer.abandon();",
            new: "            Action::CloseDirty(id) => {\n                if !{on} { producer.abandon(); }",
        }],
    },
    Mutant {
        name: "restore-target",
        rule: "R9",
        what: "a restore ends at the last stable offset",
        edits: &[Edit {
            file: DIRECT_RESTORE,
            old: "high: bounds.high_watermark",
            new: "high: if {on} { bounds.last_stable_offset } else { bounds.high_watermark }",
        }],
    },
    Mutant {
        name: "restore-early",
        rule: "R9",
        what: "a task runs although its restore has not reached the target",
        edits: &[Edit {
            file: RESTORE,
            old: "            if position >= changelog.target {",
            new: "            if position >= changelog.target || ({on} && changelog.records > 0) {",
        }],
    },
    Mutant {
        name: "restore-wipe",
        rule: "R11",
        what: "a store goes on although the changelog was cut above its offset",
        edits: &[Edit {
            file: RESTORE,
            old: "                    task.wipe_store(facts.index)?;",
            new: "                    if !{on} { task.wipe_store(facts.index)?; }",
        }],
    },
    Mutant {
        name: "missing-offsets",
        rule: "R11",
        what: "\"no committed offset\" is believed although there is state",
        edits: &[Edit {
            file: BRING_UP,
            old: "        let config = &self.options.config;\n        let Some(task) = self.tasks.get(&id) else { return Ok(false) };",
            new: "        if {on} { return Ok(true); }
        let config = &self.options.config;\n        let Some(task) = self.tasks.get(&id) else { return Ok(false) };",
        }],
    },
    Mutant {
        name: "failed-call-writes",
        rule: "R17",
        what: "what a failed call has written stays",
        edits: &[Edit {
            file: CONTEXT,
            old: "        self.stores.iter_mut().for_each(TaskStore::rollback);\n",
            new: "        if {on} { self.stores.iter_mut().for_each(TaskStore::release); }
        self.stores.iter_mut().for_each(TaskStore::rollback);\n",
        }],
    },
    Mutant {
        name: "failed-call-done",
        rule: "R17",
        what: "the records of a failed call count as processed",
        edits: &[Edit {
            file: ISOLATION,
            old: "        if !alone {\n",
            new: "        if !alone {
            if {on} { self.group.complete(info); return Ok(()); }\n",
        }],
    },
    Mutant {
        name: "failed-instance",
        rule: "R17",
        what: "a record is given up although a fresh instance was not asked",
        edits: &[Edit {
            file: ISOLATION,
            old: "if error.is_crash() && !was_fresh {",
            new: "if error.is_crash() && !was_fresh && !{on} {",
        }],
    },
    Mutant {
        name: "migration-resumed",
        rule: "swap",
        what: "a migration that was interrupted counts as ended",
        edits: &[Edit {
            file: MIGRATING,
            old: "            true => Phase::Copying {",
            new: "            true if {on} => Phase::Ending,
            true => Phase::Copying {",
        }],
    },
    Mutant {
        name: "migration-leftovers",
        rule: "swap",
        what: "what an earlier attempt has left counts as taken over",
        edits: &[Edit {
            file: MIGRATING,
            old: "            false => Phase::Clearing {",
            new: "            false if {on} => Phase::Copying { step: 0, after: last_key(&mut self.stores_mut()[steps[0].to])? },
            false => Phase::Clearing {",
        }],
    },
    Mutant {
        name: "migration-uncleared",
        rule: "swap",
        what: "what an earlier attempt has left is not removed",
        edits: &[Edit {
            file: MIGRATING,
            old: "            false => Phase::Clearing {",
            new: "            false if {on} => Phase::Copying { step: 0, after: None },
            false => Phase::Clearing {",
        }],
    },
    Mutant {
        name: "newer-rows",
        rule: "swap",
        what: "an older version goes on with rows that have changed since",
        edits: &[Edit {
            file: MIGRATING,
            old: "            if found > spec.version && ",
            new: "            if found > spec.version && !{on} && ",
        }],
    },
    Mutant {
        name: "older-rows",
        rule: "swap",
        what: "a store whose older rows are not open counts as new",
        edits: &[Edit {
            file: MIGRATING,
            old: "None if committed.is_none() && !self",
            new: "None if committed.is_none() && {on} => {}
                None if committed.is_none() && !self",
        }],
    },
    Mutant {
        name: "schema-source",
        rule: "swap",
        what: "a version goes back to rows that others were not taken from",
        edits: &[Edit {
            file: MIGRATING,
            old: "        if self.committed_schema_sources.get(store) != Some(&version) {",
            new: "        if !{on} && self.committed_schema_sources.get(store) != Some(&version) {",
        }],
    },
    Mutant {
        name: "migration-unmarked",
        rule: "swap",
        what: "a commit of rows names no offsets, which the group would refuse",
        edits: &[Edit {
            file: MIGRATING,
            old: "            self.version_unmarked = true;\n            self.commit_needed = true;",
            new: "            self.version_unmarked |= !{on};\n            self.commit_needed = true;",
        }],
    },
    Mutant {
        name: "given-up",
        rule: "swap",
        what: "a rollback returns to a version that was given up",
        edits: &[Edit {
            file: VERSION,
            old: "        let is_kept = is_kept && !was_given_up;",
            new: "        let is_kept = is_kept && (!was_given_up || {on});",
        }],
    },
];
