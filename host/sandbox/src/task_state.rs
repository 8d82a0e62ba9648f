//! What a wasmtime `Store` holds for one instance: the `ProcessorContext` of the running call, the budget of the call,
//! and the instance's own memory limits, WASI tables and schedules. The context is here only between `begin` and
//! `end`; outside a call every import of ours fails.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::processor::{ProcessorContext, ProcessorError, ScheduleId, StoreIndex};
use engine::topology::TaskId;
use wasmtime::Result;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::deadline::Deadline;
use crate::guest_log::GuestLog;
use crate::imports::wasi::VirtualTime;
use crate::limiter::Limiter;
use crate::limits::{Budget, Limits};
use crate::random::{Random, Seed};
use crate::usage::Usage;

/// Resources of WASI that one instance may hold (streams, pollables, errors).
const WASI_RESOURCES_MAX: usize = 1_024;

pub(crate) struct TaskState {
    context: Option<ProcessorContext>,
    /// What is running, for messages of imports that may not be called now.
    phase: Phase,
    pub limits: Arc<Limits>,
    pub budget: Budget,
    pub limiter: Limiter,
    pub deadline: Deadline,
    pub log: GuestLog,
    pub random: Random,
    pub time: VirtualTime,
    /// `stores[i]`: whether the instance has opened store `i`.
    opened_stores: Vec<bool>,
    schedules: BTreeSet<ScheduleId>,
    /// What `schedules` was before the first change of the last call, if that made one.
    schedules_before: Option<BTreeSet<ScheduleId>>,
    wasi: WasiCtx,
    table: ResourceTable,
}

/// A host call on a store that counts what it reads while it reads.
pub(crate) struct Reading<'a> {
    pub context: &'a mut ProcessorContext,
    pub store: StoreIndex,
    pub budget: &'a mut Budget,
    pub limits: &'a Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Instantiation,
    Describe,
    Migrate,
    Call,
}

impl TaskState {
    /// `usage` is that of the application, whose instances share bounds on their memory and their log.
    pub fn new(task: Option<TaskId>, limits: Arc<Limits>, usage: Arc<Usage>) -> Self {
        let mut wasi = WasiCtxBuilder::new();
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        let mut table = ResourceTable::new();
        table.set_max_capacity(WASI_RESOURCES_MAX);
        Self {
            context: None,
            phase: Phase::Instantiation,
            budget: Budget::default(),
            limiter: Limiter::new(&limits, Arc::clone(&usage)),
            deadline: Deadline::default(),
            log: GuestLog::new(task, Arc::clone(&limits), usage),
            random: Random::new(Seed::new()),
            time: VirtualTime::default(),
            opened_stores: Vec::new(),
            schedules: BTreeSet::new(),
            schedules_before: None,
            wasi: wasi.build(),
            table,
            limits,
        }
    }

    /// Starts a call; `seed` identifies it, so that the same call sees the same randomness.
    pub fn begin(&mut self, context: ProcessorContext, seed: Seed) {
        self.log.begin_call(&context.application_id);
        self.random = Random::new(seed.bytes(context.application_id.as_bytes()));
        self.time.begin_call(context.wall_clock_ms);
        self.budget = Budget::default();
        // The engine decides what a call leaves behind: it also undoes one that succeeded here, for its refusals or for
        // outputs that cannot be sent.
        if let Some(before) = self.schedules_before.take()
            && context.last_call_undone()
        {
            self.schedules = before;
        }
        self.phase = Phase::Call;
        self.context = Some(context);
    }

    /// Ends a call that `begin` started and gives its context back.
    pub fn end(&mut self) -> ProcessorContext {
        self.context.take().expect("`begin` put the context there and imports only borrow it")
    }

    pub fn begin_describe(&mut self) {
        self.phase = Phase::Describe;
        self.budget = Budget::default();
    }

    /// Starts a `migrate`; `seed` identifies it. There is no context and no time: it sees nothing but its rows.
    pub fn begin_migrate(&mut self, seed: Seed) {
        self.log.begin_call_like_the_last();
        self.random = Random::new(seed);
        self.time.begin_call(0);
        self.budget = Budget::default();
        self.phase = Phase::Migrate;
    }

    /// Counts a host call and gives its context.
    pub fn context(&mut self, import: &'static str) -> Result<&mut ProcessorContext> {
        self.budget.host_call(&self.limits)?;
        match (&mut self.context, self.phase) {
            (Some(context), _) => Ok(context),
            (None, phase) => Err(outside_call(import, phase)),
        }
    }

    /// Counts a host call on a store and checks the handle.
    pub fn store(&mut self, import: &'static str, handle: u32) -> Result<(&mut ProcessorContext, StoreIndex)> {
        let opened = self.opened_stores.get(handle as usize).copied().unwrap_or(false);
        let context = self.context(import)?;
        if !opened {
            let message = format!("{import} was called with the store {handle}, which `open` never returned");
            return Err(ProcessorError::Trap { message, backtrace: String::new() }.into());
        }
        Ok((context, StoreIndex(handle)))
    }

    /// As `store`, with the budget of the call.
    pub fn reading(&mut self, import: &'static str, handle: u32) -> Result<Reading<'_>> {
        let (_, store) = self.store(import, handle)?;
        let Self { context: Some(context), budget, limits, .. } = self else {
            return Err(outside_call(import, self.phase));
        };
        Ok(Reading { context, store, budget, limits })
    }

    pub fn opened(&mut self, store: StoreIndex) {
        let index = store.0 as usize;
        if self.opened_stores.len() <= index {
            self.opened_stores.resize(index + 1, false);
        }
        self.opened_stores[index] = true;
    }

    /// Counts a host call that needs no context.
    pub fn count_host_call(&mut self) -> Result<()> {
        Ok(self.budget.host_call(&self.limits)?)
    }

    /// The schedules, to be changed.
    fn schedules_mut(&mut self) -> &mut BTreeSet<ScheduleId> {
        self.schedules_before.get_or_insert_with(|| self.schedules.clone());
        &mut self.schedules
    }

    pub fn schedule_added(&mut self, schedule: ScheduleId) -> Result<()> {
        self.schedules_mut().insert(schedule);
        let (found, limit) = (self.schedules.len() as u64, self.limits.schedule_max_count);
        if found > limit {
            let (name, key) = ("schedules", "processor.schedule.max.count");
            return Err(ProcessorError::Limit { name, key, limit, found }.into());
        }
        Ok(())
    }

    pub fn schedule_cancelled(&mut self, schedule: ScheduleId) {
        self.schedules_mut().remove(&schedule);
    }

    pub fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

fn outside_call(import: &str, phase: Phase) -> wasmtime::Error {
    let when = match phase {
        Phase::Instantiation => "while it was instantiated",
        Phase::Describe => "in `describe`, which must be pure",
        Phase::Migrate => "in `migrate`, which must be pure",
        Phase::Call => "outside a call",
    };
    let message = format!("the module called {import} {when}");
    ProcessorError::Trap { message, backtrace: String::new() }.into()
}

impl WasiView for TaskState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
