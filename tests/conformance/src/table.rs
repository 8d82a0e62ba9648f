//! The table of all checks: name, what each proves, and where it is. Names are `theme/what`, unique, and stand in the
//! documentation.

use crate::check::{After, Body, Check, Context, Outcome};
use crate::checks::{
    admin, cleaning, consumer_protocol, durability, exactly_once, fetch, groups, idempotence, offsets, produce, topics,
    transaction_offsets, transactions,
};

const fn together(name: &'static str, proves: &'static str, body: fn(&Context) -> Outcome) -> Check {
    Check { name, proves, body: Body::Together(body) }
}

const fn alone(name: &'static str, proves: &'static str, body: fn(&Context) -> Outcome) -> Check {
    Check { name, proves, body: Body::Alone(body) }
}

const fn across(name: &'static str, proves: &'static str, body: fn(&Context) -> anyhow::Result<After>) -> Check {
    Check { name, proves, body: Body::AcrossRestart(body) }
}

const fn kills(
    name: &'static str,
    proves: &'static str,
    body: fn(&Context, &crate::broker::Broker) -> Outcome,
) -> Check {
    Check { name, proves, body: Body::Kills(body) }
}

/// Every check, by theme.
pub const CHECKS: &[&[Check]] = &[
    GROUPS,
    CONSUMER_PROTOCOL,
    CLEANING,
    TRANSACTIONS,
    TRANSACTION_OFFSETS,
    TOPICS,
    PRODUCE,
    FETCH,
    OFFSETS,
    ADMIN,
    IDEMPOTENCE,
    DURABILITY,
    EXACTLY_ONCE,
];

const TOPICS: &[Check] = &[
    together("topics/create", "a new topic has its partitions, is empty and listed", topics::create),
    together(
        "topics/refusals",
        "a name twice, odd names, unknown settings and missing topics are refused",
        topics::refusals,
    ),
    together(
        "topics/delete-and-recreate",
        "a topic made again has a new id, no records and no committed offsets",
        topics::delete_and_recreate,
    ),
    together("topics/ids", "each topic has an id of its own that stays", topics::ids),
    together("topics/create-partitions", "partitions can be added, never taken away", topics::create_partitions),
    together("topics/auto-create", "a record for a topic that is not there makes it", topics::auto_create),
    together("topics/unknown", "a reader of a topic that is not there is told so", topics::unknown),
];

const PRODUCE: &[Check] = &[
    alone("produce/many-records", "300,000 records are all kept, in order", produce::many_records),
    together("produce/contents", "headers, null and empty keys and values come back as they were", produce::contents),
    together("produce/create-time", "timestamps are kept, also those that go back", produce::create_time),
    together("produce/log-append-time", "with LogAppendTime the broker's time replaces them", produce::log_append_time),
    together("produce/future-timestamp", "a timestamp two hours ahead is refused", produce::future_timestamp),
    together("produce/gzip", "5,000 records in gzip come back", produce::gzip),
    together("produce/snappy", "5,000 records in snappy come back", produce::snappy),
    together("produce/lz4", "5,000 records in lz4 come back", produce::lz4),
    together("produce/zstd", "5,000 records in zstd come back", produce::zstd),
    together(
        "produce/large-record",
        "a record of 8 MB passes where max.message.bytes allows it and is refused elsewhere",
        produce::large_record,
    ),
    together("produce/key-on-compacted", "a compacted topic refuses a record without a key", produce::key_on_compacted),
    together("produce/acks", "records sent with acks 0, 1 and all are kept", produce::acks),
];

const FETCH: &[Check] = &[
    together("fetch/woken", "a waiting fetch is woken by the append", fetch::woken),
    together(
        "fetch/minimum-bytes",
        "fetch.min.bytes holds an answer back until there is enough or the wait is over",
        fetch::minimum_bytes,
    ),
    together("fetch/out-of-range", "a read beyond the end is reset, or refused, as asked", fetch::out_of_range),
    together("fetch/many-partitions", "small fetches over 20 partitions starve none", fetch::many_partitions),
    together("fetch/larger-than-fetch", "a record larger than the fetch is still given", fetch::larger_than_fetch),
    together("fetch/from-the-middle", "a read may start within a compressed batch", fetch::from_the_middle),
];

const OFFSETS: &[Check] = &[
    together("offsets/for-times", "the first offset at or after a time is found", offsets::for_times),
    together(
        "offsets/for-times-compressed",
        "also within compressed batches of each codec",
        offsets::for_times_compressed,
    ),
    together("offsets/listed", "earliest and latest under both isolation levels", offsets::listed),
    together("offsets/max-timestamp", "the offset of the newest timestamp", offsets::max_timestamp),
    together(
        "offsets/committed",
        "committed offsets with metadata are kept; those of missing topics refused",
        offsets::committed,
    ),
    together("offsets/metadata-too-large", "metadata of 5,000 bytes is refused", offsets::metadata_too_large),
    together(
        "offsets/delete-records",
        "DeleteRecords moves the log start, never back and never beyond the end",
        offsets::delete_records,
    ),
    together(
        "offsets/delete-records-compacted",
        "DeleteRecords is refused on a topic that is only compacted",
        offsets::delete_records_of_compacted,
    ),
    together(
        "offsets/leader-epoch",
        "the truncation check of a commit with a leader epoch does not reset a healthy consumer",
        offsets::leader_epoch,
    ),
];

const ADMIN: &[Check] = &[
    together("admin/describe", "settings are described with their values and defaults", admin::describe),
    together("admin/legacy-alter", "AlterConfigs resets what it does not name", admin::legacy_alter),
    together(
        "admin/incremental-alter",
        "IncrementalAlterConfigs changes only what it names, and it takes effect",
        admin::incremental_alter,
    ),
    together(
        "admin/refused-settings",
        "unknown settings and values out of bounds are refused",
        admin::refused_settings,
    ),
    together("admin/validate-only", "a request that only validates changes nothing", admin::validate_only),
    together("admin/cluster", "the cluster has an id and one broker at the address asked", admin::cluster),
];

const GROUPS: &[Check] = &[
    together(
        "groups/cooperative-sticky",
        "members share 2/2 and 2/1/1, one leaves, one is killed",
        groups::cooperative,
    ),
    together("groups/eager-range", "the same with the range assignor", groups::eager_range),
    together("groups/eager-roundrobin", "the same with the roundrobin assignor", groups::eager_roundrobin),
    together("groups/stale-member", "a member that was frozen beyond its session cannot commit", groups::stale_member),
    together(
        "groups/static-membership",
        "a static member that returns after a kill has its partitions without a rebalance",
        groups::static_membership,
    ),
    together(
        "groups/static-fenced",
        "a second member with the same instance id fences the first",
        groups::static_fenced,
    ),
    together("groups/all-records-once", "two members together read each record once", groups::all_records_once),
    together("groups/new-partitions", "members share partitions that are added", groups::new_partitions),
    together("groups/described", "groups are listed and described with state, assignor and members", groups::described),
    together(
        "groups/deleted",
        "an empty group can be deleted with its offsets, one with a member cannot",
        groups::deleted,
    ),
    together(
        "groups/offsets-deleted",
        "offsets can be deleted once nobody subscribes to their topic",
        groups::offsets_deleted,
    ),
];

const CONSUMER_PROTOCOL: &[Check] = &[
    together(
        "consumer-protocol/join-and-leave",
        "KIP-848: members share 2/2, one commits and leaves",
        consumer_protocol::join_and_leave,
    ),
    together("consumer-protocol/kill", "KIP-848: a killed member's partitions move", consumer_protocol::kill),
];

const TRANSACTIONS: &[Check] = &[
    together(
        "transactions/commit-and-abort",
        "committed records are read, aborted ones only by read_uncommitted",
        transactions::commit_and_abort,
    ),
    together("transactions/open-holds", "an open transaction holds the last stable offset", transactions::open_holds),
    together(
        "transactions/atomic",
        "a transaction over several topics and partitions is seen as a whole or not at all",
        transactions::atomic,
    ),
    together(
        "transactions/interleaved",
        "three producers' transactions in one partition are told apart",
        transactions::interleaved,
    ),
    together(
        "transactions/large-abort",
        "20,000 aborted records in many batches are hidden",
        transactions::large_abort,
    ),
    together(
        "transactions/markers",
        "markers are not delivered, and the position is behind them",
        transactions::markers,
    ),
    together("transactions/empty", "a transaction without records can be committed and aborted", transactions::empty),
    together(
        "transactions/followed",
        "a reader that follows sees each committed record once and in order",
        transactions::followed,
    ),
    together(
        "transactions/fenced-by-init",
        "a second init ends the open transaction and fences its producer",
        transactions::fenced_by_init,
    ),
    together("transactions/fenced-produce", "a fenced producer's record is refused", transactions::fenced_produce),
    together(
        "transactions/timed-out",
        "a dead producer's transaction is aborted after its timeout",
        transactions::timed_out,
    ),
    together("transactions/late-commit", "a commit after the timeout is refused", transactions::late_commit),
    together(
        "transactions/timeout-bound",
        "a timeout above transaction.max.timeout.ms is refused",
        transactions::timeout_bound,
    ),
    together(
        "transactions/topic-deleted",
        "a commit passes though one of its topics was deleted",
        transactions::topic_deleted,
    ),
];

const TRANSACTION_OFFSETS: &[Check] = &[
    together(
        "transaction-offsets/commit-and-abort",
        "a commit moves the offsets, an abort leaves them, before the end nobody sees them",
        transaction_offsets::commit_and_abort,
    ),
    together(
        "transaction-offsets/stable",
        "a read of stable offsets waits for the transaction",
        transaction_offsets::stable,
    ),
    together(
        "transaction-offsets/stale",
        "an old generation and an unknown member are refused",
        transaction_offsets::stale,
    ),
    together("transaction-offsets/fenced", "a fenced producer's offsets are dropped", transaction_offsets::fenced),
    together(
        "transaction-offsets/only-offsets",
        "a transaction may carry offsets alone",
        transaction_offsets::only_offsets,
    ),
    alone(
        "transaction-offsets/consume-transform-produce",
        "40,000 records through transactions, every 7th aborted: 40,000 out, distinct",
        transaction_offsets::consume_transform_produce,
    ),
];

const CLEANING: &[Check] = &[
    together("cleaning/retention-bytes", "whole segments go by retention.bytes", cleaning::retention_bytes),
    together("cleaning/retention-ms", "records go by retention.ms, newer ones stay", cleaning::retention_ms),
    together("cleaning/retention-off", "without a bound nothing goes", cleaning::retention_off),
    together(
        "cleaning/compaction",
        "60,000 records of 100 keys become about 100, with their offsets",
        cleaning::compaction,
    ),
    together("cleaning/compaction-compressed", "also in batches of each codec", cleaning::compaction_compressed),
    together(
        "cleaning/tombstones",
        "a tombstone deletes its key and goes after delete.retention.ms",
        cleaning::tombstones,
    ),
    together("cleaning/compact-and-delete", "compact,delete does both", cleaning::compact_and_delete),
    together(
        "cleaning/aborted-in-compacted",
        "an aborted record does not replace a committed one",
        cleaning::aborted_in_compacted,
    ),
    together(
        "cleaning/open-in-compacted",
        "nothing is compacted above an open transaction",
        cleaning::open_in_compacted,
    ),
];

const IDEMPOTENCE: &[Check] = &[
    together("idempotence/plain", "50,000 records of an idempotent producer", idempotence::plain),
    across("idempotence/producer-goes-on", "the producer's sequence numbers are known", idempotence::across_restart),
    kills(
        "idempotence/broker-frozen",
        "requests sent again after a frozen broker are not doubled",
        idempotence::broker_frozen,
    ),
    kills("idempotence/broker-killed", "nor after a killed one, and nothing is lost", idempotence::broker_killed),
];

const DURABILITY: &[Check] = &[
    across("durability/records", "records with keys and timestamps, and the next offset", durability::records),
    across("durability/topics", "settings, partitions, ids, deletions", durability::topics),
    across("durability/log-start", "the log start that DeleteRecords moved", durability::log_start),
    across(
        "durability/committed-offsets",
        "committed offsets, metadata, deleted offsets",
        durability::committed_offsets,
    ),
    across("durability/ended-transactions", "commits, aborts and their offsets", durability::ended_transactions),
    across(
        "durability/open-transaction-goes-on",
        "an open transaction stays open and can be committed",
        durability::open_transaction_goes_on,
    ),
    across("durability/open-transaction-aborts", "the same id's return aborts it", durability::open_transaction_aborts),
    across("durability/open-transaction-times-out", "its timeout aborts it", durability::open_transaction_times_out),
    across("durability/fenced-stays-fenced", "a fenced producer stays fenced", durability::fenced_stays_fenced),
    across(
        "durability/epoch-goes-on",
        "an id's epoch goes on, so its older producer is fenced",
        durability::epoch_goes_on,
    ),
    across("durability/consumer-goes-on", "a living consumer goes on at its position", durability::consumer_goes_on),
    across("durability/group-goes-on", "living members share the partitions and commit", durability::group_goes_on),
];

const EXACTLY_ONCE: &[Check] = &[
    kills(
        "exactly-once/broker-killed",
        "30,000 in, 30,000 out, distinct, offsets equal, over five kill -9 of the broker",
        exactly_once::broker_killed,
    ),
    kills("exactly-once/client-killed", "the same over five kill -9 of the client", exactly_once::client_killed),
];
