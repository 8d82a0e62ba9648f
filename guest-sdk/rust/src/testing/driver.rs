//! `TestDriver`: pipes records into a processor and reads what it forwarded, stored and refused. Errors are returned,
//! so that a test ends with `?`; a refused record is an error of the pipe that sent it.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use super::memory::{HostCalls, MemoryHost};
use crate::bindings::sandbar::processor::context::PunctuationType;
use crate::bindings::sandbar::processor::types::{Columns, InputBatch, OutputBatch, Topology};
use crate::{Error, Instance, Processor, Result, Serde, Sink, Store};

/// The engine's default batch size.
const BATCH_RECORDS: usize = 500;

/// Sets a driver up.
pub struct Builder<P> {
    host: MemoryHost,
    batch_records: usize,
    types: PhantomData<P>,
}

impl<P: Processor> Builder<P> {
    /// A value of the manifest's `[config]` table.
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.host.config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The wall clock at the start, in milliseconds since the epoch; 0 unless given.
    pub fn wall_clock_time(self, time: i64) -> Self {
        self.host.wall_clock_ms.set(time);
        self
    }

    /// The partition of the task, 0 unless given.
    pub fn partition(self, partition: u32) -> Self {
        self.host.task.set((0, partition));
        self
    }

    /// How many records a batch has at most, 500 unless given. Results must not depend on it.
    pub fn batch_records(mut self, records: usize) -> Self {
        self.batch_records = records.max(1);
        self
    }

    /// Makes the processor and runs its `init`.
    pub fn start(self) -> Result<TestDriver<P>> {
        let host = Rc::new(self.host);
        let mut instance = Instance::<P>::new(host.clone());
        let topology = instance.topology();
        let names = topology.sub_topologies.iter().flat_map(|sub| &sub.stores).map(|store| store.name.clone());
        *host.names.borrow_mut() = names.collect();
        host.stores.borrow_mut().resize_with(host.names.borrow().len(), Default::default);
        instance.init().map_err(|reason| Error::new(reason).context("init failed"))?;
        Ok(TestDriver { instance, host, batch_records: self.batch_records, offset: 0, outputs: Vec::new(), topology })
    }
}

/// Runs a processor natively.
pub struct TestDriver<P> {
    instance: Instance<P>,
    host: Rc<MemoryHost>,
    batch_records: usize,
    offset: i64,
    /// Per sink, what was forwarded and not read yet.
    outputs: Vec<VecDeque<RawForwarded>>,
    topology: Topology,
}

struct RawForwarded {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    partition: Option<u32>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A record to pipe in, as bytes: it may be one that the processor cannot decode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestRecord {
    /// The key's bytes, `None` for null.
    pub key: Option<Vec<u8>>,
    /// The value's bytes, `None` for null.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Keys and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The name of a source; the first one of the processor where it is `None`.
    pub source: Option<String>,
}

impl TestRecord {
    /// A record of a key, a value and a time in milliseconds since the epoch.
    pub fn new<K: Serde, V: Serde>(key: &K::View, value: &V::View, timestamp: i64) -> Result<Self> {
        Ok(Self { key: bytes::<K>(key)?, value: bytes::<V>(value)?, timestamp, ..Self::default() })
    }

    /// Adds a header.
    pub fn header(mut self, key: &str, value: &[u8]) -> Self {
        self.headers.push((key.to_owned(), Some(value.to_vec())));
        self
    }

    /// Sends it to the source with this name.
    pub fn source(mut self, name: &str) -> Self {
        self.source = Some(name.to_owned());
        self
    }
}

fn bytes<S: Serde>(view: &S::View) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    Ok(S::encode(view, &mut bytes)?.then_some(bytes))
}

/// A record that the processor refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Index in the list that was piped in.
    pub index: usize,
    /// Why, as the host would log it.
    pub reason: String,
}

/// A record that the processor forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded<K, V> {
    /// The key, decoded.
    pub key: K,
    /// The value, decoded.
    pub value: V,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The partition that the processor chose, if it did.
    pub partition: Option<u32>,
    /// Keys and values, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl<P: Processor> TestDriver<P> {
    /// A driver with the defaults.
    pub fn new() -> Result<Self> {
        Self::builder().start()
    }

    /// A driver with settings of its own.
    pub fn builder() -> Builder<P> {
        Builder { host: MemoryHost::new(), batch_records: BATCH_RECORDS, types: PhantomData }
    }

    /// Pipes one record in, at a time in milliseconds since the epoch. A refusal is an error.
    pub fn pipe(
        &mut self,
        key: &<P::Key as Serde>::View,
        value: &<P::Value as Serde>::View,
        timestamp: i64,
    ) -> Result<()> {
        let record = TestRecord::new::<P::Key, P::Value>(key, value, timestamp)?;
        match self.pipe_all(vec![record])?.pop() {
            Some(refused) => Err(Error::new(refused.reason)),
            None => Ok(()),
        }
    }

    /// Pipes records in, in batches, and returns those that were refused. An error means that a whole call failed.
    pub fn pipe_all(&mut self, records: Vec<TestRecord>) -> Result<Vec<Refused>> {
        let mut refused = Vec::new();
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let length = self.batch_length(rest);
            let first = records.len() - rest.len();
            let (batch, after) = rest.split_at(length);
            rest = after;
            refused.extend(self.run_batch(batch, first)?);
        }
        Ok(refused)
    }

    /// A batch ends at the limit, where the source changes, and after the record that makes a stream-time punctuation
    /// due, so that results do not depend on the batch size.
    fn batch_length(&self, records: &[TestRecord]) -> usize {
        let mut time = self.host.stream_time.get().unwrap_or(-1);
        let mut length = 0;
        for record in records {
            if length == self.batch_records || record.source != records[0].source {
                break;
            }
            length += 1;
            time = time.max(record.timestamp);
            if self.host.is_due(PunctuationType::StreamTime, time) {
                break;
            }
        }
        length
    }

    fn run_batch(&mut self, records: &[TestRecord], first: usize) -> Result<Vec<Refused>> {
        let batch = self.input_batch(records)?;
        self.host.begin_call();
        let outcome = match self.instance.process(batch) {
            Ok(outcome) => outcome,
            Err(reason) => {
                self.host.roll_back();
                return Err(Error::new(reason));
            }
        };
        self.offset += records.len() as i64;
        let highest = records.iter().map(|record| record.timestamp).filter(|&time| time >= 0).max();
        self.host.stream_time.set(self.host.stream_time.get().max(highest));
        self.collect(outcome.outputs);
        self.punctuate(PunctuationType::StreamTime)?;
        let refused = outcome.refused.into_iter();
        Ok(refused.map(|refusal| Refused { index: first + refusal.index as usize, reason: refusal.reason }).collect())
    }

    fn input_batch(&self, records: &[TestRecord]) -> Result<InputBatch> {
        let sources = self.topology.sub_topologies.iter().flat_map(|sub| &sub.sources);
        let mut names = sources.map(|source| source.name.as_str());
        let topic = match records.first().and_then(|record| record.source.as_deref()) {
            Some(name) if names.any(|other| other == name) => name,
            Some(name) => return Err(Error::new(format_args!("the processor has no source {name}"))),
            None => names.next().unwrap_or_default(),
        };
        let mut batch = InputBatch {
            topic: topic.to_owned(),
            partition: self.host.task.get().1,
            base_offset: self.offset,
            ..InputBatch::default()
        };
        let any_headers = records.iter().any(|record| !record.headers.is_empty());
        for (index, record) in records.iter().enumerate() {
            batch.offset_deltas.push(index as u32);
            batch.timestamps.push(record.timestamp);
            batch.keys.push(record.key.as_deref());
            batch.values.push(record.value.as_deref());
            if any_headers {
                batch.headers.counts.push(record.headers.len() as u32);
            }
            for (key, value) in &record.headers {
                batch.headers.keys.push(key.as_bytes());
                batch.headers.values.push(value.as_deref());
            }
        }
        Ok(batch)
    }

    /// Runs the schedules that are due.
    fn punctuate(&mut self, kind: PunctuationType) -> Result<()> {
        let now = match kind {
            PunctuationType::StreamTime => self.host.stream_time.get(),
            PunctuationType::WallClockTime => Some(self.host.wall_clock_ms.get()),
        };
        let Some(now) = now else { return Ok(()) };
        while let Some(schedule) = self.host.take_due(kind, now) {
            self.host.begin_call();
            match self.instance.punctuate(schedule, now) {
                Ok(outcome) => self.collect(outcome.outputs),
                Err(reason) => {
                    self.host.roll_back();
                    return Err(Error::new(reason).context("a punctuation failed"));
                }
            }
        }
        Ok(())
    }

    fn collect(&mut self, batch: OutputBatch) {
        let mut header = 0;
        for index in 0..batch.timestamps.len() {
            let count = batch.headers.counts.get(index).map_or(0, |&count| count as usize);
            let headers = (header..header + count).map(|at| {
                let key = String::from_utf8_lossy(batch.headers.keys.get(at)).into_owned();
                (key, batch.headers.values.get(at).map(<[u8]>::to_vec))
            });
            let forwarded = RawForwarded {
                key: batch.keys.get(index).map(<[u8]>::to_vec),
                value: batch.values.get(index).map(<[u8]>::to_vec),
                timestamp: batch.timestamps[index],
                partition: batch.partitions.get(index).and_then(|&partition| u32::try_from(partition).ok()),
                headers: headers.collect(),
            };
            header += count;
            let sink = batch.sinks.get(index).map_or(0, |&sink| sink as usize);
            if self.outputs.len() <= sink {
                self.outputs.resize_with(sink + 1, VecDeque::new);
            }
            self.outputs[sink].push_back(forwarded);
        }
    }

    /// Moves the wall clock on and runs the punctuations that fall due.
    pub fn advance_wall_clock(&mut self, by: Duration) -> Result<()> {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.host.wall_clock_ms.set(self.host.wall_clock_ms.get().saturating_add(by));
        self.punctuate(PunctuationType::WallClockTime)
    }

    /// Takes what was forwarded to a sink since the last read: `driver.read(|p| &p.totals)`.
    ///
    /// # Panics
    /// When the bytes are not of the sink's types, which cannot happen to what the sink itself wrote, except for
    /// tombstones: read those with [`read_nullable`](Self::read_nullable).
    #[track_caller]
    pub fn read<K: Serde, V: Serde>(&mut self, sink: impl Fn(&P) -> &Sink<K, V>) -> Vec<Forwarded<K::Owned, V::Owned>> {
        self.take(sink(self.instance.processor()).index)
            .map(|raw| Forwarded {
                key: decode::<K>(raw.key.as_deref()),
                value: decode::<V>(raw.value.as_deref()),
                timestamp: raw.timestamp,
                partition: raw.partition,
                headers: raw.headers,
            })
            .collect()
    }

    /// Like [`read`](Self::read), with tombstones as `None`.
    #[track_caller]
    pub fn read_nullable<K: Serde, V: Serde>(
        &mut self,
        sink: impl Fn(&P) -> &Sink<K, V>,
    ) -> Vec<Forwarded<K::Owned, Option<V::Owned>>> {
        self.take(sink(self.instance.processor()).index)
            .map(|raw| Forwarded {
                key: decode::<K>(raw.key.as_deref()),
                value: raw.value.as_deref().map(|value| decode::<V>(Some(value))),
                timestamp: raw.timestamp,
                partition: raw.partition,
                headers: raw.headers,
            })
            .collect()
    }

    fn take(&mut self, sink: u32) -> impl Iterator<Item = RawForwarded> + use<P> {
        self.outputs.get_mut(sink as usize).map(std::mem::take).unwrap_or_default().into_iter()
    }

    /// Migrates a row that version `from` of a store's schema has written, with a value of `Old`, as the host does at a
    /// deploy: `driver.migrate::<i64, _, _>(|p| &p.counts, 1, "tide", &3)?`. The row is in the store then, and is given
    /// back; `None` where it was deleted.
    pub fn migrate<Old: Serde, K: Serde, V: Serde>(
        &mut self,
        store: impl Fn(&P) -> &Store<K, V>,
        from: u32,
        key: &K::View,
        old: &Old::View,
    ) -> Result<Option<V::Owned>> {
        let (mut keys, mut values) = (Columns::default(), Columns::default());
        for (what, bytes, column) in [("key", bytes::<K>(key)?, &mut keys), ("value", bytes::<Old>(old)?, &mut values)]
        {
            match bytes {
                Some(bytes) => column.push(&bytes),
                None => return Err(Error::new(format_args!("a row has no {what} that is null"))),
            }
        }
        let index = self.store(&store).index;
        let name = self.host.names.borrow()[index].clone();
        let new = self.instance.migrate(&name, from, &keys, &values).map_err(Error::new)?;
        let entries = &mut self.host.stores.borrow_mut()[index];
        match new.get(0) {
            Some(value) => {
                entries.insert(keys.get(0).to_vec(), value.to_vec());
                V::decode_owned(Some(value)).map(Some)
            }
            None => {
                entries.remove(keys.get(0));
                Ok(None)
            }
        }
    }

    /// What a store holds after the calls so far: `driver.store(|p| &p.counts).get("tide")`.
    pub fn store<K: Serde, V: Serde>(&self, store: impl Fn(&P) -> &Store<K, V>) -> StoreView<'_, K, V> {
        let name = store(self.instance.processor()).name();
        let index = self.host.names.borrow().iter().position(|other| other == name).unwrap_or_default();
        StoreView { host: &self.host, index, types: PhantomData }
    }

    /// The highest timestamp piped in so far.
    pub fn stream_time(&self) -> Option<i64> {
        self.host.stream_time.get()
    }

    /// How often the processor called its host so far.
    pub fn host_calls(&self) -> HostCalls {
        self.host.calls.get()
    }

    /// What the processor declares.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }
}

#[track_caller]
fn decode<S: Serde>(bytes: Option<&[u8]>) -> S::Owned {
    match S::decode_owned(bytes) {
        Ok(value) => value,
        Err(error) => panic!("a key or a value {error}"),
    }
}

/// The committed entries of a store.
pub struct StoreView<'a, K, V> {
    host: &'a MemoryHost,
    index: usize,
    types: PhantomData<(K, V)>,
}

impl<K: Serde, V: Serde> StoreView<'_, K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K::View) -> Option<V::Owned> {
        let key = bytes::<K>(key).ok().flatten()?;
        self.host.stores.borrow()[self.index].get(&key).map(|value| decode::<V>(Some(value)))
    }

    /// All entries in byte order of the keys.
    pub fn entries(&self) -> Vec<(K::Owned, V::Owned)> {
        let stores = self.host.stores.borrow();
        stores[self.index].iter().map(|(key, value)| (decode::<K>(Some(key)), decode::<V>(Some(value)))).collect()
    }

    /// The timestamp that the changelog record of a key would have.
    pub fn timestamp(&self, key: &K::View) -> Option<i64> {
        let key = bytes::<K>(key).ok().flatten()?;
        self.host.timestamps.borrow().get(&(self.index as u32, key)).copied()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.host.stores.borrow()[self.index].is_empty()
    }
}
