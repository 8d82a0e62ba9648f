//! Why a module was not loaded. What a message quotes of a module is escaped and cut where the error is made. Each
//! message names the module by its digest, what was expected, what was found and the cure; the caller adds the file it
//! read.

use std::path::PathBuf;

use engine::processor::ProcessorError;

/// Why [`crate::Runtime::load`] or [`crate::check`] refused a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error(
        "the module has {found_bytes} bytes, more than the limit of {limit_bytes} bytes; make it smaller or raise \
         module.max.bytes"
    )]
    TooLarge { found_bytes: usize, limit_bytes: usize },
    #[error("not a WebAssembly component: {found}; build one with `sandbar build`")]
    NotWasm { found: String },
    #[error(
        "module {digest} is a core WebAssembly module, not a component; build it with `sandbar build`, which makes the \
         component"
    )]
    CoreModule { digest: String },
    #[error("module {digest} is not a valid component: {detail}; build it again with `sandbar build`")]
    Malformed { digest: String, detail: String },
    #[error(
        "module {digest} would take too much to compile or to run: it has {what} of {found}, at most {limit} are \
         allowed; build it with optimisation, or split it"
    )]
    TooComplex { digest: String, what: &'static str, found: usize, limit: usize },
    #[error(
        "module {digest} is not a processor: it does not export {expected}, it exports {found}; implement the world \
         sandbar:processor/module"
    )]
    WrongWorld { digest: String, expected: &'static str, found: String },
    #[error(
        "module {digest} was built for {found}, this host runs {expected}; build it with the SDK of this version or \
         update the host"
    )]
    WrongVersion { digest: String, expected: &'static str, found: String },
    #[error("module {digest} imports {import}, which a module cannot have: {cure}")]
    UnknownImport { digest: String, import: String, cure: String },
    #[error("module {digest} does not fit sandbar:processor@0.1.0: {detail}; build it with the SDK of this version")]
    Link { digest: String, detail: String },
    #[error("module {digest} could not be compiled: {detail}")]
    Compile { digest: String, detail: String },
    /// The process that compiled it reached one of its limits.
    #[error(
        "module {digest} took too much to compile: {what} of {limit} exceeded; make it smaller, or raise the limit with \
         the key {key}"
    )]
    CompileLimit { digest: String, what: &'static str, limit: String, key: &'static str },
    /// No fault of the module: the process that compiles could not be started, or could not bound itself.
    #[error("module {digest} was not compiled, because {detail}")]
    Compiler { digest: String, detail: String },
    #[error("module {digest} could not say what it is (`describe`): {source}")]
    Describe { digest: String, source: ProcessorError },
    #[error("module {digest} declares an impossible topology: {}", faults.join("; "))]
    Declaration { digest: String, faults: Vec<String> },
}

/// Why [`crate::Runtime::new`] failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("the WebAssembly engine could not start: {detail}")]
    Engine { detail: String },
    #[error("the thread that guards call deadlines could not start: {0}")]
    Thread(std::io::Error),
    #[error("the folder for compiled code {}: {detail}", path.display())]
    Cache { path: PathBuf, detail: String },
}
