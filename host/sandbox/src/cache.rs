//! Compiled code on disk. Loads only what this host wrote: each file carries an HMAC over its place, its name and its
//! bytes; whatever does not fit is compiled anew and replaced (S11: wasmtime hardly checks compiled code, so a planted
//! file would be native code of a stranger). The key never lies beside what it protects: folders of a project travel,
//! and whoever can put code there could put a key there too. It is in a folder of the user's own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::check::hex;
use crate::error::RuntimeError;

const FOLDER: &str = "compiled";
const KEY_FILE: &str = "compiled-code.key";
const KEY_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
/// Block length of sha-256, which HMAC (RFC 2104) pads its key to.
const BLOCK_BYTES: usize = 64;

pub(crate) struct Cache {
    /// As the system sees it, without links.
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    /// The engine's settings and version, as wasmtime hashes them.
    engine: String,
}

impl Cache {
    /// Opens or makes the folder `compiled` below `dir`. The inner result says why nothing can be kept: without a key
    /// of the user's own, none is made elsewhere.
    pub fn open(dir: &Path, key_dir: Option<&Path>, engine: &Engine) -> Result<Result<Self, String>, RuntimeError> {
        let key = match key_dir {
            Some(folder) => key_of(folder),
            None => Err("there is no folder for its key: set HOME or XDG_STATE_HOME".to_owned()),
        };
        let key = match key {
            Ok(key) => key,
            Err(detail) => return Ok(Err(detail)),
        };
        let folder = dir.join(FOLDER);
        let failed = |path: &Path, detail: String| RuntimeError::Cache { path: path.to_owned(), detail };
        fs::create_dir_all(dir).map_err(|error| failed(dir, error.to_string()))?;
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&folder, error.to_string())),
            _ => {}
        }
        require_private(&folder).map_err(|detail| failed(&folder, detail))?;
        let folder = folder.canonicalize().map_err(|error| failed(&folder, error.to_string()))?;
        let mut hash = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hash);
        let engine = hex(&hash.0.finalize())[..16].to_owned();
        Ok(Ok(Self { folder, key, engine }))
    }

    /// The compiled code of a module, if it is there and is ours. Anything else counts as absent.
    pub fn get(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let name = self.name(digest);
        let path = self.folder.join(&name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code cannot be read; it is compiled anew");
                return None;
            }
        };
        let Some(code) = self.verified(&name, &bytes) else {
            tracing::warn!(path = %path.display(), "not written by this host; the module is compiled anew");
            return None;
        };
        match load::component(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled code does not fit; it is compiled anew");
                None
            }
        }
    }

    /// Keeps compiled code; the file appears whole or not at all.
    pub fn put(&self, digest: &str, code: &[u8]) -> Result<(), String> {
        // Two applications of a process may compile the same module at once.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let name = self.name(digest);
        let unique = format!("{name}.{}.{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let (path, scratch) = (self.folder.join(&name), self.folder.join(unique));
        let write = || -> Result<(), String> {
            let mut file = private_file(&scratch).map_err(|error| error.to_string())?;
            let mac = self.mac(&name, code);
            file.write_all(&mac).and_then(|()| file.write_all(code)).map_err(|error| error.to_string())?;
            fs::rename(&scratch, &path).map_err(|error| error.to_string())
        };
        write().map_err(|detail| {
            // The scratch file may not exist; what matters is the first error.
            let _ = fs::remove_file(&scratch);
            format!("compiled code cannot be kept in {}: {detail}", path.display())
        })
    }

    fn name(&self, digest: &str) -> String {
        format!("{digest}-{}.cwasm", self.engine)
    }

    fn verified<'a>(&self, name: &str, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, code) = bytes.split_at_checked(MAC_BYTES)?;
        equal(mac, &self.mac(name, code)).then_some(code)
    }

    /// HMAC-SHA256 over folder, name and code. The name is part of it, so that code of one module never passes for
    /// another's; so is the folder, since others may write into one of this user's folders and not into another.
    fn mac(&self, name: &str, code: &[u8]) -> [u8; MAC_BYTES] {
        let pad = |byte: u8| {
            let mut block = [byte; BLOCK_BYTES];
            block.iter_mut().zip(self.key).for_each(|(padded, key)| *padded ^= key);
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(self.folder.as_os_str().as_bytes());
        let inner = inner.chain_update([0]).chain_update(name).chain_update([0]).chain_update(code);
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner.finalize()).finalize().into()
    }
}

/// Compares without a hint of where the difference is.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

/// A real folder of our own user that nobody else can enter.
fn require_private(folder: &Path) -> Result<(), String> {
    let found = fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is not a folder; remove it".to_owned());
    }
    // The owner of this process's entry in /proc is its effective user.
    let own = fs::metadata("/proc/self").map_err(|error| format!("/proc/self: {error}"))?.uid();
    if found.uid() != own {
        return Err(format!("it belongs to the user {}, not to {own}; remove it", found.uid()));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("others can enter it (mode {mode:o}); remove it"));
    }
    Ok(())
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The key of the user, made on first use.
fn key_of(folder: &Path) -> Result<[u8; KEY_BYTES], String> {
    let failed = |detail: String| format!("the folder of its key, {}, cannot be used: {detail}", folder.display());
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(error.to_string()))?;
    require_private(folder).map_err(failed)?;
    read_or_make_key(&folder.join(KEY_FILE)).map_err(failed)
}

fn read_or_make_key(path: &Path) -> Result<[u8; KEY_BYTES], String> {
    // Of two hosts that start at once, one makes the file; a reader may then see it before it is full.
    for _ in 0..100 {
        match fs::read(path) {
            Ok(bytes) => match bytes.try_into() {
                Ok(key) => return Ok(key),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => make_key(path)?,
            Err(error) => return Err(format!("{KEY_FILE}: {error}")),
        }
    }
    Err(format!("{KEY_FILE} does not have {KEY_BYTES} bytes; remove it"))
}

fn make_key(path: &Path) -> Result<(), String> {
    let mut key = [0; KEY_BYTES];
    let random = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut key));
    random.map_err(|error| format!("/dev/urandom: {error}"))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file.write_all(&key).map_err(|error| format!("{KEY_FILE}: {error}")),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(format!("{KEY_FILE}: {error}")),
    }
}

/// Lets wasmtime's `Hash` feed a hash function that does not change between builds.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // Nobody asks: `Hash` only writes.
        0
    }
}

/// The one unsafe call of this crate.
pub(crate) mod load {
    use super::{Component, Engine};

    /// `code` must have passed `Cache::verified`, or have been compiled just now by `compiler::Compiler::compile`.
    pub fn component(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: these are bytes which `Engine::precompile_component` returned in this crate. Either they come out of
        // a file whose HMAC the caller checked with a key that only this host's user can read; or they were made for
        // the caller by this process, or by a child process of it that runs this program, wrote them into a pipe which
        // nobody else held, and ended with success. wasmtime itself refuses those of another version or setting.
        unsafe { Component::deserialize(engine, code) }
    }
}

#[cfg(test)]
mod tests;
