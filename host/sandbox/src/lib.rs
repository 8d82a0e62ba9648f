//! The sandbox: runs processor modules (WebAssembly components of the package `sandbar:processor`) behind the engine's
//! `Processor` seam. It checks, compiles and caches modules, makes one instance per task in a wasmtime `Store` of its
//! own, bounds what a call may use and turns every way a guest can fail into a `ProcessorError`. It never reads code
//! that it did not compile itself, and knows nothing of Kafka, RocksDB or a task's state.
//!
//! The way in: [`Runtime::new`], [`Runtime::load`], [`Module::declaration`], [`Module::supplier`].
//! A thread that calls an instance needs a stack of at least 2 MiB (Rust's default for threads).

mod bindings;
mod cache;
mod check;
mod compiler;
mod deadline;
mod declaration;
mod epoch;
mod error;
mod failure;
mod guest_log;
mod imports;
mod instance;
mod limiter;
mod limits;
mod log_rate;
mod migration;
mod module;
mod random;
mod runtime;
mod task_state;
mod usage;

pub use check::{DEFAULT_MODULE_MAX_BYTES, ModuleFacts, check, check_with_limit};
pub use compiler::child::serve_compilation;
pub use compiler::{COMPILE_CPU_KEY, COMPILE_MEMORY_KEY, ChildCompiler, CompileLimits, Compiler};
pub use declaration::{Declaration, StoreDeclaration, SubTopologyDeclaration, TopicDeclaration};
pub use error::{LoadError, RuntimeError};
pub use limits::{LimitKey, LimitKeyError, Limits};
pub use module::{Module, SandboxSupplier};
pub use runtime::{LoadStage, Runtime, RuntimeConfig};
pub use usage::{Usage, UsageSnapshot};
