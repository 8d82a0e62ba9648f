//! Makes what an application runs out of a module's bytes and a manifest: checked, compiled, bound to topics. Each load
//! is on a thread of its own, so that nobody who is told to stop waits for a compiler. Starts nothing that processes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use engine::error::EngineError;
use engine::processor::ProcessorSupplier;
use engine::topology::Topology;
use engine::version::ProcessorVersion;
use sandbox::SandboxSupplier;

use super::settings;
use super::spawn::spawn;
use super::stop::Stop;
use crate::app;
use crate::components::{self, LoadRequest, Sandbox};
use crate::config::Manifest;
use crate::terminal::Terminal;
use crate::versions::{ModuleDigest, Signature, TrustedKeys, VersionManifest};

/// wasmtime checks and compiles with the stack that it finds.
const STACK_BYTES: usize = 4 << 20;

/// A module with the manifest that it runs with.
pub struct Loaded {
    /// The host's own, with what belongs to the version.
    pub manifest: Manifest,
    pub tables: VersionManifest,
    pub digest: ModuleDigest,
    pub bytes: Bytes,
    /// The one that lies beside the module's file, as `<file>.sig`.
    pub signature: Option<Signature>,
    pub supplier: Arc<SandboxSupplier>,
}

impl Loaded {
    pub fn topology(&self) -> &Arc<Topology> {
        self.supplier.topology()
    }

    /// As a version of this number.
    pub fn version(&self, number: u64) -> Arc<ProcessorVersion> {
        let supplier: Arc<dyn ProcessorSupplier> = Arc::clone(&self.supplier) as _;
        ProcessorVersion::new(number, supplier, Arc::new(self.manifest.config.clone()))
    }
}

/// Loads the modules of one application.
pub struct Loader {
    sandbox: Arc<Sandbox>,
    stop: Stop,
    terminal: Terminal,
}

impl Loader {
    pub fn new(sandbox: &Arc<Sandbox>, stop: &Stop, terminal: Terminal) -> Self {
        Self { sandbox: Arc::clone(sandbox), stop: stop.clone(), terminal }
    }

    /// The module that a manifest names. `None` when the wish to stop came first.
    ///
    /// # Errors
    /// Names the file and why it was refused, or the key of the manifest that does not fit it.
    pub fn load_own(&self, manifest: &Manifest) -> Result<Option<Loaded>> {
        let path = manifest.path_of("module");
        let keys = TrustedKeys::of(manifest)?;
        let (bytes, signature) = components::read_signed(&path, module_max_bytes(manifest), keys.as_ref())?;
        let loaded = self.load(manifest, &path.display().to_string(), bytes.into())?;
        Ok(loaded.map(|loaded| Loaded { signature, ..loaded }))
    }

    /// A module by its bytes, which are checked as they are. `name` is for messages. `None` when the wish to stop came
    /// first.
    ///
    /// # Errors
    /// As `load_own`.
    pub fn load(&self, manifest: &Manifest, name: &str, bytes: Bytes) -> Result<Option<Loaded>> {
        let Some(module) = self.compile(manifest, name, &bytes)? else { return Ok(None) };
        let topology = Arc::new(app::bind(manifest, module.declaration())?);
        topology.validate(manifest.application_id()).map_err(EngineError::from)?;
        let supplier = module.supplier(topology, manifest.limits());
        let (digest, tables) = (ModuleDigest::of(&bytes), VersionManifest::of(manifest));
        Ok(Some(Loaded { manifest: manifest.clone(), tables, digest, bytes, signature: None, supplier }))
    }

    fn compile(&self, manifest: &Manifest, name: &str, bytes: &Bytes) -> Result<Option<sandbox::Module>> {
        let request = LoadRequest {
            name: name.to_owned(),
            cache_dir: settings::cache_dir(manifest),
            module_max_bytes: module_max_bytes(manifest),
            limits: manifest.limits(),
            compile_limits: settings::compile_limits(manifest),
            given_up: Arc::default(),
        };
        let given_up = Arc::clone(&request.given_up);
        let (sender, receiver) = channel();
        let (sandbox, terminal, bytes) = (Arc::clone(&self.sandbox), self.terminal, bytes.clone());
        let load = move || {
            // Nobody listens any more when the wish to stop came first.
            let _ = sender.send(components::load(&bytes, &request, &sandbox, terminal));
        };
        spawn("load", STACK_BYTES, load).context("cannot start a thread")?;
        loop {
            match receiver.recv_timeout(Duration::from_millis(20)) {
                Ok(loaded) => return loaded.map(Some),
                Err(RecvTimeoutError::Timeout) if self.stop.is_raised() => {
                    given_up.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the thread that loads the module ended early"),
            }
        }
    }
}

/// How large the module of a manifest may be.
pub(super) fn module_max_bytes(manifest: &Manifest) -> usize {
    usize::try_from(manifest.count("module.max.bytes")).unwrap_or(usize::MAX)
}
