//! The child's side of compiling: bounds its own process first, then reads a module from standard input and writes what
//! became of it to standard output, with one byte at the end that says what it is. Runs no guest code and keeps no
//! file.

use std::io::{Read, Write};

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};

use super::CompileLimits;
use crate::check::validate_code;
use crate::runtime::engine_config;

/// The last byte of an answer. It comes last, so that a child which dies half-way leaves no answer.
pub(super) const CODE: u8 = 1;
/// Words on why the module is not valid.
pub(super) const MALFORMED: u8 = 2;
/// Words on why the compiler refused it.
pub(super) const REFUSED: u8 = 3;

/// Compiles one module from standard input to standard output, for the host that started this process. Bounds the CPU
/// time and the memory of this process for good; a process that passes a bound is ended by the system. Ends with the
/// thread that started it where `parent_process_id` names its process: nobody is left to read the answer.
///
/// # Errors
/// What kept this process from doing its work, as a sentence. A module that is refused is none.
pub fn serve_compilation(limits: &CompileLimits, parent_process_id: Option<u32>) -> Result<(), String> {
    if let Some(parent) = parent_process_id {
        end_with(parent)?;
    }
    bound(limits)?;
    let mut module = Vec::new();
    std::io::stdin().lock().read_to_end(&mut module).map_err(|error| format!("cannot read the module: {error}"))?;
    let (kind, mut answer) = compiled(&module)?;
    answer.push(kind);
    let mut output = std::io::stdout().lock();
    output
        .write_all(&answer)
        .and_then(|()| output.flush())
        .map_err(|error| format!("cannot hand over the compiled module: {error}"))
}

fn compiled(module: &[u8]) -> Result<(u8, Vec<u8>), String> {
    // Our own validator first: its messages name the place in the file.
    if let Err(detail) = validate_code(module) {
        return Ok((MALFORMED, detail.into_bytes()));
    }
    let engine = wasmtime::Engine::new(&engine_config()).map_err(|error| format!("cannot start: {error:#}"))?;
    match engine.precompile_component(module) {
        Ok(code) => Ok((CODE, code)),
        Err(error) => Ok((REFUSED, format!("{error:#}").into_bytes())),
    }
}

/// Has the system kill this process when its parent has ended, now or before it got here.
fn end_with(parent: u32) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot tie itself to the host that started it: {error}"))?;
    let found = getppid().map(Pid::as_raw_nonzero).map_or(0, |id| id.get().unsigned_abs());
    if found != parent {
        return Err(format!("the host that started it, process {parent}, has ended"));
    }
    Ok(())
}

/// Bounds this process: CPU time, memory, no files, no core dumps.
fn bound(limits: &CompileLimits) -> Result<(), String> {
    let memory = own_address_space()?.saturating_add(limits.memory_max_bytes);
    let cpu = limits.cpu_max_seconds;
    // The signal comes at the first bound; the second one kills whoever ignores it.
    for (name, resource, soft, hard) in [
        ("CPU time", Resource::Cpu, cpu, cpu.saturating_add(1)),
        ("memory", Resource::As, memory, memory),
        ("the size of files", Resource::Fsize, 0, 0),
        ("core dumps", Resource::Core, 0, 0),
    ] {
        // What the system allows this process may be less already.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit { current: Some(soft.min(most)), maximum: Some(hard.min(most)) };
        setrlimit(resource, limit).map_err(|error| format!("cannot bound its {name}: {error}"))?;
    }
    Ok(())
}

/// What the program itself takes, in bytes.
fn own_address_space() -> Result<u64, String> {
    const FILE: &str = "/proc/self/statm";
    let text = std::fs::read_to_string(FILE).map_err(|error| format!("cannot read {FILE}: {error}"))?;
    let pages: Option<u64> = text.split(' ').next().and_then(|pages| pages.parse().ok());
    let pages = pages.ok_or_else(|| format!("{FILE} does not begin with a number"))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}
