//! Who may deploy: Ed25519 signatures over the digest of a module, and the public keys that a host trusts
//! (`module.trusted.keys`). Where a host has such keys, a module without a good signature never comes as far as the
//! compiler. Signs nothing.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;

use super::digest::ModuleDigest;
use crate::config::{ConfigError, Manifest};

const KEY: &str = "module.trusted.keys";
/// More than a public key in PEM or a signature has.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// What comes before the 32 bytes of an Ed25519 key in its usual form (`SubjectPublicKeyInfo`, RFC 8410).
const PUBLIC_KEY_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a module is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the signature is none of Ed25519: expected 64 bytes, or their base64, found {found}")]
    NoSignature { found: String },
    #[error("cannot read the signature {path}: {reason}")]
    Unreadable { path: String, reason: String },
    #[error(
        "the module {digest} has no signature, and {KEY} lets only signed modules run: put the signature of its sha-256 \
         beside it, in a file with .sig at the end of the name"
    )]
    Unsigned { digest: ModuleDigest },
    #[error(
        "the signature of the module {digest} is of none of the {keys} keys in {KEY}: either the module or the signature was \
         changed, or another key has signed it"
    )]
    Untrusted { digest: ModuleDigest, keys: usize },
}

/// A detached signature over the 32 bytes of a module's digest; base64 in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// The signature in the file beside a module: `vote.wasm.sig` for `vote.wasm`; `None` where there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or has something else in it.
    pub fn beside(module: &Path) -> Result<Option<Self>, SignatureError> {
        let mut path = module.as_os_str().to_owned();
        path.push(".sig");
        match read_bytes(Path::new(&path)) {
            Ok(bytes) => Self::read(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let path = Path::new(&path).display().to_string();
                Err(SignatureError::Unreadable { path, reason: error.to_string() })
            }
        }
    }

    /// Reads a signature as a file has it: the 64 bytes, or their base64.
    ///
    /// # Errors
    /// When it is neither.
    pub fn read(bytes: &[u8]) -> Result<Self, SignatureError> {
        if let Ok(raw) = bytes.try_into() {
            return Ok(Self(raw));
        }
        let decoded = STANDARD.decode(bytes.trim_ascii()).ok();
        let raw = decoded.and_then(|decoded| decoded.try_into().ok());
        raw.map(Self).ok_or_else(|| SignatureError::NoSignature { found: format!("{} other bytes", bytes.len()) })
    }
}

impl FromStr for Signature {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        Self::read(text.as_bytes())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// The keys of which one must have signed a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKeys(Vec<VerifyingKey>);

impl TrustedKeys {
    /// The keys of a host; `None` where it asks for no signatures.
    ///
    /// # Errors
    /// Names the first key that cannot be read.
    pub fn of(manifest: &Manifest) -> Result<Option<Self>, ConfigError> {
        let read = |text: &String| {
            let key = match key_of_text(text) {
                Some(key) => key,
                None => read_key(&manifest.path_at(KEY, text)),
            };
            key.map_err(|reason| manifest.fault_at(KEY, format!("{KEY}: {reason}")))
        };
        let keys = manifest.module_trusted_keys().iter().map(read).collect::<Result<Vec<VerifyingKey>, _>>()?;
        Ok(Some(keys).filter(|keys| !keys.is_empty()).map(Self))
    }

    /// Checks that one of the keys has signed this module.
    ///
    /// # Errors
    /// When there is no signature, or it is of no trusted key.
    pub fn verify(&self, digest: &ModuleDigest, signature: Option<&Signature>) -> Result<(), SignatureError> {
        let signature = signature.ok_or(SignatureError::Unsigned { digest: *digest })?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        // Strictly: a key or signature that many messages fit is none.
        let is_trusted = self.0.iter().any(|key| key.verify_strict(digest.bytes(), &signature).is_ok());
        if is_trusted { Ok(()) } else { Err(SignatureError::Untrusted { digest: *digest, keys: self.0.len() }) }
    }
}

/// A key that is written out; `None` for what is a path.
fn key_of_text(text: &str) -> Option<Result<VerifyingKey, String>> {
    let bytes = STANDARD.decode(text).ok()?;
    let key = bytes.strip_prefix(&PUBLIC_KEY_INFO).unwrap_or(&bytes);
    let key: [u8; 32] = key.try_into().ok()?;
    Some(
        VerifyingKey::from_bytes(&key).map_err(|_| format!("{text} is the base64 of 32 bytes that are no Ed25519 key")),
    )
}

/// A key in a file, as PEM or as its base64.
fn read_key(path: &Path) -> Result<VerifyingKey, String> {
    let shown = path.display();
    let bytes = read_bytes(path).map_err(|error| format!("cannot read the public key {shown}: {error}"))?;
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("PRIVATE KEY-----") {
        return Err(format!(
            "{shown} is a private key, which no host needs: make the public one with openssl pkey -pubout"
        ));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
    let expected =
        || format!("{shown} is no Ed25519 public key: expected PEM (openssl pkey -pubout), or 32 bytes in base64");
    key_of_text(&lines.collect::<String>()).unwrap_or_else(|| Err(expected()))
}

/// The bytes of a small file.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Before it is opened, since opening a pipe waits for somebody who writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
