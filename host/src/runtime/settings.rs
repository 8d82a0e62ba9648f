//! What the manifest's keys mean to the parts of a run: the settings of clients, stores and stream threads. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::exception_handlers::{ExceptionHandler, ExceptionHandlers};
use engine::stream_thread::{AutoOffsetReset, ProcessingGuarantee, StreamsConfig};
use engine::topology::Topology;
use kafka::KafkaClientsConfig;
use rocks::{RocksMemory, RocksOptions};
use sandbox::CompileLimits;

use crate::config::Manifest;

/// Compiled modules of all applications of a project stand beside their state.
pub fn cache_dir(manifest: &Manifest) -> PathBuf {
    let state = manifest.path_of("state.dir");
    state.parent().unwrap_or(Path::new(".")).join("cache")
}

/// What compiling the module may take.
pub fn compile_limits(manifest: &Manifest) -> CompileLimits {
    CompileLimits {
        cpu_max_seconds: manifest.count(sandbox::COMPILE_CPU_KEY),
        memory_max_bytes: manifest.count(sandbox::COMPILE_MEMORY_KEY),
    }
}

pub fn clients_config(manifest: &Manifest, topology: &Topology, bootstrap_servers: &str) -> KafkaClientsConfig {
    let mut config = KafkaClientsConfig::new(bootstrap_servers, manifest.application_id());
    config.client_id = manifest.optional_text("client.id").map(str::to_owned);
    config.group_instance_id = manifest.optional_text("group.instance.id").map(str::to_owned);
    config.transaction_timeout = Duration::from_millis(manifest.count("transaction.timeout.ms"));
    config.request_timeout = Duration::from_millis(manifest.count("request.timeout.ms"));
    config.properties = manifest.kafka.clone();
    // Whoever sets it below [kafka] as well means the client.
    if !config.properties.keys().any(|key| key.ends_with("max.poll.interval.ms")) {
        let max_poll = manifest.count("max.poll.interval.ms").to_string();
        config.properties.insert("main.consumer.max.poll.interval.ms".to_owned(), max_poll);
    }
    // A task needs the same partition of each of its sources. Of librdkafka's assignors only this one gives them
    // together.
    let together = topology.sub_topologies.iter().any(|part| part.sources.len() > 1);
    if together && !config.properties.keys().any(|key| key.ends_with("partition.assignment.strategy")) {
        config.properties.insert("main.consumer.partition.assignment.strategy".to_owned(), "range".to_owned());
    }
    config
}

/// Where other hosts reach this one: `advertised.listener`, or else `application.server`, with the port that it got
/// where the machine chose.
pub fn endpoint(manifest: &Manifest, port: u16) -> String {
    let (server, advertised) = match manifest.optional_text("advertised.listener") {
        Some(listener) => (listener, true),
        None => (manifest.text("application.server"), false),
    };
    match server.rsplit_once(':') {
        Some((_, mapped)) if advertised && mapped != "0" => server.to_owned(),
        Some((host, _)) => format!("{host}:{port}"),
        None => format!("{server}:{port}"),
    }
}

/// Without the cluster, which is checked once it is known.
pub fn rocks_options(manifest: &Manifest) -> RocksOptions {
    RocksOptions::new(manifest.path_of("state.dir"), manifest.application_id())
}

/// The memory of all stores of the process.
pub fn rocks_memory(manifest: &Manifest) -> RocksMemory {
    let size = |key: &str| usize::try_from(manifest.count(key)).unwrap_or(usize::MAX);
    RocksMemory::new(size("rocksdb.block.cache.bytes"), size("rocksdb.write.buffers.bytes"))
}

/// `processing.guarantee`.
pub fn processing_guarantee(manifest: &Manifest) -> ProcessingGuarantee {
    match manifest.text("processing.guarantee") {
        // A table has no outputs and no changelog, so there is nothing for a transaction.
        _ if !manifest.tables.is_empty() => ProcessingGuarantee::AtLeastOnce,
        "at_least_once" => ProcessingGuarantee::AtLeastOnce,
        _ => ProcessingGuarantee::ExactlyOnceV2,
    }
}

/// As in Kafka Streams the default hangs on the guarantee: a transaction's results are invisible until its commit.
fn commit_interval_ms(manifest: &Manifest, guarantee: ProcessingGuarantee) -> u64 {
    const AT_LEAST_ONCE_DEFAULT_MS: u64 = 1_000;
    match guarantee {
        ProcessingGuarantee::AtLeastOnce if !manifest.is_set("commit.interval.ms") => AT_LEAST_ONCE_DEFAULT_MS,
        _ => manifest.count("commit.interval.ms"),
    }
}

/// Names the producer of a stream thread: the same after a restart, so that the transaction of a killed predecessor is
/// ended at once, and different for every thread of every host (R1).
pub fn transactional_id(application_id: &str, host_id: &str, thread: usize) -> String {
    format!("{application_id}-{host_id}-{thread}")
}

pub fn streams_config(manifest: &Manifest) -> StreamsConfig {
    let size = |key: &str| usize::try_from(manifest.count(key)).unwrap_or(usize::MAX);
    let threads = size("num.stream.threads").max(1);
    let processing_guarantee = processing_guarantee(manifest);
    StreamsConfig {
        processing_guarantee,
        commit_interval_ms: commit_interval_ms(manifest, processing_guarantee),
        poll_ms: manifest.count("poll.ms"),
        max_poll_records: size("max.poll.records"),
        max_poll_interval_ms: manifest.count("max.poll.interval.ms"),
        buffered_records_per_partition: size("buffered.records.per.partition"),
        max_task_idle_ms: manifest.integer("max.task.idle.ms"),
        auto_offset_reset: match manifest.text("auto.offset.reset") {
            "latest" => AutoOffsetReset::Latest,
            "none" => AutoOffsetReset::None,
            _ => AutoOffsetReset::Earliest,
        },
        batch_max_records: size("batch.max.records"),
        batch_max_bytes: size("batch.max.bytes"),
        statestore_uncommitted_max_bytes: size("statestore.uncommitted.max.bytes"),
        statestore_cache_max_bytes: size("statestore.cache.max.bytes") / threads,
        statestore_flush_interval_ms: manifest.count("statestore.flush.interval.ms"),
        task_timeout_ms: manifest.count("task.timeout.ms"),
        retry_backoff_ms: manifest.count("retry.backoff.ms"),
        transaction_timeout_ms: manifest.count("transaction.timeout.ms"),
        accept_missing_offsets: manifest.boolean("accept.missing.offsets"),
        accept_lost_changelogs: manifest.boolean("accept.lost.changelogs"),
        exception_handlers: exception_handlers(manifest),
        provenance: manifest.boolean("provenance"),
        ..StreamsConfig::default()
    }
}

/// Where a handler is not set it is that of Kafka Streams, unless there is a topic for dead letters.
fn exception_handlers(manifest: &Manifest) -> ExceptionHandlers {
    let has_topic = manifest.is_set("errors.dead.letter.queue.topic.name");
    let handler = |key: &str| match manifest.text(key) {
        "dlq" => ExceptionHandler::DeadLetter,
        "continue" => ExceptionHandler::Continue,
        "fail" => ExceptionHandler::Fail,
        _ if has_topic => ExceptionHandler::DeadLetter,
        _ => ExceptionHandler::Fail,
    };
    let size = |key: &str| usize::try_from(manifest.count(key)).unwrap_or(usize::MAX);
    ExceptionHandlers {
        deserialization: handler("deserialization.exception.handler"),
        processing: handler("processing.exception.handler"),
        production: handler("production.exception.handler"),
        dead_letter_reads_max_bytes: size("errors.dead.letter.queue.reads.max.bytes"),
        consecutive_failures_max: u32::try_from(manifest.count("processing.exception.consecutive.max"))
            .unwrap_or(u32::MAX),
    }
}

/// Reads a duration such as `5s`, `500ms` or `2m`.
///
/// # Errors
/// Says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|_| factor_ms > 0)
        .and_then(|number| number.checked_mul(factor_ms))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("expected a number with ms, s, m or h, for example 5s, found {text:?}"))
}

#[cfg(test)]
mod tests;
