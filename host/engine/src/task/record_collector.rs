//! A task's outputs on their way to the producer: checks them as a whole before the first is sent (R18), chooses
//! their partitions, and keeps what the producer's queue has no room for. Gets the outputs of a call only after the
//! call has succeeded. Never commits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{ProducerRecord, SendError};
use crate::dead_letter::{DeadLetter, Form};
use crate::error::EngineError;
use crate::partitioner::partition_for_key;
use crate::processor::ProcessorError;
use crate::record::{Header, HeaderColumns, OutputBatch, Timestamp};
use crate::task::streams_producer::StreamsProducer;
use crate::topic_limits::{SinkLimits, TopicLimits, batch_bytes};
use crate::topology::{PartitionCounts, TaskId, Topology};

/// A topic that the task writes.
#[derive(Debug, Clone)]
struct Sink {
    name: Arc<str>,
    topic: Arc<str>,
    partitions: i32,
    limits: TopicLimits,
}

/// Outputs of one call that were checked but not all sent.
#[derive(Debug)]
struct Pending {
    outputs: OutputBatch,
    /// Records that are left out, ascending.
    dropped: Vec<usize>,
    /// All headers of the batch, in order.
    headers: Vec<Header>,
    next: usize,
    next_header: usize,
}

/// The header by which an output says which module made it, and how much of the digest that is.
const PROVENANCE_KEY: &[u8] = b"__sandbar.module";
const PROVENANCE_DIGITS: usize = 12;

/// More than such a header takes.
const PROVENANCE_MAX_BYTES: usize = PROVENANCE_KEY.len() + PROVENANCE_DIGITS + 8;

/// The outputs of one task.
#[derive(Debug)]
pub struct RecordCollector {
    task: TaskId,
    /// Comes after the headers of every output, where it is asked for.
    provenance: Option<Header>,
    /// The declared ones, then that of the dead letters.
    sinks: Vec<Sink>,
    declared: usize,
    pending: VecDeque<Pending>,
}

/// What the check of outputs found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Indexes of outputs that Kafka would refuse, ascending.
    pub refused: Vec<usize>,
    /// Why it would refuse the first of them.
    fault: String,
    too_large: bool,
}

impl Checked {
    /// What is wrong with the first that is refused.
    pub fn fault(&self) -> &str {
        &self.fault
    }

    /// As the failure of the call.
    pub fn into_error(self) -> ProcessorError {
        let others = match self.refused.len() {
            0 | 1 => String::new(),
            several => format!(" (and {} more of the call)", several - 1),
        };
        ProcessorError::Production { fault: format!("{}{others}", self.fault), too_large: self.too_large }
    }
}

impl RecordCollector {
    pub fn new(task: TaskId, topology: &Topology, counts: &PartitionCounts, limits: &SinkLimits) -> Self {
        let sink = |name: &Arc<str>, topic: &Arc<str>| Sink {
            name: name.clone(),
            topic: topic.clone(),
            partitions: counts.of(topic),
            limits: limits.of(topic),
        };
        let declared = topology.sub_topology(task.sub_topology).map_or(&[][..], |part| &part.sinks);
        let mut sinks: Vec<Sink> = declared.iter().map(|binding| sink(&binding.name, &binding.topic)).collect();
        sinks.extend(topology.dead_letter_topic.iter().map(|topic| sink(topic, topic)));
        Self { task, provenance: None, sinks, declared: declared.len(), pending: VecDeque::new() }
    }

    /// Has every output say which module made it, by the first digits of its digest.
    pub fn set_provenance(&mut self, digest: &str) {
        let digits = digest.get(..PROVENANCE_DIGITS).unwrap_or(digest);
        let value = Bytes::copy_from_slice(digits.as_bytes());
        self.provenance = Some(Header { key: Bytes::from_static(PROVENANCE_KEY), value: Some(value) });
    }

    /// The topics may say something else than at the start.
    pub fn set_limits(&mut self, limits: &SinkLimits) {
        self.sinks.iter_mut().for_each(|sink| sink.limits = limits.of(&sink.topic));
    }

    /// What a call's outputs are checked by, as settings: `sink.<name>.topic`, `.partitions`, and the topic's own.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        for sink in &self.sinks[..self.declared] {
            let mut set = |key: &str, value: String| settings.push((format!("sink.{}.{key}", sink.name), value));
            set("topic", sink.topic.to_string());
            set("partitions", sink.partitions.to_string());
            sink.limits.to_configs().into_iter().for_each(|(key, value)| set(key, value));
        }
        settings
    }

    /// Checks the outputs of a call: well-formed columns, known sinks, partitions that exist, timestamps from 0 on.
    /// The error says which record and what was expected. What keeps the contract is checked against the bounds of the
    /// topics.
    pub fn check(&self, outputs: &OutputBatch, wall_clock_ms: Timestamp) -> Result<Checked, String> {
        if outputs.is_empty() && outputs.keys.is_empty() && outputs.values.is_empty() {
            return Ok(Checked::default());
        }
        outputs.validate().map_err(|error| error.to_string())?;
        let sinks = &self.sinks[..self.declared];
        if sinks.is_empty() {
            return Err(format!("{} records were forwarded but the sub-topology declares no sink", outputs.len()));
        }
        let check_sink = |index: usize, sink: u32| match sinks.get(sink as usize) {
            Some(found) => Ok(found),
            None => {
                let names: Vec<&str> = sinks.iter().map(|sink| &*sink.name).collect();
                Err(format!(
                    "output {index} goes to sink {sink}, but the sinks are 0 to {}: {}",
                    names.len() - 1,
                    names.join(", ")
                ))
            }
        };
        for (index, &sink) in outputs.sinks.iter().enumerate() {
            check_sink(index, sink)?;
        }
        for (index, &partition) in outputs.partitions.iter().enumerate() {
            let sink = check_sink(index, outputs.sinks.get(index).copied().unwrap_or(0))?;
            if partition < -1 || partition >= sink.partitions {
                return Err(format!(
                    "output {index} goes to partition {partition} of {}, which has {}",
                    sink.topic, sink.partitions
                ));
            }
        }
        match outputs.timestamps.iter().position(|&timestamp| timestamp < 0) {
            Some(index) => Err(format!(
                "output {index} has the timestamp {}; expected milliseconds since the epoch, 0 or more",
                outputs.timestamps[index]
            )),
            None => Ok(self.check_limits(outputs, wall_clock_ms)),
        }
    }

    /// Which of the outputs their topics would refuse.
    fn check_limits(&self, outputs: &OutputBatch, wall_clock_ms: Timestamp) -> Checked {
        let mut checked = Checked::default();
        let headers = &outputs.headers;
        let provenance = self.provenance.as_ref().map_or(0, |_| PROVENANCE_MAX_BYTES);
        let parts = [&outputs.keys.bytes, &outputs.values.bytes, &headers.keys.bytes, &headers.values.bytes];
        /// More than the frame of a record takes beside its key, value and headers.
        const FRAME_BYTES: usize = 128;
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>() + FRAME_BYTES + 10 * headers.keys.len();
        let bytes = bytes + provenance * outputs.len();
        let oldest = outputs.timestamps.iter().min().copied().unwrap_or(wall_clock_ms);
        let newest = outputs.timestamps.iter().max().copied().unwrap_or(wall_clock_ms);
        let no_null_key = outputs.keys.nulls.is_empty();
        let sinks = &self.sinks[..self.declared];
        if sinks.iter().all(|sink| sink.limits.take_all(no_null_key, bytes, (oldest, newest), wall_clock_ms)) {
            return checked;
        }
        let all_headers = take_headers(&mut headers.clone());
        let mut next_header = 0;
        for index in 0..outputs.len() {
            let sink = &sinks[outputs.sinks.get(index).map_or(0, |&sink| sink as usize)];
            let count = headers.counts.get(index).map_or(0, |&count| count as usize);
            let own_headers = &all_headers[next_header..next_header + count];
            next_header += count;
            let key = outputs.keys.get(index);
            let bytes = batch_bytes(key, outputs.values.get(index), own_headers) + provenance;
            let timestamp = outputs.timestamps[index];
            if let Some(refusal) = sink.limits.refusal(key.is_some(), bytes, timestamp, wall_clock_ms) {
                if checked.refused.is_empty() {
                    checked.fault = format!("output {index} to {}: {}", sink.topic, refusal.fault);
                    checked.too_large = refusal.too_large;
                }
                checked.refused.push(index);
            }
        }
        checked
    }

    /// Sends outputs that were checked, after everything that is still pending, without those that are `dropped`
    /// (ascending).
    pub fn send(
        &mut self,
        outputs: OutputBatch,
        dropped: Vec<usize>,
        producer: &mut StreamsProducer,
    ) -> Result<(), EngineError> {
        if outputs.is_empty() {
            return Ok(());
        }
        let mut outputs = outputs;
        let mut headers = take_headers(&mut outputs.headers);
        if let Some(provenance) = &self.provenance {
            headers = with_provenance(headers, &mut outputs, provenance, self.declared);
        }
        self.pending.push_back(Pending { outputs, dropped, headers, next: 0, next_header: 0 });
        self.drain(producer).map(|_| ())
    }

    /// Sends a dead letter, after everything that is still pending; shorter where the topic takes no more.
    ///
    /// # Errors
    /// When there is no topic for dead letters, or when it does not take this one: nothing may be dropped instead.
    pub fn send_dead_letter(
        &mut self,
        letter: &DeadLetter<'_>,
        producer: &mut StreamsProducer,
    ) -> Result<(), EngineError> {
        let Some(sink) = self.sinks.get(self.declared) else {
            return Err(EngineError::NoDeadLetterTopic { task: self.task });
        };
        let mut fault = String::new();
        let now = !sink.limits.takes_timestamp(letter.timestamp(), letter.wall_clock_ms);
        for form in Form::ALL {
            let output = letter.to_output(self.declared as u32, form, now);
            let headers = take_headers(&mut output.headers.clone());
            let (key, value) = (output.keys.get(0), output.values.get(0));
            let bytes = batch_bytes(key, value, &headers);
            match sink.limits.refusal(key.is_some(), bytes, output.timestamps[0], letter.wall_clock_ms) {
                None => return self.send(output, Vec::new(), producer),
                Some(refusal) => fault = refusal.fault,
            }
        }
        let (task, subject, topic) = (self.task, letter.subject.to_string(), sink.topic.to_string());
        Err(EngineError::DeadLetterRefused { task, subject, topic, fault, error: Box::new(letter.error.clone()) })
    }

    /// Whether outputs wait for room in the producer's queue.
    pub fn is_full(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Drops what waits.
    pub fn abort(&mut self) {
        self.pending.clear();
    }

    /// Sends what is pending as far as the producer takes it; true when nothing is left. A full queue is
    /// backpressure, not an error.
    pub fn drain(&mut self, producer: &mut StreamsProducer) -> Result<bool, EngineError> {
        while let Some(pending) = self.pending.front_mut() {
            if !send_pending(&self.sinks, pending, producer, self.task)? {
                return Ok(false);
            }
            self.pending.pop_front();
        }
        Ok(true)
    }
}

/// Turns the columns into headers that share one buffer; the counts stay, to give each record its share.
fn take_headers(columns: &mut HeaderColumns) -> Vec<Header> {
    let (keys, values) = (std::mem::take(&mut columns.keys), std::mem::take(&mut columns.values));
    let (key_bytes, value_bytes) = (Bytes::from(keys.bytes), Bytes::from(values.bytes));
    let mut nulls = values.nulls.iter().peekable();
    let (mut key_start, mut value_start) = (0, 0);
    let mut headers = Vec::with_capacity(keys.ends.len());
    for (index, (&key_end, &value_end)) in keys.ends.iter().zip(&values.ends).enumerate() {
        let (key_end, value_end) = (key_end as usize, value_end as usize);
        let is_null = nulls.next_if(|&&null| null as usize == index).is_some();
        headers.push(Header {
            key: key_bytes.slice(key_start..key_end),
            value: (!is_null).then(|| value_bytes.slice(value_start..value_end)),
        });
        (key_start, value_start) = (key_end, value_end);
    }
    headers
}

/// The headers of a batch with that of the provenance behind those of each output to a declared sink. A dead letter
/// says more about the module by itself.
fn with_provenance(
    headers: Vec<Header>,
    outputs: &mut OutputBatch,
    provenance: &Header,
    declared: usize,
) -> Vec<Header> {
    outputs.headers.counts.resize(outputs.len(), 0);
    let mut all = Vec::with_capacity(headers.len() + outputs.len());
    let mut headers = headers.into_iter();
    for (index, count) in outputs.headers.counts.iter_mut().enumerate() {
        all.extend(headers.by_ref().take(*count as usize));
        if outputs.sinks.get(index).is_none_or(|&sink| (sink as usize) < declared) {
            all.push(provenance.clone());
            *count += 1;
        }
    }
    all
}

fn send_pending(
    sinks: &[Sink],
    pending: &mut Pending,
    producer: &mut StreamsProducer,
    task: TaskId,
) -> Result<bool, EngineError> {
    let Pending { outputs, dropped, headers, next, next_header } = pending;
    while *next < outputs.len() {
        let index = *next;
        if !dropped.is_empty() && dropped.binary_search(&index).is_ok() {
            *next += 1;
            *next_header += outputs.headers.counts.get(index).map_or(0, |&count| count as usize);
            continue;
        }
        let sink = &sinks[outputs.sinks.get(index).map_or(0, |&sink| sink as usize)];
        let header_count = outputs.headers.counts.get(index).map_or(0, |&count| count as usize);
        let key = outputs.keys.get(index);
        let partition = match outputs.partitions.get(index) {
            Some(&partition) if partition >= 0 => Some(partition),
            _ => key.map(|key| partition_for_key(key, sink.partitions)),
        };
        let record = ProducerRecord {
            topic: &sink.topic,
            partition,
            timestamp: outputs.timestamps[index],
            key,
            value: outputs.values.get(index),
            headers: &headers[*next_header..*next_header + header_count],
        };
        match send_once_more_when_full(producer, record) {
            Ok(()) => {}
            Err(SendError::QueueFull) => return Ok(false),
            Err(SendError::Failed(error)) => {
                return Err(EngineError::Send { task, topic: sink.topic.to_string(), error });
            }
        }
        *next += 1;
        *next_header += header_count;
    }
    Ok(true)
}

/// Sends a record; when the queue is full, makes room by serving delivery reports and tries once more.
pub(super) fn send_once_more_when_full(
    producer: &mut StreamsProducer,
    record: ProducerRecord<'_>,
) -> Result<(), SendError> {
    match producer.send(record) {
        Err(SendError::QueueFull) => {
            producer.poll(Duration::ZERO)?;
            producer.send(record)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
