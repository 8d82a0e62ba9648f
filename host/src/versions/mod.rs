//! The versions of an application: what each is (a module and the tables of the manifest that belong to it), who has
//! deployed it and where it stands, kept in the compacted topic `<application id>-sandbar-versions`, which is the truth
//! about them for every host. Decides nothing about when to deploy, and runs nothing.
//!
//! In its order: `VersionLog::open` reads the topic; `table()` says what is active and what there was; whoever deploys
//! makes a `Version`, moves it through its states and `append`s it with its module and with `Active`, by the revision
//! of the table that it has looked at; every other host sees it with its next `refresh()` and takes the bytes with
//! `module()`, checked against their digest. `TrustedKeys` says whether a host may run them.
//!
//! Keys of the topic, all in UTF-8: `module/<sha-256>/<index>` (a part of a module), `module/<sha-256>` (its size),
//! `version/<number>` and `active` (JSON). Modules of versions other than the active one, the one before it and the
//! newest ten are deleted with the next deploy; the versions themselves stay.

mod append;
mod digest;
mod key;
mod log;
mod manifest;
mod modules;
mod signature;
mod state;
mod table;
mod topic;
mod version;

pub use append::{AppendError, Entry};
pub use digest::ModuleDigest;
pub use log::{LogError, VersionLog, VersionLogOptions};
pub use manifest::VersionManifest;
pub use signature::{Signature, SignatureError, TrustedKeys};
pub use state::VersionState;
pub use table::{Revision, VersionTable};
pub use version::{Active, ChangeKind, NewVersion, Version};
