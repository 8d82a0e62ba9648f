//! A task's outputs on their way to the producer: checks them as a whole before the first is sent (R18), chooses
//! their partitions, and keeps what the producer's queue has no room for. Gets the outputs of a call only after the
//! call has succeeded. Never commits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::broker::{ProducerRecord, SendError};
use crate::error::EngineError;
use crate::partitioner::partition_for_key;
use crate::record::{Header, HeaderColumns, OutputBatch};
use crate::task::streams_producer::StreamsProducer;
use crate::topology::{PartitionCounts, SubTopology, TaskId};

/// A topic that the task writes.
#[derive(Debug, Clone)]
struct Sink {
    name: Arc<str>,
    topic: Arc<str>,
    partitions: i32,
}

/// Outputs of one call that were checked but not all sent.
#[derive(Debug)]
struct Pending {
    outputs: OutputBatch,
    /// All headers of the batch, in order.
    headers: Vec<Header>,
    next: usize,
    next_header: usize,
}

/// The outputs of one task.
#[derive(Debug)]
pub struct RecordCollector {
    task: TaskId,
    sinks: Vec<Sink>,
    pending: VecDeque<Pending>,
}

impl RecordCollector {
    pub fn new(task: TaskId, sub_topology: &SubTopology, counts: &PartitionCounts) -> Self {
        let sinks = sub_topology.sinks.iter().map(|sink| Sink {
            name: sink.name.clone(),
            topic: sink.topic.clone(),
            partitions: counts.of(&sink.topic),
        });
        Self { task, sinks: sinks.collect(), pending: VecDeque::new() }
    }

    /// Checks the outputs of a call: well-formed columns, known sinks, partitions that exist, timestamps from 0 on.
    /// The error says which record and what was expected.
    pub fn check(&self, outputs: &OutputBatch) -> Result<(), String> {
        if outputs.is_empty() && outputs.keys.is_empty() && outputs.values.is_empty() {
            return Ok(());
        }
        outputs.validate().map_err(|error| error.to_string())?;
        if self.sinks.is_empty() {
            return Err(format!("{} records were forwarded but the sub-topology declares no sink", outputs.len()));
        }
        let check_sink = |index: usize, sink: u32| match self.sinks.get(sink as usize) {
            Some(found) => Ok(found),
            None => {
                let names: Vec<&str> = self.sinks.iter().map(|sink| &*sink.name).collect();
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
            None => Ok(()),
        }
    }

    /// Sends outputs that were checked, after everything that is still pending.
    pub fn send(&mut self, outputs: OutputBatch, producer: &mut StreamsProducer) -> Result<(), EngineError> {
        if outputs.is_empty() {
            return Ok(());
        }
        let mut outputs = outputs;
        let headers = take_headers(&mut outputs.headers);
        self.pending.push_back(Pending { outputs, headers, next: 0, next_header: 0 });
        self.drain(producer).map(|_| ())
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

fn send_pending(
    sinks: &[Sink],
    pending: &mut Pending,
    producer: &mut StreamsProducer,
    task: TaskId,
) -> Result<bool, EngineError> {
    let Pending { outputs, headers, next, next_header } = pending;
    while *next < outputs.len() {
        let index = *next;
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
