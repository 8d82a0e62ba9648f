//! `Instance`: drives a processor through the contract's calls. Each record of a batch is one transaction over stores,
//! outputs and schedules; writes reach the host at the end of the call, outputs with its result.

use std::rc::Rc;

use crate::bindings::sandbar::processor::types;
use crate::bindings::sandbar::processor::types::{Columns, InputBatch, NullableColumns, Outcome, Refusal};
use crate::context::{Phase, Shared};
use crate::host::Host;
use crate::migration::{Migration, migrate};
use crate::store::StoreCell;
use crate::{Context, Declaration, Error, Headers, Processor, Punctuation, Record, Result, ScheduleId, Serde};

/// One processor with its handles.
pub struct Instance<P> {
    processor: P,
    context: Context,
    shared: Rc<Shared>,
    stores: Vec<Rc<StoreCell>>,
    topology: types::SubTopology,
    migrations: Vec<Migration>,
}

impl<P: Processor> Instance<P> {
    /// Makes the processor; asks nothing of the host.
    pub fn new(host: Rc<dyn Host>) -> Self {
        let shared = Rc::new(Shared::new(host));
        let mut declaration = Declaration::new(shared.clone());
        let processor = P::declare(&mut declaration);
        let Declaration { stores, topology, migrations, .. } = declaration;
        Self { processor, context: Context::new(shared.clone()), shared, stores, topology, migrations }
    }

    /// The processor itself.
    pub fn processor(&self) -> &P {
        &self.processor
    }

    /// What the processor declares.
    pub fn topology(&self) -> types::Topology {
        types::Topology { sub_topologies: vec![self.topology.clone()], options: Vec::new() }
    }

    /// Opens the stores and runs the processor's `init`.
    pub fn init(&mut self) -> Result<(), String> {
        for store in &self.stores {
            store.open()?;
        }
        self.begin(Phase::Init, 0);
        let result = self.processor.init(&mut self.context);
        self.end(result).map(|_| ())
    }

    /// Runs a batch, record by record.
    pub fn process(&mut self, batch: InputBatch) -> Result<Outcome, String> {
        self.begin(Phase::Process, 0);
        for store in &self.stores {
            store.prefetch((0..batch.keys.len()).filter_map(|index| batch.keys.get(index)));
        }
        let mut refused = Vec::new();
        let mut first_header = 0;
        for index in 0..batch.timestamps.len() {
            let headers = batch.headers.counts.get(index).map_or(0, |&count| count as usize);
            let headers_of_record = Headers::new(&batch.headers, first_header, headers);
            first_header += headers;
            if let Err(error) = self.process_record(&batch, index, headers_of_record) {
                refused.push(Refusal { index: index as u32, reason: error.to_string() });
            }
        }
        let outputs = self.end(Ok(()))?;
        Ok(Outcome { outputs, refused })
    }

    /// Runs a schedule that is due.
    pub fn punctuate(&mut self, schedule: u32, time: i64) -> Result<Outcome, String> {
        self.begin(Phase::Punctuate, time);
        let punctuation = Punctuation { schedule: ScheduleId(schedule), time };
        let result = self.processor.punctuate(punctuation, &mut self.context);
        let outputs = self.end(result)?;
        Ok(Outcome { outputs, refused: Vec::new() })
    }

    /// Takes over rows of an older version; asks nothing of the host.
    pub fn migrate(
        &self,
        store: &str,
        from_version: u32,
        keys: &Columns,
        values: &Columns,
    ) -> Result<NullableColumns, String> {
        migrate(&self.migrations, store, from_version, keys, values).map_err(|error| error.to_string())
    }

    fn begin(&mut self, phase: Phase, timestamp: i64) {
        self.shared.begin_call(phase, timestamp);
        self.shared.outputs.borrow_mut().begin();
        for store in &self.stores {
            store.begin_record();
        }
    }

    /// Ends a call: writes go to the host and outputs are handed out, or all of it is dropped.
    fn end(&mut self, result: Result<()>) -> Result<types::OutputBatch, String> {
        for store in &self.stores {
            match result {
                Ok(()) => store.flush(),
                Err(_) => store.clear(),
            }
        }
        match result {
            Ok(()) => self.shared.keep_schedules(),
            Err(_) => self.shared.undo_schedules(),
        }
        self.shared.end_call();
        let outputs = self.shared.outputs.borrow_mut().take();
        result.map(|()| outputs).map_err(|error| error.to_string())
    }

    fn process_record(&mut self, batch: &InputBatch, index: usize, headers: Headers<'_>) -> Result<()> {
        let timestamp = batch.timestamps[index];
        self.shared.begin_record(timestamp);
        let record = Record::<P::Key, P::Value> {
            key: P::Key::decode(batch.keys.get(index)).map_err(|error| unreadable("the key", error))?,
            value: P::Value::decode(batch.values.get(index)).map_err(|error| unreadable("the value", error))?,
            timestamp,
            offset: batch.base_offset + batch.offset_deltas.get(index).map_or(0, |&delta| i64::from(delta)),
            partition: batch.partition,
            topic: &batch.topic,
            headers,
        };
        let mark = self.shared.outputs.borrow().mark();
        for store in &self.stores {
            store.begin_record();
        }
        let result = self.processor.process(record, &mut self.context);
        match result {
            Ok(()) => self.shared.keep_schedules(),
            Err(_) => {
                for store in &self.stores {
                    store.undo_record();
                }
                self.shared.outputs.borrow_mut().cut_back(mark);
                self.shared.undo_schedules();
            }
        }
        result
    }
}

/// "the value is not …": one sentence of the part and its fault, after the word by which the host knows that it is
/// `deserialization.exception.handler` that decides.
fn unreadable(part: &str, error: Error) -> Error {
    Error::new(format_args!("deserialization: {part} {error}"))
}
