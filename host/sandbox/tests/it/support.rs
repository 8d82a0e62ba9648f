//! What the tests share: the guests, one runtime, and a task that makes calls as the engine does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use engine::processor::{Processor, ProcessorContext, ProcessorError, ProcessorSupplier, ScheduleRequest};
use engine::record::{InputBatch, Outcome};
use engine::state::TaskStore;
use engine::state::memory::MemoryStore;
use engine::testing::topology;
use engine::topology::TaskId;
use sandbox::{Limits, Module, Runtime, RuntimeConfig, SandboxSupplier, UsageSnapshot};

pub const TASK: TaskId = TaskId { sub_topology: 0, partition: 3 };

/// The bytes of a guest. Fails where it was not built: a test that is skipped in silence proves nothing.
pub fn guest(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("SANDBAR_GUESTS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"));
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make guests`", path.display()))
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(RuntimeConfig::default()).unwrap())
}

/// A loaded guest; each is compiled once for all tests.
pub fn module(name: &str) -> Module {
    static MODULES: Mutex<BTreeMap<String, Module>> = Mutex::new(BTreeMap::new());
    let mut modules = MODULES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(module) = modules.get(name) {
        return module.clone();
    }
    let module = runtime().load(&guest(name)).unwrap();
    modules.insert(name.to_owned(), module.clone());
    module
}

/// A batch of records with keys and values; offsets count from 100.
pub fn batch(records: &[(&str, &str)]) -> InputBatch {
    let mut batch = InputBatch { topic: "commands".into(), partition: 3, base_offset: 100, ..InputBatch::default() };
    for (index, (key, value)) in records.iter().enumerate() {
        batch.offset_deltas.push(index as u32);
        batch.timestamps.push(1_000 + index as i64);
        batch.keys.push(Some(key.as_bytes()));
        batch.values.push(Some(value.as_bytes()));
    }
    batch
}

/// A task with one instance and one store, `data` (or `counts`), in memory.
pub struct Task {
    pub supplier: Arc<SandboxSupplier>,
    pub processor: Box<dyn Processor>,
    pub context: Option<ProcessorContext>,
    pub requests: Vec<ScheduleRequest>,
}

impl Task {
    /// An instance of a guest after `init`.
    pub fn start(guest: &str, limits: Limits) -> Self {
        let mut task = Self::create(guest, limits, &[]);
        task.init().unwrap();
        task
    }

    /// An instance before `init`; `config` is the manifest's `[config]` table.
    pub fn create(guest: &str, limits: Limits, config: &[(&str, &str)]) -> Self {
        Self::of(&module(guest), limits, config)
    }

    /// An instance of any module before `init`.
    pub fn of(module: &Module, limits: Limits, config: &[(&str, &str)]) -> Self {
        let declared = &module.declaration().sub_topologies[0];
        let stores: Vec<&str> = declared.stores.iter().map(|store| store.name.as_str()).collect();
        let topology = Arc::new(topology(&["commands"], &stores, &["answers"]));
        let specs = topology.sub_topologies[0].stores.clone();
        let supplier = module.supplier(topology, limits);
        let stores = specs.into_iter().map(|spec| TaskStore::new(spec, Box::new(MemoryStore::new()), 1 << 20));
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let context = ProcessorContext::new(TASK, "test-app".into(), Arc::new(config), stores.collect());
        let processor = supplier.create(TASK).unwrap();
        Self { supplier, processor, context: Some(context), requests: Vec::new() }
    }

    fn begin(&mut self) -> ProcessorContext {
        let mut context = self.context.take().unwrap();
        context.begin_call(Some(900), 1_000, 1_700_000_000_123);
        context
    }

    fn end<T>(
        &mut self,
        (mut context, result): (ProcessorContext, Result<T, ProcessorError>),
        is_kept: impl FnOnce(&T) -> bool,
    ) -> Result<T, ProcessorError> {
        if result.as_ref().is_ok_and(is_kept) {
            self.requests = context.complete_call();
        } else {
            context.fail_call();
        }
        self.context = Some(context);
        result
    }

    pub fn init(&mut self) -> Result<(), ProcessorError> {
        let context = self.begin();
        let result = self.processor.init(context);
        self.end(result, |()| true)
    }

    pub fn process(&mut self, batch: InputBatch) -> Result<Outcome, ProcessorError> {
        let context = self.begin();
        let result = self.processor.process(context, batch);
        self.end(result, |outcome| outcome.refused.is_empty())
    }

    pub fn punctuate(&mut self, schedule: u32, time: i64) -> Result<Outcome, ProcessorError> {
        let context = self.begin();
        let result = self.processor.punctuate(context, engine::processor::ScheduleId(schedule), time);
        self.end(result, |_| true)
    }

    /// Gives a probe its command.
    pub fn call(&mut self, command: &str, argument: &str) -> Result<Outcome, ProcessorError> {
        self.process(batch(&[(command, argument)]))
    }

    /// A call that the module ends well and the task undoes, as for outputs that Kafka would refuse.
    pub fn call_undone(&mut self, command: &str, argument: &str) {
        let context = self.begin();
        let result = self.processor.process(context, batch(&[(command, argument)]));
        self.end(result, |_| false).unwrap();
    }

    /// The text that a probe answers with.
    pub fn ask(&mut self, command: &str, argument: &str) -> String {
        let outcome = self.call(command, argument).unwrap_or_else(|error| panic!("{command} {argument}: {error}"));
        let value = outcome.outputs.values.get(0).unwrap().to_vec();
        String::from_utf8(value).unwrap()
    }

    /// Makes a new instance, as the engine does after a failure.
    pub fn replace(&mut self) {
        self.processor = self.supplier.create(TASK).unwrap();
        self.init().unwrap();
    }

    /// How often the limit with this key was hit.
    pub fn hits(&self, key: &str) -> u64 {
        let hits = self.supplier.usage().limit_hits();
        hits.into_iter().find(|hits| hits.0 == key).unwrap_or_else(|| panic!("no limit {key}")).1
    }

    pub fn usage(&self) -> UsageSnapshot {
        self.supplier.usage().snapshot()
    }
}

/// A folder of a test's own, removed at its end.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sandbar-sandbox-{name}-{}", std::process::id()));
        // Left by a run that was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A leftover in the system's folder for temporary files does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
