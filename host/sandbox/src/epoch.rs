//! The clock behind call deadlines: a thread that moves the engine's epoch forward once per millisecond while calls
//! run, and sleeps for good while none do. One epoch is one millisecond of wall-clock time, also when the thread was
//! late; but no more than a second when it was so late that the whole process must have stood still, guests and all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::Engine;

const TICK: Duration = Duration::from_millis(1);
/// Ticks without a call after which the thread sleeps until the next one; waking it costs a system call.
const IDLE_TICKS: u32 = 100;
/// Above this the thread was hardly late by what else the machine had to do: the process was stopped by a signal, or
/// its machine slept or was paused. No call has run meanwhile, so that none may be ended for it; no more than this
/// counts.
const STOOD_STILL: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Shared {
    running_calls: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// Owns the thread; dropping it ends the thread.
pub(crate) struct EpochThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Keeps the epoch moving while a call runs.
pub(crate) struct RunningCall<'a> {
    shared: &'a Shared,
}

impl EpochThread {
    pub fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("sandbox-epoch".to_owned()).stack_size(128 << 10);
        let thread = builder.spawn(move || run(&engine, &of_thread))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Announces a call. Cheap while calls follow one another.
    pub fn call(&self) -> RunningCall<'_> {
        // Sequentially consistent, as is the thread's side: either it sees the call or this sees it asleep.
        self.shared.running_calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        RunningCall { shared: &self.shared }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for EpochThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that guards call deadlines had panicked");
        }
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.shared.running_calls.fetch_sub(1, Ordering::SeqCst);
    }
}

fn run(engine: &Engine, shared: &Shared) {
    let mut last = Instant::now();
    let mut idle_ticks = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        std::thread::sleep(TICK);
        let (epochs, next) = epochs_due(last, Instant::now());
        (0..epochs).for_each(|_| engine.increment_epoch());
        last = next;
        if shared.running_calls.load(Ordering::SeqCst) != 0 {
            idle_ticks = 0;
            continue;
        }
        idle_ticks += 1;
        if idle_ticks >= IDLE_TICKS {
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.running_calls.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
                // One wake-up ends the sleep: the call that woke it may be over already, and more will follow.
                std::thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            // Time asleep belongs to no call.
            last = Instant::now();
            idle_ticks = 0;
        }
    }
}

/// How many epochs have begun since the last one did, and when the latest of them did.
fn epochs_due(last: Instant, now: Instant) -> (u32, Instant) {
    let passed = now.saturating_duration_since(last);
    if passed > STOOD_STILL {
        return (epochs_in(STOOD_STILL), now);
    }
    let epochs = epochs_in(passed);
    (epochs, last + TICK * epochs)
}

fn epochs_in(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
