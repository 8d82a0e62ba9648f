//! The points at which a new version cannot take over the state of the running one. Each message names the source, the
//! store or the sub-topology, what runs, what was found, and what to do.

/// Why a new version cannot take over the state of the running one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Incompatibility {
    #[error(
        "the running version has {running} sub-topologies, the new one {found}: tasks and their stores are numbered \
         by them; keep their number and order, or give the application a new application.id"
    )]
    SubTopologies { running: usize, found: usize },
    #[error(
        "store {store} belongs to sub-topology {running} in the running version and to {found} in the new one: its \
         tasks and directories carry that number; keep the order of the sub-topologies, or give the application a \
         new application.id"
    )]
    StoreMoved { store: String, running: usize, found: usize },
    #[error(
        "source topic {topic} feeds sub-topology {running} in the running version and {found} in the new one: its \
         tasks carry that number; keep the order of the sub-topologies, or give the application a new application.id"
    )]
    SourceMoved { topic: String, running: usize, found: usize },
    #[error(
        "sub-topology {sub_topology} reads {} in the running version and {} in the new one, but keeps what it has \
         stored ({}), which came from those topics and is spread as they are; keep one of them, or give the \
         application a new application.id",
        names(.running), names(.found), names(.stores)
    )]
    SourcesReplaced { sub_topology: usize, stores: Vec<String>, running: Vec<String>, found: Vec<String> },
    #[error(
        "sub-topology {sub_topology} has {running} tasks with stores and would have {found} with the new sources, \
         {kept} of them with a topic that is read now, but rows stay in their tasks; read topics of as many \
         partitions, one of them as before, or give the application a new application.id"
    )]
    TaskCount { sub_topology: u32, running: i32, kept: i32, found: i32 },
    #[error(
        "store {store} is kept by the running version and not declared by the new one, which would lose its rows: \
         declare it, or drop it with --drop-store {store}"
    )]
    StoreRemoved { store: String },
    #[error(
        "--drop-store names {store}, which the running version does not have; it has {}: correct the name, or leave \
         it out",
        names(.stores)
    )]
    UnknownDropped { store: String, stores: Vec<String> },
    #[error("--drop-store names {store}, which the new version declares: leave one of the two out")]
    DeclaredDropped { store: String },
    #[error(
        "the {what}s of store {store} have the format {running} in the running version and {found} in the new one, both \
         under schema version {version}, so that the rows that are there could not be read: raise the store's version and \
         migrate them, or use a store with another name"
    )]
    Format { store: String, what: &'static str, version: u32, running: String, found: String },
    #[error(
        "store {store} has rows of schema version {running}, the new version declares {found}: rows do not go back; \
         declare version {running} or a higher one, or use a store with another name"
    )]
    VersionLowered { store: String, running: u32, found: u32 },
    #[error(
        "store {store} has rows of schema version {running}, the new version declares {found}, but its module does \
         not export sandbar:processor/migration: write a migration from version {running}, or declare version \
         {running}"
    )]
    NoMigration { store: String, running: u32, found: u32 },
    #[error(
        "store {store} has rows of schema version {running}, the new version declares {found}, but they are those of \
         the source topic {topic}, which no migration changes: declare version {running}"
    )]
    SourceBacked { store: String, topic: String, running: u32, found: u32 },
    #[error(
        "store {store} is backed by {running} in the running version and by {found} in the new one, so that \
         {effect}: leave that as it is, or use a store with another name"
    )]
    Changelog { store: String, running: String, found: String, effect: &'static str },
    #[error(
        "store {store} is {running} in the running version and {found} in the new one, and no changelog has its rows \
         (logging.enabled = false), which would be lost: leave that as it is, or use a store with another name"
    )]
    Backend { store: String, running: &'static str, found: &'static str },
}

/// Names in a message.
pub(super) fn names(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
