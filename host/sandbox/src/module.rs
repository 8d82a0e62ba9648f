//! A loaded module: compiled, linked and asked what it is. Makes the suppliers of applications; cheap to clone.

use std::sync::Arc;

use engine::processor::{Processor, ProcessorError, ProcessorSupplier};
use engine::topology::{TaskId, Topology};
use wasmtime::Engine;
use wasmtime::component::{ComponentExportIndex, InstancePre};

use crate::bindings::GuestIndices;
use crate::check::ModuleFacts;
use crate::declaration::Declaration;
use crate::epoch::EpochThread;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::migration;
use crate::task_state::TaskState;
use crate::usage::Usage;

/// A module that can make instances.
#[derive(Clone)]
pub struct Module {
    inner: Arc<ModuleInner>,
    declaration: Arc<Declaration>,
}

/// What instances share. Keeps the thread behind the deadlines alive.
pub(crate) struct ModuleInner {
    pre: InstancePre<TaskState>,
    indices: GuestIndices,
    /// The function `migrate`, where the module exports it.
    migrate: Option<ComponentExportIndex>,
    facts: ModuleFacts,
    epochs: Arc<EpochThread>,
}

impl ModuleInner {
    /// Finds the module's functions. The error says which one is missing.
    pub fn new(pre: InstancePre<TaskState>, facts: ModuleFacts, epochs: Arc<EpochThread>) -> wasmtime::Result<Self> {
        let indices = GuestIndices::new(&pre)?;
        let migrate = migration::find(&pre)?;
        Ok(Self { pre, indices, migrate, facts, epochs })
    }

    pub fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    pub fn pre(&self) -> &InstancePre<TaskState> {
        &self.pre
    }

    pub fn indices(&self) -> &GuestIndices {
        &self.indices
    }

    pub fn migrate(&self) -> Option<&ComponentExportIndex> {
        self.migrate.as_ref()
    }

    pub fn epochs(&self) -> &EpochThread {
        &self.epochs
    }
}

impl Module {
    pub(crate) fn new(inner: Arc<ModuleInner>, declaration: Declaration) -> Self {
        Self { inner, declaration: Arc::new(declaration) }
    }

    /// What the module says of itself, checked.
    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// The sha-256 of the module's bytes, as 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.inner.facts.digest
    }

    pub fn facts(&self) -> &ModuleFacts {
        &self.inner.facts
    }

    /// Whether the module can take over what older versions of it have stored.
    pub fn can_migrate(&self) -> bool {
        self.inner.migrate.is_some()
    }

    /// A supplier for one application. `topology` is the declaration bound to topics by the caller, with the
    /// sub-topologies, stores and sinks in the declaration's order.
    pub fn supplier(&self, topology: Arc<Topology>, limits: Limits) -> Arc<SandboxSupplier> {
        Arc::new(SandboxSupplier {
            module: Arc::clone(&self.inner),
            topology,
            limits: Arc::new(limits),
            usage: Arc::new(Usage::default()),
        })
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("digest", &self.digest()).finish_non_exhaustive()
    }
}

/// Makes the instances of one application and counts what they use.
pub struct SandboxSupplier {
    module: Arc<ModuleInner>,
    topology: Arc<Topology>,
    limits: Arc<Limits>,
    usage: Arc<Usage>,
}

impl SandboxSupplier {
    /// The counters of all instances made here.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }
}

impl ProcessorSupplier for SandboxSupplier {
    fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    fn digest(&self) -> &str {
        &self.module.facts.digest
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.limits.changed()
    }

    fn can_migrate(&self) -> bool {
        self.module.migrate.is_some()
    }

    fn create(&self, task: TaskId) -> Result<Box<dyn Processor>, ProcessorError> {
        let (module, limits, usage) = (Arc::clone(&self.module), Arc::clone(&self.limits), Arc::clone(&self.usage));
        Ok(Box::new(Instance::new(module, limits, usage, task)?))
    }
}
