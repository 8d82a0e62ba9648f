//! One instance of a module in a wasmtime `Store` of its own: the engine's `Processor`. After a trap or a limit the
//! instance and its store are dropped, since neither can be entered again; `create` makes a new one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use engine::columns::{Columns, NullableColumns};
use engine::processor::{CallReport, Processor, ProcessorContext, ProcessorError, ScheduleId};
use engine::record::{InputBatch, Outcome, Timestamp};
use engine::topology::TaskId;
use wasmtime::component::Func;
use wasmtime::{Store, UpdateDeadline};

use crate::bindings::{Guest, types};
use crate::failure;
use crate::guest_log::escape;
use crate::limits::Limits;
use crate::migration::Migration;
use crate::module::ModuleInner;
use crate::random::Seed;
use crate::task_state::TaskState;
use crate::usage::{CallUsage, CpuMeter, Usage, thread_cpu_ns};

/// A reason or an error of the guest in a message.
const REASON_MAX_BYTES: usize = 2_048;

/// Kinds of calls, to keep their seeds apart.
const INIT: i64 = 1;
const PROCESS: i64 = 2;
const PUNCTUATE: i64 = 3;
const MIGRATE: i64 = 4;

pub(crate) struct Instance {
    module: Arc<ModuleInner>,
    limits: Arc<Limits>,
    usage: Arc<Usage>,
    task: TaskId,
    cpu: CpuMeter,
    report: CallReport,
    /// `None` once a call has failed.
    live: Option<Live>,
}

/// A store with the one instance in it.
pub(crate) struct Live {
    pub store: Store<TaskState>,
    pub guest: Guest,
    /// Where the module exports it.
    pub migrate: Option<Func>,
}

impl Live {
    /// Makes an instance; its start functions run under the limits of a call. `usage` is that of the application.
    pub fn new(
        module: &ModuleInner,
        task: Option<TaskId>,
        limits: &Arc<Limits>,
        usage: &Arc<Usage>,
    ) -> Result<Self, ProcessorError> {
        let state = TaskState::new(task, Arc::clone(limits), Arc::clone(usage));
        let mut store = Store::new(module.engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(usize::try_from(limits.output_max_bytes).unwrap_or(usize::MAX));
        store.epoch_deadline_callback(|mut store| {
            let next = store.data_mut().deadline.stop(thread_cpu_ns());
            Ok(next.map_or(UpdateDeadline::Interrupt, UpdateDeadline::Continue))
        });
        begin_deadline(&mut store, limits, 0);
        let running = module.epochs().call();
        let result = catch_unwind(AssertUnwindSafe(|| -> wasmtime::Result<_> {
            let instance = module.pre().instantiate(&mut store)?;
            let guest = module.indices().load(&mut store, &instance)?;
            let migrate = module.migrate().and_then(|index| instance.get_func(&mut store, index));
            Ok((guest, migrate))
        }));
        drop(running);
        match result {
            Ok(Ok((guest, migrate))) => Ok(Self { store, guest, migrate }),
            Ok(Err(error)) => {
                let complaint = store.data().log.end_call().last_complaint;
                Err(failure::classify(&error, limits, complaint.as_deref()))
            }
            Err(panic) => Err(failure::host_panic(&*panic)),
        }
    }
}

/// Starts the time of a call with so many records.
pub(crate) fn begin_deadline(store: &mut Store<TaskState>, limits: &Limits, records: usize) {
    let epochs = store.data_mut().deadline.begin(limits, records);
    store.set_epoch_deadline(epochs);
}

impl Instance {
    pub fn new(
        module: Arc<ModuleInner>,
        limits: Arc<Limits>,
        usage: Arc<Usage>,
        task: TaskId,
    ) -> Result<Self, ProcessorError> {
        let live = Live::new(&module, Some(task), &limits, &usage);
        let live = live.inspect_err(|error| usage.count_limit_of(error)).map_err(|error| match error {
            ProcessorError::Trap { message, backtrace } if backtrace.is_empty() => ProcessorError::Start(message),
            ProcessorError::Trap { message, backtrace } => ProcessorError::Start(format!("{message}\n{backtrace}")),
            other => other,
        })?;
        usage.add_instance();
        Ok(Self {
            module,
            limits,
            usage,
            task,
            cpu: CpuMeter::default(),
            report: CallReport::default(),
            live: Some(live),
        })
    }

    /// Runs one export with the context inside the store.
    fn call<R>(
        &mut self,
        context: ProcessorContext,
        seed: Seed,
        records: usize,
        call: impl FnOnce(&Guest, &mut Store<TaskState>) -> wasmtime::Result<Result<R, String>>,
        check: impl FnOnce(R, &Limits) -> Result<Outcome, ProcessorError>,
    ) -> (ProcessorContext, Result<Outcome, ProcessorError>) {
        let Some(mut live) = self.live.take() else { return (context, Err(ended())) };
        let seed = seed.number(i64::from(self.task.sub_topology)).number(i64::from(self.task.partition));
        let is_recording = context.is_recording();
        live.store.data_mut().begin(context, seed);
        let call = |live: &mut Live| call(&live.guest, &mut live.store);
        let result = self.run(&mut live, records, is_recording, call, check);
        let context = live.store.data_mut().end();
        self.keep(live, &result);
        (context, result)
    }

    /// Runs one export, for which everything in the store is ready. `Ok(Err(_))` of `call` is an error that the guest
    /// returned itself, after which the instance lives on.
    fn run<R, T>(
        &mut self,
        live: &mut Live,
        records: usize,
        is_measured: bool,
        call: impl FnOnce(&mut Live) -> wasmtime::Result<Result<R, String>>,
        check: impl FnOnce(R, &Limits) -> Result<T, ProcessorError>,
    ) -> Result<T, ProcessorError> {
        begin_deadline(&mut live.store, &self.limits, records);
        let running = self.module.epochs().call();
        let cpu = if is_measured { self.cpu.start_always() } else { self.cpu.start(records) };
        let result = catch_unwind(AssertUnwindSafe(|| call(live)));
        let cpu_ns = CpuMeter::end(cpu);
        drop(running);

        let state = live.store.data_mut();
        let said = state.log.end_call();
        let complaint = said.last_complaint.as_deref();
        let backtrace = match &result {
            Ok(Err(error)) => failure::backtrace(error),
            _ => String::new(),
        };
        self.report = CallReport { cpu_us: cpu_ns / 1_000, backtrace };
        let result = judge(result, &self.limits, complaint, check);
        self.usage.add_call(&CallUsage {
            records: records as u64,
            cpu_ns,
            host_calls: state.budget.host_calls,
            failed: result.is_err(),
            log_lines: said.lines,
            log_lines_dropped: said.dropped,
            memory_bytes: state.limiter.memory_bytes(),
        });
        if let Err(error) = &result {
            self.usage.count_limit_of(error);
        }
        result
    }

    /// An instance that has not crashed lives on.
    fn keep<T>(&mut self, live: Live, result: &Result<T, ProcessorError>) {
        if !matches!(result, Err(error) if error.is_crash()) {
            self.live = Some(live);
        }
    }
}

fn ended() -> ProcessorError {
    ProcessorError::Start("its instance ended with the call that failed before; make a new one".to_owned())
}

/// From what a call came back with to what the engine gets.
fn judge<R, T>(
    result: Result<wasmtime::Result<Result<R, String>>, Box<dyn Any + Send>>,
    limits: &Limits,
    complaint: Option<&str>,
    check: impl FnOnce(R, &Limits) -> Result<T, ProcessorError>,
) -> Result<T, ProcessorError> {
    match result {
        Ok(Ok(Ok(value))) => check(value, limits),
        Ok(Ok(Err(message))) => Err(ProcessorError::Returned(escape(&message, REASON_MAX_BYTES))),
        Ok(Err(error)) => Err(failure::classify(&error, limits, complaint)),
        Err(panic) => Err(failure::host_panic(&*panic)),
    }
}

/// Checks an outcome; `records` is the number of records that the call got.
fn check_outcome(outcome: types::Outcome, records: usize, limits: &Limits) -> Result<Outcome, ProcessorError> {
    let mut outcome = Outcome::from(outcome);
    let outputs = &outcome.outputs;
    let (found, limit) = (outputs.len() as u64, limits.output_max_records);
    if found > limit {
        let (name, key) = ("forwarded records", "processor.output.max.records");
        return Err(ProcessorError::Limit { name, key, limit, found });
    }
    let headers = &outputs.headers;
    let parts = [&outputs.keys.bytes, &outputs.values.bytes, &headers.keys.bytes, &headers.values.bytes];
    let (found, limit) = (parts.iter().map(|bytes| bytes.len() as u64).sum(), limits.output_max_bytes);
    if found > limit {
        let (name, key) = ("forwarded bytes", "processor.output.max.bytes");
        return Err(ProcessorError::Limit { name, key, limit, found });
    }
    outputs.validate().map_err(|error| ProcessorError::Output(error.to_string()))?;
    for refusal in &mut outcome.refused {
        if refusal.index as usize >= records {
            let index = refusal.index;
            let message = format!("record {index} was refused, but the call got only {records} records");
            return Err(ProcessorError::Output(message));
        }
        refusal.reason = escape(&refusal.reason, REASON_MAX_BYTES);
    }
    Ok(outcome)
}

impl Processor for Instance {
    fn init(&mut self, context: ProcessorContext) -> (ProcessorContext, Result<(), ProcessorError>) {
        let task = self.task.into();
        let (context, result) = self.call(
            context,
            Seed::new().number(INIT),
            0,
            |guest, store| guest.sandbar_processor_processor().call_init(store, task),
            |(), _| Ok(Outcome::default()),
        );
        (context, result.map(|_| ()))
    }

    fn process(
        &mut self,
        context: ProcessorContext,
        batch: InputBatch,
    ) -> (ProcessorContext, Result<Outcome, ProcessorError>) {
        let seed = Seed::new().number(PROCESS).bytes(batch.topic.as_bytes());
        let seed = seed.number(i64::from(batch.partition)).number(batch.base_offset);
        let records = batch.len();
        let batch = types::InputBatch::from(batch);
        self.call(
            context,
            seed,
            records,
            |guest, store| guest.sandbar_processor_processor().call_process(store, &batch),
            |outcome, limits| check_outcome(outcome, records, limits),
        )
    }

    fn punctuate(
        &mut self,
        context: ProcessorContext,
        schedule: ScheduleId,
        time: Timestamp,
    ) -> (ProcessorContext, Result<Outcome, ProcessorError>) {
        self.call(
            context,
            Seed::new().number(PUNCTUATE).number(i64::from(schedule.0)).number(time),
            0,
            |guest, store| guest.sandbar_processor_processor().call_punctuate(store, schedule.0, time),
            |outcome, limits| check_outcome(outcome, 0, limits),
        )
    }

    fn migrate(
        &mut self,
        store: &str,
        from_version: u32,
        keys: &Columns,
        values: &Columns,
    ) -> Result<NullableColumns, ProcessorError> {
        let Some(mut live) = self.live.take() else { return Err(ended()) };
        let migration = Migration::new(store, from_version, keys, values);
        live.store.data_mut().begin_migrate(migration.seed(Seed::new().number(MIGRATE)));
        let call = |live: &mut Live| migration.call(live.migrate, &mut live.store);
        let result = self.run(&mut live, keys.len(), true, call, |values, limits| migration.check(values, limits));
        let result = result.map_err(|error| migration.name(error));
        self.keep(live, &result);
        result
    }

    fn report(&self) -> CallReport {
        self.report.clone()
    }
}
