//! The runtime: one wasmtime `Engine` with its settings, the thread behind the deadlines, the linker and the cache of
//! compiled code. Takes a module from bytes to something that makes instances.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel, Strategy};

use crate::cache::{self, Cache};
use crate::check::{DEFAULT_MODULE_MAX_BYTES, DETAIL_MAX_BYTES, FEATURES, ModuleFacts, inspect};
use crate::compiler::Compiler;
use crate::declaration::Declaration;
use crate::epoch::EpochThread;
use crate::error::{LoadError, RuntimeError};
use crate::failure;
use crate::guest_log::escape;
use crate::imports;
use crate::instance::{Live, begin_deadline};
use crate::limits::Limits;
use crate::migration;
use crate::module::{Module, ModuleInner};
use crate::task_state::TaskState;

/// S7: a guest's stack. Well below the 2 MiB that a Rust thread has, since host calls run on the rest of it.
const GUEST_STACK_BYTES: usize = 512 << 10;

/// Settings of a runtime.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Where compiled code is kept, in a folder of its own below this one; `None` compiles each time.
    pub cache_dir: Option<PathBuf>,
    /// The user's own folder for the key that marks what this host compiled; made where it is missing. Never within
    /// `cache_dir`, nor in anything that is handed from one to another. `None` keeps nothing.
    pub cache_key_dir: Option<PathBuf>,
    /// `module.max.bytes`: the largest module that is read.
    pub module_max_bytes: usize,
    pub compiler: Compiler,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_key_dir: None,
            module_max_bytes: DEFAULT_MODULE_MAX_BYTES,
            compiler: Compiler::InProcess,
        }
    }
}

/// What loading is doing; for progress displays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadStage {
    /// Compiling takes 0.1 s for a Rust module and 10 s or more for one that carries an interpreter.
    Compiling {
        size_bytes: usize,
    },
    LoadedFromCache,
    /// The compiled code could not be kept; the module runs all the same and is compiled again next time.
    NotCached {
        reason: String,
    },
    Describing,
}

/// Loads modules. Lives as long as the host; modules keep what they need of it.
pub struct Runtime {
    engine: Engine,
    linker: Linker<TaskState>,
    /// Where there is none though one was asked for, the reason.
    cache: Result<Cache, Option<String>>,
    epochs: Arc<EpochThread>,
    module_max_bytes: usize,
    compiler: Compiler,
}

impl Runtime {
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let failed = |error: wasmtime::Error| RuntimeError::Engine { detail: format!("{error:#}") };
        let engine = Engine::new(&engine_config()).map_err(failed)?;
        let linker = imports::linker(&engine).map_err(failed)?;
        let cache = open_cache(&config, &engine)?;
        let epochs = EpochThread::start(engine.clone()).map_err(RuntimeError::Thread)?;
        let RuntimeConfig { module_max_bytes, compiler, .. } = config;
        Ok(Self { engine, linker, cache, epochs: Arc::new(epochs), module_max_bytes, compiler })
    }

    /// A runtime with settings of its own on the same engine, with the same thread behind the deadlines.
    ///
    /// # Errors
    /// When its cache cannot be used.
    pub fn beside(&self, config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let cache = open_cache(&config, &self.engine)?;
        let RuntimeConfig { module_max_bytes, compiler, .. } = config;
        let (engine, linker, epochs) = (self.engine.clone(), self.linker.clone(), Arc::clone(&self.epochs));
        Ok(Self { engine, linker, cache, epochs, module_max_bytes, compiler })
    }

    /// Checks, compiles (or takes from the cache) and describes a module under the default limits.
    pub fn load(&self, bytes: &[u8]) -> Result<Module, LoadError> {
        self.load_with(bytes, &Limits::default(), &mut |_| {})
    }

    /// Like `load`, with the limits that `describe` runs under and a callback for progress.
    pub fn load_with(
        &self,
        bytes: &[u8],
        limits: &Limits,
        progress: &mut dyn FnMut(LoadStage),
    ) -> Result<Module, LoadError> {
        let facts = inspect(bytes, self.module_max_bytes)?;
        let component = self.compiled(bytes, &facts, progress)?;
        let link = |error: wasmtime::Error| LoadError::Link {
            digest: facts.digest.clone(),
            // The chain says which function of which interface.
            detail: escape(&format!("{error:#}"), DETAIL_MAX_BYTES),
        };
        let mut linker = self.linker.clone();
        imports::wasi::define_missing(&mut linker, &component).map_err(link)?;
        let pre = linker.instantiate_pre(&component).map_err(link)?;
        let inner = ModuleInner::new(pre, facts.clone(), Arc::clone(&self.epochs)).map_err(link)?;
        let inner = Arc::new(inner);
        progress(LoadStage::Describing);
        let declaration = describe(&inner, &facts, limits)?;
        Ok(Module::new(inner, declaration))
    }

    fn compiled(
        &self,
        bytes: &[u8],
        facts: &ModuleFacts,
        progress: &mut dyn FnMut(LoadStage),
    ) -> Result<Component, LoadError> {
        if let Some(component) = self.cache.as_ref().ok().and_then(|cache| cache.get(&self.engine, &facts.digest)) {
            progress(LoadStage::LoadedFromCache);
            return Ok(component);
        }
        progress(LoadStage::Compiling { size_bytes: bytes.len() });
        let code = self.compiler.compile(&self.engine, bytes, &facts.digest)?;
        let component = cache::load::component(&self.engine, &code).map_err(|error| LoadError::Compile {
            digest: facts.digest.clone(),
            detail: escape(&format!("{error:#}"), DETAIL_MAX_BYTES),
        })?;
        let kept = match &self.cache {
            Ok(cache) => cache.put(&facts.digest, &code).map_err(Some),
            Err(reason) => Err(reason.clone()),
        };
        if let Err(Some(reason)) = kept {
            progress(LoadStage::NotCached { reason });
        }
        Ok(component)
    }
}

/// The cache, or why there is none; no reason where none was asked for.
fn open_cache(config: &RuntimeConfig, engine: &Engine) -> Result<Result<Cache, Option<String>>, RuntimeError> {
    match &config.cache_dir {
        Some(dir) => Ok(Cache::open(dir, config.cache_key_dir.as_deref(), engine)?.map_err(Some)),
        None => Ok(Err(None)),
    }
}

/// The settings under which modules are compiled and run: the same in the host and in the process that compiles.
pub(crate) fn engine_config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Off first: it changes which features may be on.
        .concurrency_support(false)
        .wasm_features(FEATURES.complement(), false)
        .wasm_features(FEATURES, true)
        .relaxed_simd_deterministic(true)
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .parallel_compilation(true);
    config
}

/// Asks a throw-away instance what the module is.
fn describe(module: &Arc<ModuleInner>, facts: &ModuleFacts, limits: &Limits) -> Result<Declaration, LoadError> {
    let failed = |source| LoadError::Describe { digest: facts.digest.clone(), source };
    let limits = Arc::new(limits.clone());
    let Live { mut store, guest, migrate } = Live::new(module, None, &limits, &Arc::default()).map_err(failed)?;
    if let Some(migrate) = migrate {
        let unfit = |error: wasmtime::Error| LoadError::Link {
            digest: facts.digest.clone(),
            detail: escape(&format!("{error:#}"), DETAIL_MAX_BYTES),
        };
        migration::check(migrate, &store).map_err(unfit)?;
    }
    store.data_mut().begin_describe();
    begin_deadline(&mut store, &limits, 0);
    let running = module.epochs().call();
    let result = catch_unwind(AssertUnwindSafe(|| guest.sandbar_processor_processor().call_describe(&mut store)));
    drop(running);
    let complaint = store.data().log.end_call().last_complaint;
    let topology = result
        .map_err(|panic| failed(failure::host_panic(&*panic)))?
        .map_err(|error| failed(failure::classify(&error, &limits, complaint.as_deref())))?;
    Declaration::from_guest(topology).map_err(|faults| LoadError::Declaration { digest: facts.digest.clone(), faults })
}
