//! Stream threads as OS threads: each drives its `StreamThread` until the wish to stop, then closes it clean. One
//! that fails, or panics, stops the others; what it had not committed is not committed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use engine::error::EngineError;
use engine::stream_thread::{CloseMode, StreamThread, StreamThreadOptions};

use super::spawn::spawn;
use super::stop::Stop;

/// wasmtime needs 2 MiB below a call; RocksDB and we get the same again.
const STACK_BYTES: usize = 4 << 20;

/// How a stream thread ended.
#[derive(Debug)]
struct Ended {
    thread: usize,
    result: Result<()>,
}

/// The running stream threads.
pub struct StreamThreads {
    handles: Vec<JoinHandle<()>>,
    receiver: Receiver<Ended>,
    running: usize,
    stop: Stop,
    /// What is not committed is to be dropped.
    abandoned: Arc<AtomicBool>,
    failure: Option<anyhow::Error>,
}

impl StreamThreads {
    /// Starts a thread for each of the options.
    ///
    /// # Errors
    /// When the machine gives no thread; those already running are told to stop.
    pub fn start(options: Vec<StreamThreadOptions>, stop: &Stop) -> Result<Self> {
        let (sender, receiver) = channel();
        let abandoned = Arc::new(AtomicBool::new(false));
        let mut threads = Self {
            handles: Vec::new(),
            receiver,
            running: 0,
            stop: stop.clone(),
            abandoned: Arc::clone(&abandoned),
            failure: None,
        };
        for options in options {
            let (sender, stop, abandoned) = (sender.clone(), stop.clone(), Arc::clone(&abandoned));
            let name = format!("stream-{}", options.thread);
            let handle = spawn(name, STACK_BYTES, move || run(options, &stop, &abandoned, &sender))
                .inspect_err(|_| threads.stop.raise())
                .context("cannot start a stream thread")?;
            threads.handles.push(handle);
            threads.running += 1;
        }
        Ok(threads)
    }

    /// Waits for at most `timeout`; true while a thread is running. A failure raises the wish to stop.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.running > 0 {
            match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(ended) => self.note(ended),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => {
                    self.running = 0;
                    self.fail(anyhow!("a stream thread ended without a word"));
                }
            }
        }
        false
    }

    /// Stops the threads because of a fault that they do not see; what they have not committed is dropped.
    pub fn abandon(&mut self, error: anyhow::Error) {
        self.abandoned.store(true, Ordering::Release);
        self.fail(error);
    }

    /// Gives the failure, if there is one, its reason instead.
    pub fn explain(&mut self, reason: anyhow::Error) {
        if let Some(failure) = self.failure.replace(reason) {
            tracing::error!("{failure:#}");
        }
    }

    /// The first failure, once all threads have ended or given up waiting for them.
    pub fn finish(mut self) -> Result<()> {
        if self.running == 0 {
            for handle in self.handles.drain(..) {
                // A panic was caught inside and reported; there is nothing more in the handle.
                let _ = handle.join();
            }
        }
        self.failure.map_or(Ok(()), Err)
    }

    pub fn running(&self) -> usize {
        self.running
    }

    pub fn failure(&self) -> Option<&anyhow::Error> {
        self.failure.as_ref()
    }

    fn note(&mut self, ended: Ended) {
        self.running -= 1;
        match ended.result {
            Err(error) => self.fail(error.context(format!("stream thread {} failed", ended.thread))),
            Ok(()) if !self.stop.is_raised() => self.fail(anyhow!("stream thread {} ended by itself", ended.thread)),
            Ok(()) => {}
        }
    }

    fn fail(&mut self, error: anyhow::Error) {
        self.stop.raise();
        if self.failure.is_some() {
            tracing::error!("{error:#}");
        }
        self.failure.get_or_insert(error);
    }
}

fn run(options: StreamThreadOptions, stop: &Stop, abandoned: &AtomicBool, sender: &Sender<Ended>) {
    let thread = options.thread;
    // Everything that the closure touches dies with it, so nothing half-done is seen afterwards.
    let result = match catch_unwind(AssertUnwindSafe(|| drive(options, stop, abandoned))) {
        Ok(result) => result.map_err(anyhow::Error::from),
        Err(panic) => Err(anyhow!("it panicked, which is a defect of the host: {}", panic_text(panic.as_ref()))),
    };
    // Nobody listens any more when the process is leaving.
    let _ = sender.send(Ended { thread, result });
}

fn drive(options: StreamThreadOptions, stop: &Stop, abandoned: &AtomicBool) -> Result<(), EngineError> {
    let mut thread = StreamThread::new(options)?;
    while !stop.is_raised() {
        match thread.run_once() {
            Ok(turn) if turn.wait_ms > 0 => {
                stop.wait(Duration::from_millis(turn.wait_ms));
            }
            Ok(_) => {}
            Err(error) => {
                if let Err(closing) = thread.close(CloseMode::Dirty) {
                    tracing::error!(error = %closing, "closing after a failure failed too");
                }
                return Err(error);
            }
        }
    }
    thread.close(if abandoned.load(Ordering::Acquire) { CloseMode::Dirty } else { CloseMode::Clean })
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
