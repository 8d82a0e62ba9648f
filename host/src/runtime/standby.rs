//! The standby thread as an OS thread: drives the engine's `StandbyThread` until the wish to stop. One that fails or
//! panics is made anew after a pause and never stops the application: nothing depends on a warm copy.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use engine::metrics::Metric;
use engine::standby::{StandbyThread, StandbyThreadOptions};
use engine::stream_thread::CloseMode;

use super::spawn::spawn;
use super::stop::Stop;
use super::threads::panic_text;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// RocksDB and we.
const STACK_BYTES: usize = 2 << 20;

/// A running standby thread.
pub struct Standby {
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Standby {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn start(options: StandbyThreadOptions, stop: &Stop) -> Result<Self> {
        let (sender, ended) = channel();
        let stop = stop.clone();
        spawn("standby", STACK_BYTES, move || run(&options, &stop, sender))
            .context("cannot start the standby thread")?;
        Ok(Self { ended })
    }

    /// Waits for its end, which the wish to stop brings; for at most `timeout`. What it has not flushed by then is read
    /// again at the next start.
    pub fn wait(&self, timeout: Duration) {
        // Nobody sends: the wait ends with the thread.
        if self.ended.recv_timeout(timeout) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the standby thread does not end; it is left behind");
        }
    }
}

fn run(options: &StandbyThreadOptions, stop: &Stop, _ended: Sender<()>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        // Everything that the closure touches dies with it, so nothing half-done is seen afterwards.
        let error = match catch_unwind(AssertUnwindSafe(|| drive(options, stop, &mut backoff))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("it panicked, which is a defect of the host: {}", panic_text(panic.as_ref())),
        };
        tracing::warn!(error, ?backoff, "the standby thread failed and is made anew");
        options.report.publish_failure(error);
        options.metrics.set(Metric::StandbyTasks, 0);
        if stop.wait(backoff) {
            return;
        }
        backoff = (2 * backoff).min(BACKOFF_MAX);
    }
}

fn drive(options: &StandbyThreadOptions, stop: &Stop, backoff: &mut Duration) -> Result<()> {
    let mut thread = StandbyThread::new(options.clone())?;
    while !stop.is_raised() {
        let turn = thread.run_once()?;
        if turn.records > 0 {
            *backoff = BACKOFF_MIN;
        }
        if turn.wait_ms > 0 {
            stop.wait(Duration::from_millis(turn.wait_ms));
        }
    }
    thread.close(CloseMode::Clean);
    Ok(())
}
