//! The wish to stop: raised by a signal or by the host itself, seen by everything that waits. The first signal asks
//! for a clean end in whatever state the host is; the second ends the process at once. The wish that the process stops
//! is one that each of its applications does; the other way round it is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::{exit, terminal};

/// What the first signal is answered with.
pub const FAREWELL: &str = "stopping: committing and leaving the group; a second signal ends at once";

/// Shared by all who must stop. Once raised it stays so.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    raised: AtomicBool,
    /// Those that are raised with it. Whoever waits does so with this lock.
    below: Mutex<Vec<Weak<Shared>>>,
    changed: Condvar,
    watch: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        let shared = Shared {
            raised: AtomicBool::new(false),
            below: Mutex::default(),
            changed: Condvar::new(),
            watch: watch::Sender::new(false),
        };
        Self(Arc::new(shared))
    }
}

impl Stop {
    /// The wish that a part of it stops: raised with this one, and by itself without it.
    pub fn below(&self) -> Self {
        let part = Self::default();
        let mut below = self.0.below.lock().unwrap_or_else(PoisonError::into_inner);
        below.retain(|part| part.strong_count() > 0);
        below.push(Arc::downgrade(&part.0));
        drop(below);
        // After it was noted, so that one of the two sees the other.
        if self.is_raised() {
            part.raise();
        }
        part
    }

    pub fn raise(&self) {
        self.0.raise();
    }

    pub fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::Acquire)
    }

    /// Waits for at most `timeout`; true when the wish is there.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = self.0.below.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_raised() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = self.0.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn raise(&self) {
        let below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        self.raised.store(true, Ordering::Release);
        let parts: Vec<Arc<Self>> = below.iter().filter_map(Weak::upgrade).collect();
        drop(below);
        self.changed.notify_all();
        self.watch.send_replace(true);
        parts.iter().for_each(|part| part.raise());
    }
}

/// Listens to SIGTERM and SIGINT on the runtime; the first raises `stop` and says `farewell`.
///
/// # Errors
/// When the process cannot listen to signals.
pub fn on_signals(runtime: &tokio::runtime::Handle, stop: &Stop, farewell: &'static str) -> std::io::Result<()> {
    let _entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    runtime.spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                end_at_once();
            }
            terminal::tell(farewell);
            stop.raise();
        }
    });
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the user asked not to wait for anything")]
fn end_at_once() -> ! {
    std::process::exit(exit::SECOND_SIGNAL)
}

#[cfg(test)]
mod tests;
