//! What a module may call, one file per interface. Every function counts itself against the call's budget, checks what
//! the guest handed it before the engine sees it, and returns an error (which ends the call) rather than a default.

mod context;
mod log;
mod state;
pub(crate) mod wasi;

use wasmtime::component::{HasSelf, Linker};

use crate::bindings;
use crate::task_state::TaskState;

/// A linker with everything a module may import.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<TaskState>> {
    let mut linker = Linker::new(engine);
    bindings::types::add_to_linker::<TaskState, HasSelf<TaskState>>(&mut linker, |state| state)?;
    bindings::state::add_to_linker::<TaskState, HasSelf<TaskState>>(&mut linker, |state| state)?;
    bindings::context::add_to_linker::<TaskState, HasSelf<TaskState>>(&mut linker, |state| state)?;
    bindings::log::add_to_linker::<TaskState, HasSelf<TaskState>>(&mut linker, |state| state)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

impl bindings::types::Host for TaskState {}
