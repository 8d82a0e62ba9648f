//! The engine: what a stream processor does between a consumer and a producer, as synchronous, deterministic code.
//! It knows broker, store, processor and clock as traits only; time is passed in. The modules are declared in the
//! order in which a record meets them; the side roads, each entered at one function, come last.

pub mod broker;

pub mod clock;

pub mod record;

pub mod columns;

pub mod topology;

pub mod stream_thread;

pub mod task_manager;

pub mod task;

pub mod processor;

pub mod version;

pub mod exception_handlers;

pub mod dead_letter;

pub mod replay;

pub mod partitioner;

pub mod state;

pub mod table;

pub mod restore;

pub mod assignment;

pub mod standby;

pub mod internal_topics;

pub mod topic_limits;

pub mod query;

pub mod routing;

pub mod error;

pub mod metrics;

pub mod testing;
