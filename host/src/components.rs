//! Loads the module of an application: reads the file once, bounded, and hands those bytes to the sandbox, so that
//! what is checked is what runs; where the host trusts certain keys only, their signature comes first. Has it compiled
//! by a process of its own. Shows what takes long.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use sandbox::{
    ChildCompiler, CompileLimits, Compiler, Limits, LoadError, LoadStage, Module, Runtime, RuntimeConfig, RuntimeError,
};
use serde_json::json;

use crate::commands::COMPILE_MODULE;
use crate::exit::ModuleError;
use crate::terminal::Terminal;
use crate::versions::{ModuleDigest, Signature, SignatureError, TrustedKeys};

/// What loading needs to know.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// What the module is called in messages: its file, or the version that it is.
    pub name: String,
    pub cache_dir: PathBuf,
    pub module_max_bytes: usize,
    pub limits: Limits,
    pub compile_limits: CompileLimits,
    /// Becomes true when nobody waits for the module any more.
    pub given_up: Arc<AtomicBool>,
}

/// The sandbox of a process: one engine, and one thread behind its deadlines, for the modules of all applications.
#[derive(Default)]
pub struct Sandbox(Mutex<Option<Runtime>>);

impl Sandbox {
    /// A runtime on the engine of the process.
    fn runtime(&self, config: RuntimeConfig) -> Result<Runtime, RuntimeError> {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = match &mut *first {
            Some(runtime) => runtime,
            none => none.insert(Runtime::new(RuntimeConfig::default())?),
        };
        runtime.beside(config)
    }
}

/// This very program, also when another one lies at its path by now: its version is the one that fits.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Checks and compiles a module, or takes its compiled code from the cache.
///
/// # Errors
/// Names the module and why it was refused.
pub fn load(bytes: &[u8], request: &LoadRequest, sandbox: &Sandbox, terminal: Terminal) -> Result<Module> {
    let name = &request.name;
    let compiler = Compiler::Child(ChildCompiler {
        program: PathBuf::from(OWN_PROGRAM),
        arguments: vec![COMPILE_MODULE.to_owned()],
        limits: request.compile_limits,
        given_up: Arc::clone(&request.given_up),
    });
    let cache_dir = Some(request.cache_dir.clone());
    let cache_key_dir = user_state_dir(|name| std::env::var_os(name));
    let config = RuntimeConfig { cache_dir, cache_key_dir, module_max_bytes: request.module_max_bytes, compiler };
    let runtime = sandbox.runtime(config).context("cannot start the sandbox")?;
    let bar = terminal.bar("compiling the module", None);
    let mut stage = |stage: LoadStage| match stage {
        LoadStage::Compiling { size_bytes } => {
            let text = format!("compiling the module {name} ({size_bytes} bytes)");
            terminal.notice("compiling", &text, json!({ "bytes": size_bytes }));
        }
        LoadStage::NotCached { reason } => {
            let text = format!("the compiled module is not kept for the next start: {reason}");
            terminal.notice("not-cached", &text, json!({ "reason": reason }));
        }
        LoadStage::LoadedFromCache | LoadStage::Describing => {}
    };
    let loaded = runtime.load_with(bytes, &request.limits, &mut stage);
    bar.finish_and_clear();
    let module = loaded.with_context(|| format!("the module {name} was refused"))?;
    let text = format!("module {name} ({})", module.digest());
    let fields = json!({ "path": name, "digest": module.digest() });
    terminal.notice("module", &text, fields);
    Ok(module)
}

/// The file's bytes with the signature that lies beside it, checked over these bytes where the host trusts certain keys
/// only.
///
/// # Errors
/// As `read`, and when none of the keys has signed it.
pub fn read_signed(
    path: &Path,
    limit_bytes: usize,
    keys: Option<&TrustedKeys>,
) -> Result<(Vec<u8>, Option<Signature>)> {
    let bytes = read(path, limit_bytes)?;
    let refused = |error: SignatureError| ModuleError(format!("the module {} was refused: {error}", path.display()));
    let signature = Signature::beside(path).map_err(refused)?;
    if let Some(keys) = keys {
        keys.verify(&ModuleDigest::of(&bytes), signature.as_ref()).map_err(refused)?;
    }
    Ok((bytes, signature))
}

/// The user's own folder for what outlives projects, as the XDG base directory specification has it; a relative path
/// means nothing there. `None` where the user has no home.
fn user_state_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("sandbar"))
}

/// The file's bytes, at most one more than the limit: the sandbox says what is too much.
///
/// # Errors
/// When there is no such file, or it is too large.
pub fn read(path: &Path, limit_bytes: usize) -> Result<Vec<u8>> {
    let refused = |error: std::io::Error| {
        let path = path.display();
        ModuleError(match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("there is no module at {path}: make one with `sandbar build`, or correct the key module")
            }
            _ => format!("cannot read the module {path}: {error}"),
        })
    };
    // Before it is opened, since opening a pipe waits for somebody who writes to it.
    if !std::fs::metadata(path).map_err(refused)?.is_file() {
        let message = format!("the module {} is not a regular file; correct the key module", path.display());
        return Err(ModuleError(message).into());
    }
    let file = std::fs::File::open(path).map_err(refused)?;
    let found_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    if usize::try_from(found_bytes).unwrap_or(usize::MAX) > limit_bytes {
        let found_bytes = usize::try_from(found_bytes).unwrap_or(usize::MAX);
        let refused = LoadError::TooLarge { found_bytes, limit_bytes };
        return Err(anyhow!(refused).context(format!("the module {} was refused", path.display())));
    }
    let mut bytes = Vec::new();
    file.take(limit_bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read the module {}", path.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
