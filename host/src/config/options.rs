//! The table of the manifest's keys: name, kind, default, unit, importance and prose of each. Parsing, validation,
//! defaults and the generated reference all come from this one table; a key that is not here does not exist. The keys
//! of the sandbox's limits come from its own table.

use std::sync::LazyLock;

/// How much a user has to care, as in Kafka's own reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Importance {
    High,
    Medium,
    Low,
}

impl Importance {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name that Kafka accepts for topics: letters, digits, `.`, `_` and `-`, at most 249 of them.
    Name,
    /// A path; a relative one starts at the manifest's folder.
    Path,
    /// `host:port`, several joined by commas, or a list.
    Servers,
    /// Networks in CIDR notation, several joined by commas, or a list.
    Networks,
    /// `host:port` to listen on.
    Address,
    Integer {
        min: i64,
        max: i64,
    },
    /// A limit of the sandbox, which knows its bounds.
    Limit,
    Boolean,
    Choice(&'static [&'static str]),
    /// Paths of public keys or keys in base64, several joined by commas, or a list.
    PublicKeys,
}

/// Whose a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Each host has its own value.
    Host,
    /// What the module does depends on it, so it is deployed with the module and every host has the same value.
    Version,
}

/// One key. `*` in a name stands for a name that the module declares, or that the manifest gives a table.
#[derive(Debug, Clone)]
pub struct ConfigOption {
    pub name: &'static str,
    pub kind: Kind,
    /// As it would be written in the manifest; `None` where there is none.
    pub default: Option<&'static str>,
    /// Unit of the value, empty where it has none.
    pub unit: &'static str,
    pub importance: Importance,
    pub required: bool,
    /// Whether Kafka Streams has a key of this name with this meaning.
    pub kafka_streams: bool,
    pub scope: Scope,
    pub doc: &'static str,
}

/// A table whose keys are free.
#[derive(Debug, Clone, Copy)]
pub struct FreeTable {
    pub name: &'static str,
    pub scope: Scope,
    pub doc: &'static str,
}

const fn option(name: &'static str, kind: Kind, doc: &'static str) -> ConfigOption {
    ConfigOption {
        name,
        kind,
        default: None,
        unit: "",
        importance: Importance::Medium,
        required: false,
        kafka_streams: false,
        scope: Scope::Host,
        doc,
    }
}

impl ConfigOption {
    const fn or(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    const fn importance(mut self, importance: Importance) -> Self {
        self.importance = importance;
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn streams(mut self) -> Self {
        self.kafka_streams = true;
        self
    }

    const fn of_version(mut self) -> Self {
        self.scope = Scope::Version;
        self
    }
}

/// Limits of all instances on a host together, which are for the host to say.
const LIMITS_OF_THE_HOST: [&str; 3] =
    ["processor.memory.total.max.bytes", "processor.log.max.lines.per.second", "processor.log.max.bytes.per.second"];

/// The answers of an exception handler.
const HANDLERS: &[&str] = &["dlq", "continue", "fail"];

const fn integer(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const DAY_MS: i64 = 86_400_000;
const GIB: i64 = 1 << 30;
const TIB: i64 = 1 << 40;

/// Every key with a fixed meaning, those of the sandbox's limits included.
pub static OPTIONS: LazyLock<Vec<ConfigOption>> = LazyLock::new(|| {
    let limits = sandbox::Limits::keys().map(|limit| ConfigOption {
        // A dozen short strings, once; they live as long as the table.
        default: Some(limit.default.to_string().leak()),
        unit: if limit.key.ends_with(".ms") {
            "ms"
        } else if limit.key.ends_with(".bytes") {
            "bytes"
        } else {
            ""
        },
        importance: Importance::Low,
        scope: if LIMITS_OF_THE_HOST.contains(&limit.key) { Scope::Host } else { Scope::Version },
        ..option(limit.key, Kind::Limit, limit.meaning)
    });
    TABLE.iter().cloned().chain(limits).collect()
});

const TABLE: &[ConfigOption] = &[
    option(
        "application.id",
        Kind::Name,
        "Names the application. It is the consumer group and the prefix of all internal topics, so every host of an \
         application has the same one, and changing it starts from nothing.",
    )
    .importance(Importance::High)
    .required()
    .streams(),
    option(
        "module",
        Kind::Path,
        "The component to run, as `sandbar build` writes it. Required, except where the manifest has `[table.<name>]`: then \
         there is none.",
    )
    .importance(Importance::High),
    option(
        "bootstrap.servers",
        Kind::Servers,
        "Brokers to start from. `-b` and `--embedded` of the command line take their place.",
    )
    .importance(Importance::High)
    .streams(),
    option(
        "state.dir",
        Kind::Path,
        "Folder of the local state stores, those of an application in a folder of its id. One host at a time; two hosts of \
         one application on one machine need two folders.",
    )
    .or("\".sandbar/state\"")
    .importance(Importance::High)
    .streams(),
    option(
        "processing.guarantee",
        Kind::Choice(&["exactly_once_v2", "at_least_once"]),
        "`exactly_once_v2`: input offsets, outputs and state move as one, in a transaction for each commit of a stream \
         thread; readers of the outputs should use `read_committed`. `at_least_once`: nothing is lost, a crash may repeat \
         what came after the last commit.",
    )
    .or("\"exactly_once_v2\"")
    .streams()
    .of_version(),
    option(
        "num.stream.threads",
        integer(1, 256),
        "Stream threads of this host. A task runs on one thread, so more threads than tasks stay idle.",
    )
    .or("1")
    .streams(),
    option(
        "num.standby.replicas",
        integer(0, 32),
        "Warm copies of each task's stores on other hosts of the application. A host that takes over a task of which it \
         keeps one restores a few records instead of everything.",
    )
    .or("0")
    .streams(),
    option(
        "commit.interval.ms",
        integer(1, DAY_MS),
        "Time between commits; 1,000 under `at_least_once` where nobody sets it. Queries see committed state, and a crash \
         repeats at most one interval, so that is far shorter than Kafka Streams' 30,000.",
    )
    .or("100")
    .unit("ms")
    .streams(),
    option(
        "application.server",
        Kind::Address,
        "Where the REST interface listens, for all applications of the process. There is no authentication yet: leave it on \
         the loopback interface.",
    )
    .or("\"127.0.0.1:7070\"")
    .streams(),
    option(
        "advertised.listener",
        Kind::Address,
        "Where other hosts of the application reach this one; `application.server` where it is absent. Needed where that \
         is no address for others, such as `0.0.0.0:7070`, or lies behind a port that is mapped. Port 0 stands for the \
         port of `application.server`.",
    ),
    option(
        "advertised.networks",
        Kind::Networks,
        "Networks in which the other hosts of the application are. Their addresses come from the group, so whoever may \
         join it could have this host connect anywhere; with this key it connects into these networks only. Link-local, \
         multicast and unspecified addresses and the metadata services of clouds are never connected to.",
    )
    .importance(Importance::Low),
    option(
        "auto.offset.reset",
        Kind::Choice(&["earliest", "latest", "none"]),
        "Where a source partition starts that has no committed offset; `none` stops with an error instead.",
    )
    .or("\"earliest\"")
    .streams()
    .of_version(),
    option(
        "max.task.idle.ms",
        integer(-1, DAY_MS),
        "How long a task with several source partitions waits for the empty ones before it goes on without them, so \
         that records meet in timestamp order. -1 never waits.",
    )
    .or("0")
    .unit("ms")
    .streams()
    .of_version(),
    option(
        "statestore.cache.max.bytes",
        integer(0, TIB),
        "Memory for the caches of clean entries, shared out evenly to the stream threads.",
    )
    .or("67108864")
    .unit("bytes")
    .streams(),
    option(
        "statestore.uncommitted.max.bytes",
        integer(1024, TIB),
        "Uncommitted writes that a stream thread may hold; passing the bound commits early.",
    )
    .or("33554432")
    .unit("bytes")
    .streams(),
    option(
        "max.poll.interval.ms",
        integer(1000, DAY_MS),
        "A stream thread that does not poll for this long loses its partitions to others.",
    )
    .or("300000")
    .unit("ms")
    .importance(Importance::Low)
    .streams(),
    option(
        "default.api.timeout.ms",
        integer(1, DAY_MS),
        "How long a start waits for a broker to answer before it gives up.",
    )
    .or("60000")
    .unit("ms")
    .importance(Importance::Low)
    .streams(),
    option("request.timeout.ms", integer(100, DAY_MS), "How long one request to a broker may take.")
        .or("30000")
        .unit("ms")
        .importance(Importance::Low)
        .streams(),
    option(
        "task.timeout.ms",
        integer(0, DAY_MS),
        "How long a failing call to the broker is tried again before the application stops.",
    )
    .or("300000")
    .unit("ms")
    .importance(Importance::Low)
    .streams(),
    option("retry.backoff.ms", integer(1, 60_000), "The pause after a failed try.")
        .or("100")
        .unit("ms")
        .importance(Importance::Low)
        .streams(),
    option(
        "group.instance.id",
        Kind::Name,
        "Static membership: an id of this host, unique in the group, with which it keeps its tasks over a short \
         restart.",
    )
    .importance(Importance::Low),
    option(
        "client.id",
        Kind::Name,
        "Prefix of the names under which the broker sees the host's clients; the application id where it is absent.",
    )
    .importance(Importance::Low)
    .streams(),
    option(
        "transaction.timeout.ms",
        integer(1_000, 900_000),
        "How long a transaction of a host that died may hold back readers of its outputs and changelogs, where the host \
         does not come back with its state directory. The broker's `transaction.max.timeout.ms` bounds it.",
    )
    .or("10000")
    .unit("ms")
    .importance(Importance::Low),
    option(
        "errors.dead.letter.queue.topic.name",
        Kind::Name,
        "Topic of the dead letters: a record that cannot be read, processed or sent goes there, with what happened in its \
         headers, in the same commit as its offset, and processing goes on. It may be shared by applications. It must not \
         be compacted, nor be the topic of a source or a sink. See [dead letters](../dead-letters.md).",
    )
    .importance(Importance::High)
    .streams()
    .of_version(),
    option(
        "processing.exception.handler",
        Kind::Choice(HANDLERS),
        "What becomes of a record that the module refuses, or at which it crashes or passes a limit. `dlq`: it is a dead \
         letter; `continue`: it is left out and counted; `fail`: the application stops. Its writes, outputs and schedules \
         are undone in any case. `dlq` where a topic for dead letters is set, `fail` otherwise.",
    )
    .streams()
    .of_version(),
    option(
        "deserialization.exception.handler",
        Kind::Choice(HANDLERS),
        "As `processing.exception.handler`, for records whose key or value the module cannot read and for timestamps that \
         are none.",
    )
    .streams()
    .of_version(),
    option(
        "production.exception.handler",
        Kind::Choice(HANDLERS),
        "As `processing.exception.handler`, for records for which the module forwards what Kafka would refuse: larger than \
         the topic's `max.message.bytes`, without a key for a compacted topic, with a timestamp outside its bounds. With \
         `continue` the output alone is left out. The size is that of the record before compression, so that a record which \
         a topic would take compressed only counts as too large.",
    )
    .streams()
    .of_version(),
    option(
        "processing.exception.consecutive.max",
        integer(1, 1_000_000_000),
        "After so many records in a row at which the module fails, without one success of its task, the application stops: \
         then it is the module that is broken. Refused records do not count.",
    )
    .or("100")
    .unit("records")
    .importance(Importance::Low)
    .of_version(),
    option(
        "provenance",
        Kind::Boolean,
        "Whether every output carries the header `__sandbar.module`: the first 12 digits of the digest of the module that \
         made it.",
    )
    .or("false")
    .importance(Importance::Low)
    .of_version(),
    option(
        "probation.ms",
        integer(0, 86_400_000),
        "How long a version is on probation after it took over, at least. Meanwhile its failures are compared with those of \
         the version before, and past the bound the host goes back by itself.",
    )
    .or("60000")
    .unit("ms")
    .importance(Importance::Medium),
    option(
        "probation.records",
        integer(0, i64::MAX),
        "How many records a version must have processed on this host before its probation ends.",
    )
    .or("1000")
    .unit("records")
    .importance(Importance::Low),
    option(
        "probation.failures.max",
        integer(0, i64::MAX),
        "Failed calls, and as many refused records, that a version on probation may have beyond what the rate of the version \
         before lets expect (its mean and four standard deviations).",
    )
    .or("0")
    .importance(Importance::Medium),
    option(
        "probation.output.factor",
        integer(0, 1_000_000),
        "By how many times the records that a version on probation forwards for each may differ from the version before, up \
         or down, once both have processed 1,000; 0 does not compare them.",
    )
    .or("10")
    .importance(Importance::Low),
    option(
        "errors.dead.letter.queue.reads.max.bytes",
        integer(0, 64 << 20),
        "How much of what the module has read from its stores a dead letter carries, so that `sandbar repro` can repeat \
         the call.",
    )
    .or("65536")
    .unit("bytes")
    .importance(Importance::Low)
    .of_version(),
    option(
        "accept.missing.offsets",
        Kind::Boolean,
        "Lets tasks that have state but no committed offsets start by `auto.offset.reset`. Without it they stop, since \
         they would count everything again.",
    )
    .or("false")
    .importance(Importance::Low),
    option(
        "accept.lost.changelogs",
        Kind::Boolean,
        "Lets stores begin with changelogs that end before the state to which the committed offsets belong, because they \
         were deleted or made anew. Without it their tasks stop. Once every source partition has had a commit it is not \
         needed any more.",
    )
    .or("false")
    .importance(Importance::Low),
    option(
        "statestore.flush.interval.ms",
        integer(100, DAY_MS),
        "How often stores write what is committed to disk. What a crash loses of it is restored from the changelog.",
    )
    .or("60000")
    .unit("ms")
    .importance(Importance::Low),
    option("max.poll.records", integer(1, 1_000_000), "Records that one poll of the consumer returns at most.")
        .or("1000")
        .unit("records")
        .importance(Importance::Low)
        .streams(),
    option("poll.ms", integer(1, 60_000), "How long a stream thread waits for records when it has nothing to do.")
        .or("100")
        .unit("ms")
        .importance(Importance::Low)
        .streams(),
    option(
        "buffered.records.per.partition",
        integer(1, 10_000_000),
        "Records that a task queues for a source partition before it pauses its fetching.",
    )
    .or("1000")
    .unit("records")
    .importance(Importance::Low)
    .streams(),
    option(
        "batch.max.records",
        integer(1, 1_000_000),
        "Records that one call of the module gets at most. Results never depend on it.",
    )
    .or("500")
    .unit("records")
    .importance(Importance::Low),
    option(
        "batch.max.bytes",
        integer(1024, GIB),
        "Bytes of keys and values that one call of the module gets at most; a single larger record still goes \
         through, alone.",
    )
    .or("1048576")
    .unit("bytes")
    .importance(Importance::Low),
    option(
        "replication.factor",
        integer(-1, 32),
        "Replicas of internal topics that the host creates; -1 leaves it to the broker.",
    )
    .or("-1")
    .importance(Importance::Low)
    .streams(),
    option(
        "embedded.partitions",
        integer(1, 1000),
        "Partitions of the source and sink topics that are created on the embedded broker when they are missing. A \
         real broker's topics are never created by a run, nor is the topic of a table.",
    )
    .or("4")
    .importance(Importance::Low),
    option(
        "module.max.bytes",
        integer(1024, GIB),
        "Size of a module at most. Modules that carry an interpreter, as those written in Python or JavaScript do, need up \
         to 33554432, and a larger `module.compile.cpu.max.seconds`.",
    )
    .or("10485760")
    .unit("bytes")
    .importance(Importance::Low),
    option(
        "module.trusted.keys",
        Kind::PublicKeys,
        "Ed25519 public keys. With this key the host runs only modules that one of them has signed, wherever they come from: \
         the signature of `vote.wasm` is in `vote.wasm.sig` beside it, or is deployed with it. A key is a file as `openssl pkey \
         -pubout` writes it, or its 32 bytes in base64. See [signed modules](../sandbox.md#signed-modules).",
    ),
    option(
        sandbox::COMPILE_CPU_KEY,
        integer(1, 3_600),
        "CPU time that compiling the module may take, in a process of its own. A module in Rust takes 0.2 s, one that \
         carries an interpreter 20 s or more. What is compiled once is kept.",
    )
    .or("10")
    .unit("s")
    .importance(Importance::Low),
    option(
        sandbox::COMPILE_MEMORY_KEY,
        integer(64 << 20, TIB),
        "Memory that compiling the module may take, in a process of its own.",
    )
    .or("1073741824")
    .unit("bytes")
    .importance(Importance::Low),
    option(
        "processor.stores.max.count",
        integer(0, 10_000),
        "Stores that the module may declare. Each is a changelog topic with all its partitions, and a folder and write \
         buffers for each task.",
    )
    .or("20")
    .unit("stores")
    .importance(Importance::Low)
    .of_version(),
    option(
        "rocksdb.block.cache.bytes",
        integer(1 << 20, TIB),
        "Memory for blocks, indexes, filters and write buffers of all RocksDB stores of the host together, those of [all its \
         applications](../applications.md) included.",
    )
    .or("134217728")
    .unit("bytes")
    .importance(Importance::Low),
    option(
        "rocksdb.write.buffers.bytes",
        integer(1 << 20, TIB),
        "How much of it the write buffers may take before one is written out.",
    )
    .or("67108864")
    .unit("bytes")
    .importance(Importance::Low),
    option(
        "sources.*.topic",
        Kind::Name,
        "Binds a source that the module declares to a topic; without it the topic has the source's name. A topic that ends \
         in `-changelog`, `-repartition` or `-sandbar-versions`, or begins with `__`, must be named here to be read.",
    )
    .importance(Importance::High)
    .of_version(),
    option(
        "sinks.*.topic",
        Kind::Name,
        "Binds a sink that the module declares to a topic; without it the topic has the sink's name. It never ends in \
         `-changelog`, `-repartition` or `-sandbar-versions` and never begins with `__`: that is state of applications or \
         of the cluster.",
    )
    .importance(Importance::High)
    .of_version(),
    option(
        "table.*.topic",
        Kind::Name,
        "Serves a topic as a read-only key-value store of this name, without a module; without the key the topic has the \
         table's name, and an empty `[table.<name>]` is enough. See [tables](../tables.md).",
    )
    .importance(Importance::High),
    option(
        "table.*.backend",
        Kind::Choice(&["rocksdb", "memory"]),
        "Where a table keeps its data: on disk, or in memory, where it is loaded from its topic at each start.",
    )
    .or("\"rocksdb\""),
    option(
        "table.*.key.format",
        Kind::Choice(&["utf8", "json", "i32", "i64", "f64", "bytes"]),
        "How the keys of a table are shown and asked for; `bytes` are shown in base64. A query may ask for another format.",
    )
    .or("\"utf8\""),
    option(
        "table.*.value.format",
        Kind::Choice(&["utf8", "json", "i32", "i64", "f64", "bytes"]),
        "How the values of a table are shown.",
    )
    .or("\"utf8\""),
    option(
        "stores.*.backend",
        Kind::Choice(&["rocksdb", "memory"]),
        "Where a store keeps its data: on disk, or in memory, where it is restored from its changelog at each start.",
    )
    .or("\"rocksdb\"")
    .of_version(),
    option(
        "stores.*.logging.enabled",
        Kind::Boolean,
        "Whether a changelog topic backs the store. Without one its data is gone with the state directory.",
    )
    .or("true")
    .importance(Importance::Low)
    .of_version(),
    option(
        "stores.*.write.source",
        Kind::Name,
        "Lets REST clients write under the store's keys: what they write becomes a record of this source, as the module \
         declares it, and the module does with it what it does with any other. Without it the store takes no writes.",
    )
    .of_version(),
    option(
        "stores.*.write.conditional",
        Kind::Boolean,
        "Says that the module looks at the conditions of writes (`If-Match`, `If-None-Match`), which it gets as the \
         headers `sandbar-if-match` and `sandbar-if-none-match` of the record. Without it they are refused.",
    )
    .or("false")
    .importance(Importance::Low)
    .of_version(),
];

/// The tables whose keys are free: their values are passed on.
pub const FREE_TABLES: &[FreeTable] = &[
    FreeTable {
        name: "config",
        scope: Scope::Version,
        doc: "Values that the module reads with `context.config`. The host gives them no meaning.",
    },
    FreeTable {
        name: "kafka",
        scope: Scope::Host,
        doc: "Properties of librdkafka, under its own names. `consumer.` and `producer.` in front give a property to \
              those clients only, for example `consumer.session.timeout.ms`. Properties that the host itself must \
              set (`group.id`, `enable.auto.commit`, …) are refused.",
    },
];

/// Whose a flattened key is; `None` for one that does not exist.
pub fn scope_of(name: &str) -> Option<Scope> {
    let free = FREE_TABLES.iter().find(|table| {
        name.strip_prefix(table.name).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| !rest.is_empty())
    });
    free.map(|table| table.scope).or_else(|| find(name).map(|option| option.scope))
}

/// The option with a flattened name; names below `sources`, `sinks`, `stores` and `table` match their `*`.
pub fn find(name: &str) -> Option<&'static ConfigOption> {
    OPTIONS.iter().find(|option| match option.name.split_once(".*.") {
        None => option.name == name,
        Some((table, field)) => name
            .strip_prefix(table)
            .and_then(|rest| rest.strip_prefix('.'))
            .and_then(|rest| rest.strip_suffix(field))
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|middle| !middle.is_empty()),
    })
}
