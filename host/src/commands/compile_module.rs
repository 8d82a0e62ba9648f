//! `sandbar compile-module`: the process in which a host has a module compiled. Not for people: it bounds itself, reads
//! a module from standard input and writes compiled code, which only the host that started it takes.

use anyhow::{Result, anyhow};
use sandbox::CompileLimits;

/// The name of the command; `clap` makes the same one of the enum's case.
pub const COMPILE_MODULE: &str = "compile-module";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    cpu_max_seconds: u64,

    #[arg(long)]
    memory_max_bytes: u64,

    /// The host, with which this process ends.
    #[arg(long)]
    parent_process_id: Option<u32>,
}

/// Compiles one module.
///
/// # Errors
/// What kept it from its work; a module that is refused is an answer.
pub fn run(arguments: &Arguments) -> Result<()> {
    let &Arguments { cpu_max_seconds, memory_max_bytes, parent_process_id } = arguments;
    let limits = CompileLimits { cpu_max_seconds, memory_max_bytes };
    sandbox::serve_compilation(&limits, parent_process_id).map_err(|detail| anyhow!(detail))
}
