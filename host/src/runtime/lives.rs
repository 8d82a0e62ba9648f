//! The lives of applications: each is run on a thread of its own, so that none waits for the start of another, and its
//! end is told. A failure or a panic is that of its application. Knows nothing of why one is started or how the process
//! ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::application::Application;
use super::status::Phase;
use super::threads::panic_text;
use crate::terminal;

/// As a process's first thread has.
const STACK_BYTES: usize = 8 << 20;

/// An application whose life is over, and what it failed of.
pub type Ended = (Arc<Application>, Result<()>);

/// Begins the life of an application. The failure of one that `is_alone` is that of the process; of another it is told
/// here. The end goes to `ended`.
pub fn begin(application: Arc<Application>, is_alone: bool, ended: &Sender<Ended>) {
    let of_thread = Arc::clone(&application);
    let life = {
        let ended = ended.clone();
        move || {
            let result = if is_alone { run_one(&of_thread) } else { run_beside_others(&of_thread) };
            // It is received as long as one of them runs.
            let _ = ended.send((of_thread, result));
        }
    };
    let spawned = std::thread::Builder::new().name("application".to_owned()).stack_size(STACK_BYTES).spawn(life);
    if let Err(error) = spawned {
        let error = anyhow!(error).context("cannot start the thread of the application");
        application.status.set_phase(Phase::Failed(format!("{error:#}")));
        application.shared.idle.withdraw(application.place);
        let _ = ended.send((application, Err(error)));
    }
}

/// The life of an application, with its failure in its status. A panic is one of them.
fn run_one(application: &Application) -> Result<()> {
    let result = caught(|| application.run());
    application.status.set_phase(match &result {
        Ok(()) => Phase::Stopped,
        Err(error) => Phase::Failed(format!("{error:#}")),
    });
    // What of it still waits, such as the thread of its writes, need not wait for the others.
    application.stop.raise();
    application.shared.idle.withdraw(application.place);
    result
}

/// As `run_one`, for one whose failure is not that of the process: tells of it, and lets go of what it held.
fn run_beside_others(application: &Application) -> Result<()> {
    let _entered = tracing::error_span!("app", id = application.manifest.application_id()).entered();
    let result = run_one(application);
    if let Err(error) = &result {
        application.status.release();
        let causes = terminal::causes(error);
        let text = format!("ERRORED: {}", causes.join(": "));
        application.terminal.notice("errored", &text, json!({ "error": causes[0], "causes": causes[1..] }));
    }
    result
}

/// Turns a panic into an error.
fn caught(life: impl FnOnce() -> Result<()>) -> Result<()> {
    // What the closure touches ends with it, or is a plain value behind a lock.
    catch_unwind(AssertUnwindSafe(life)).unwrap_or_else(|panic| {
        Err(anyhow!("it panicked, which is a defect of the host: {}", panic_text(panic.as_ref())))
    })
}

#[cfg(test)]
mod tests;
