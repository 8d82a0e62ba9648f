//! Signatures: what is trusted, what is not, and how keys are written.

use std::path::PathBuf;

use ed25519_dalek::{Signer, SigningKey};

use super::*;
use crate::config::Overrides;

/// A key and its signature of the module `a module`, made by openssl with the commands of the documentation.
const BY_OPENSSL: (&str, &str) = (
    "MCowBQYDK2VwAyEAJjl0rymwY8I+rMk5OhvHoLd9JOJLazljYlF8OpKFeH0=",
    "KOtPPsMU/iMYGBX0ES9pGVmRixGKqV9z02sCC/um/oz4wbGvZOCa9HapyvflMvEIJrzCmJ3inxV+8j8zRcfcDA==",
);

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn sign(key: &SigningKey, digest: &ModuleDigest) -> Signature {
    Signature(key.sign(digest.bytes()).to_bytes())
}

fn text_of(key: &SigningKey) -> String {
    STANDARD.encode(key.verifying_key().to_bytes())
}

fn pem_of(key: &SigningKey) -> String {
    let info = [&PUBLIC_KEY_INFO[..], &key.verifying_key().to_bytes()].concat();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(info))
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sandbar-signature-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn keys_at(folder: &Path, line: &str) -> Result<Option<TrustedKeys>, String> {
    let text = format!("application.id = \"vote\"\nmodule = \"vote.wasm\"\n{line}\n");
    let manifest = Manifest::parse(&folder.join("sandbar.toml"), &text, &Overrides::default());
    manifest.and_then(|manifest| TrustedKeys::of(&manifest)).map_err(|error| error.to_string())
}

fn keys(line: &str) -> Result<Option<TrustedKeys>, String> {
    keys_at(Path::new("."), line)
}

#[test]
fn a_module_is_trusted_by_any_key_that_has_signed_it_and_by_nothing_else() {
    let digest = ModuleDigest::of(b"a module");
    let (first, second, other) = (signing(1), signing(2), signing(3));
    let line = format!("\"module.trusted.keys\" = \"{}, {}\"", text_of(&first), text_of(&second));
    let trusted = keys(&line).expect("keys").expect("some");
    for key in [&first, &second] {
        assert_eq!(trusted.verify(&digest, Some(&sign(key, &digest))), Ok(()));
    }
    let untrusted = Err(SignatureError::Untrusted { digest, keys: 2 });
    assert_eq!(trusted.verify(&digest, Some(&sign(&other, &digest))), untrusted);
    assert_eq!(trusted.verify(&digest, Some(&sign(&first, &ModuleDigest::of(b"another")))), untrusted);
    let good = sign(&first, &digest);
    for at in 0..64 {
        let mut changed = good;
        changed.0[at] ^= 1;
        assert_eq!(trusted.verify(&digest, Some(&changed)), untrusted, "byte {at}");
    }
    assert_eq!(trusted.verify(&digest, None), Err(SignatureError::Unsigned { digest }));
}

#[test]
fn what_openssl_signs_is_trusted() {
    let (key, signature) = BY_OPENSSL;
    let trusted = keys(&format!("\"module.trusted.keys\" = \"{key}\"")).expect("keys").expect("some");
    let signature = signature.parse().expect("a signature");
    assert_eq!(trusted.verify(&ModuleDigest::of(b"a module"), Some(&signature)), Ok(()));
    assert!(trusted.verify(&ModuleDigest::of(b"a module!"), Some(&signature)).is_err());
}

#[test]
fn a_weak_key_that_everything_fits_is_not_trusted() {
    // The neutral element: with it, an all but empty signature fits every message under the lenient rules.
    let mut point = [0; 32];
    point[0] = 1;
    let weak = STANDARD.encode(point);
    let mut signature = Signature([0; 64]);
    signature.0[0] = 1;
    if let Ok(Some(trusted)) = keys(&format!("\"module.trusted.keys\" = \"{weak}\"")) {
        assert!(trusted.verify(&ModuleDigest::of(b"a module"), Some(&signature)).is_err());
    }
}

#[test]
fn a_signature_is_64_bytes_or_their_base64() {
    let signature = sign(&signing(1), &ModuleDigest::of(b"a module"));
    assert_eq!(Signature::read(&signature.0), Ok(signature));
    assert_eq!(Signature::read(format!(" {signature}\n").as_bytes()), Ok(signature));
    assert_eq!(signature.to_string().parse(), Ok(signature));
    for wrong in [&b""[..], b"AAAA", &[7; 63], &[7; 65], b"-----BEGIN"] {
        let error = Signature::read(wrong).expect_err("none");
        assert!(error.to_string().contains(&format!("found {} other bytes", wrong.len())), "{error}");
    }
}

#[test]
fn keys_are_files_or_base64_and_start_at_the_manifest() {
    let folder = folder("files");
    std::fs::write(folder.join("release.pem"), pem_of(&signing(1))).expect("written");
    std::fs::write(folder.join("raw"), format!("{}\n", text_of(&signing(2)))).expect("written");
    let found = keys_at(
        &folder,
        &format!("\"module.trusted.keys\" = [\"release.pem\", \"raw\", \"{}\"]", text_of(&signing(3))),
    );
    let expected = TrustedKeys([1, 2, 3].map(|seed| signing(seed).verifying_key()).to_vec());
    assert_eq!(found, Ok(Some(expected)));
    assert_eq!(keys(""), Ok(None));
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_key_that_cannot_be_read_is_an_error_that_names_it() {
    let folder = folder("faults");
    let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n";
    std::fs::write(folder.join("private.pem"), private).expect("written");
    std::fs::write(folder.join("other.pem"), "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n")
        .expect("written");
    for (line, expected) in [
        (
            "\"module.trusted.keys\" = \"missing.pem\"",
            "sandbar.toml:3:1: module.trusted.keys: cannot read the public key",
        ),
        ("\"module.trusted.keys\" = \"private.pem\"", "private.pem is a private key, which no host needs"),
        ("\"module.trusted.keys\" = \"other.pem\"", "other.pem is no Ed25519 public key"),
        ("\"module.trusted.keys\" = \".\"", "it is not a regular file"),
        ("\"module.trusted.keys\" = []", "expected paths of public keys, or keys in base64"),
        ("\"module.trusted.keys\" = \"a,,b\"", "expected paths of public keys, or keys in base64"),
        ("\"module.trusted.keys\" = 3", "expected paths of public keys, or keys in base64"),
    ] {
        let message = keys_at(&folder, line).expect_err("it is refused");
        assert!(message.contains(expected), "{line}\n{message}");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}
