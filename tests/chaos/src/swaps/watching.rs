//! What is looked at while a campaign of swaps runs: the outputs, as any reader of committed records sees them, and
//! what hosts say of their tasks. Keeps all of it for the judge.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::message::{BorrowedMessage, Message};

use super::deploying::tasks;
use super::judge::{Output, Shown};
use crate::asking::{Asker, Directory};
use crate::checker::{ByPartition, LogEnd};
use crate::clients::Reader;

/// How often the hosts are asked.
const TURN: Duration = Duration::from_millis(40);

/// An output as a reader finds it.
///
/// # Errors
/// When it is none.
pub fn parse_output(record: &BorrowedMessage<'_>) -> Result<Output> {
    let (key, value) = (record.key().unwrap_or_default(), record.payload().unwrap_or_default());
    let appended_ms = record.timestamp().to_millis().unwrap_or(-1);
    Output::parse(record.offset(), appended_ms, key, value)
        .with_context(|| format!("{}-{} offset {}", record.topic(), record.partition(), record.offset()))
}

/// A `read_committed` reader of the outputs on a thread of its own.
pub struct Witness {
    ends: Sender<Vec<LogEnd>>,
    thread: JoinHandle<Result<ByPartition<Output>>>,
}

impl Witness {
    /// # Errors
    /// When the client cannot be made.
    pub fn start(bootstrap: &str, topic: String, partitions: u32) -> Result<Self> {
        let mut reader = Reader::new(bootstrap, &[topic], partitions)?;
        let (ends, receiver) = channel::<Vec<LogEnd>>();
        let thread = thread::spawn(move || {
            let mut seen: ByPartition<Output> = vec![Vec::new(); partitions as usize];
            let mut add = |_: usize, record: &BorrowedMessage<'_>| {
                seen[usize::try_from(record.partition())?].push(parse_output(record)?);
                Ok(())
            };
            loop {
                match receiver.try_recv() {
                    Ok(ends) => {
                        reader.read_to_end(&ends, &mut add)?;
                        return Ok(seen);
                    }
                    Err(TryRecvError::Disconnected) => return Ok(seen),
                    Err(TryRecvError::Empty) => reader.read(Duration::from_millis(100), &mut add)?,
                }
            }
        });
        Ok(Self { ends, thread })
    }

    /// Has it read to these ends, and gives what it saw.
    ///
    /// # Errors
    /// When it failed on the way, or does not come to the ends.
    pub fn finish(self, ends: &[LogEnd]) -> Result<ByPartition<Output>> {
        // It has ended early only with an error, which comes below.
        let _ = self.ends.send(ends.to_vec());
        self.thread.join().map_err(|_| anyhow!("the witness panicked"))?
    }
}

/// Asks all hosts for their tasks, again and again.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Shown>>,
}

impl Sampler {
    pub fn start(application_id: &str, directory: Directory) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        // The tasks of a host are the same in its answers on all versions.
        let path = format!("/v1/apps/{application_id}/versions/1");
        let thread = thread::spawn(move || {
            let (mut asker, mut shown) = (Asker::default(), BTreeSet::new());
            while !stopped.load(Ordering::Relaxed) {
                for address in directory.all() {
                    let answer = asker.get(address, &path);
                    shown.extend(tasks(&answer.document).into_iter().flat_map(|task| task.partitions));
                }
                thread::sleep(TURN);
            }
            shown
        });
        Self { stop, thread }
    }

    /// Ends it, and gives every word of a host once.
    ///
    /// # Errors
    /// When it ended before.
    pub fn finish(self) -> Result<Vec<Shown>> {
        self.stop.store(true, Ordering::Relaxed);
        let shown = self.thread.join().map_err(|_| anyhow!("the sampler panicked"))?;
        Ok(shown.into_iter().collect())
    }
}
