//! What goes wrong, decided by a seed, and the trace of every call. The same seed and the same calls give the same
//! faults; the digest of the trace tells whether two runs made the same calls.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use engine::testing::Seed;

/// The calls of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Poll,
    Committed,
    Commit,
    Join,
    Sync,
    Heartbeat,
    Leave,
    Fetch,
    Watermarks,
    RestorePoll,
    Produce,
    InitProducerId,
    AddPartitions,
    SendOffsets,
    EndTransaction,
    DescribeTopics,
    CreateTopic,
    DescribeGroup,
    /// Not a call of a client: the host writes a store.
    WriteStore,
    /// Not a call: something that the trace should hold.
    Note,
}

/// How often things go wrong: once in so many calls, 0 for never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultRates {
    /// A call fails without effect and may be tried again.
    pub retriable_one_in: u64,
    /// A commit or a produce request takes effect, but its reply is lost.
    pub lost_reply_one_in: u64,
    /// A batch is given up after its time: its records may or may not be in the log.
    pub failed_delivery_one_in: u64,
    /// A batch stays in flight for a while.
    pub delayed_delivery_one_in: u64,
    /// The end of a transaction is given up by its sender while the request is still on its way: it reaches the
    /// coordinator later, whatever has become of the transaction by then.
    pub delayed_end_one_in: u64,
    /// A restore reads nothing although there is something.
    pub empty_restore_one_in: u64,
}

/// The longest time that the end of a transaction is on its way.
const END_DELAY_MAX_MS: u64 = 8_000;

/// What coordinators say when they cannot answer now.
const COORDINATOR_ERRORS: [&str; 4] =
    ["NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "CONCURRENT_TRANSACTIONS", "REQUEST_TIMED_OUT"];

/// Called before every call, with nothing locked: whoever drives the hosts may let others run meanwhile.
pub type Interrupt = fn(who: &str, operation: Operation);

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// With the error that comes back.
    Fail(&'static str),
    LoseReply,
    /// The request arrives so much later, and nobody waits for the reply.
    Delay(u64),
    /// The caller's host has crashed.
    Dead,
}

/// How a produced batch fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Now,
    /// The reply is lost and the batch is sent again by the client itself, with the same sequence numbers.
    Twice,
    Later,
    Dead,
    /// Given up; `appended` says whether it is in the log.
    GivenUp {
        appended: bool,
    },
}

struct State {
    seed: Seed,
    rates: FaultRates,
    digest: u64,
    calls: u64,
    injected: BTreeMap<&'static str, u64>,
    /// Calls that each of these hosts may still make before it crashes.
    crashing: BTreeMap<String, u64>,
    /// The group's coordinator knows no committed offsets for the moment.
    offsets_forgotten: bool,
    /// The lines, where they are kept.
    lines: Option<Vec<String>>,
}

/// The faults of one broker.
pub struct Faults {
    state: Mutex<State>,
    interrupt: OnceLock<Interrupt>,
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::new(Seed::new(0), FaultRates::default())
    }

    /// Things go wrong at these rates.
    pub fn new(seed: Seed, rates: FaultRates) -> Self {
        let state = Mutex::new(State {
            seed,
            rates,
            digest: FNV_OFFSET,
            calls: 0,
            injected: BTreeMap::new(),
            crashing: BTreeMap::new(),
            offsets_forgotten: false,
            lines: None,
        });
        Self { state, interrupt: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how often things go wrong from here on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state().rates = rates;
    }

    /// Lets a host crash after so many more calls of its clients: from then on each of them fails for good and has no
    /// effect. Whoever drives the host drops its threads then, without closing them.
    pub fn crash_after(&self, host: &str, calls: u64) {
        self.state().crashing.entry(host.to_owned()).or_insert(calls);
    }

    /// Whether a host has crashed.
    pub fn is_crashed(&self, host: &str) -> bool {
        self.state().crashing.get(host) == Some(&0)
    }

    /// Starts a crashed host anew.
    pub fn revive(&self, host: &str) {
        self.state().crashing.remove(host);
    }

    /// Has this called before every call from now on; once.
    pub fn interrupt_with(&self, interrupt: Interrupt) {
        self.interrupt.get_or_init(|| interrupt);
    }

    fn interrupt(&self, who: &str, operation: Operation) {
        if let Some(interrupt) = self.interrupt.get() {
            interrupt(who, operation);
        }
    }

    /// Lets the group's coordinator answer "no committed offset" whatever there is, or no longer (KAFKA-20416).
    pub fn forget_offsets(&self, forgotten: bool) {
        self.state().offsets_forgotten = forgotten;
    }

    pub(super) fn are_offsets_forgotten(&self) -> bool {
        self.state().offsets_forgotten
    }

    /// Whether a host that writes a store lives to do it; a write counts like a call of a client.
    pub fn may_write(&self, host: &str, detail: &str) -> bool {
        let who = format!("{host}-disk");
        self.interrupt(&who, Operation::WriteStore);
        let mut state = self.state();
        let dead = state.is_dead(&who);
        state.write(Operation::WriteStore, &who, detail, if dead { " -> crashed" } else { "" });
        !dead
    }

    /// Keeps the lines of the trace, for people.
    pub fn keep_trace(&self) {
        self.state().lines.get_or_insert_default();
    }

    /// The kept lines.
    pub fn trace(&self) -> Vec<String> {
        self.state().lines.clone().unwrap_or_default()
    }

    /// A digest of every call and verdict so far.
    pub fn digest(&self) -> u64 {
        self.state().digest
    }

    /// Calls so far, and faults by kind.
    pub fn counts(&self) -> (u64, BTreeMap<&'static str, u64>) {
        let state = self.state();
        (state.calls, state.injected.clone())
    }

    /// Writes a line of the caller's own into the trace.
    pub fn note(&self, who: &str, detail: &str) {
        self.state().write(Operation::Note, who, detail, "");
    }

    pub(super) fn decide(&self, operation: Operation, who: &str, detail: &str) -> Verdict {
        self.interrupt(who, operation);
        let mut state = self.state();
        if state.is_dead(who) {
            state.write(operation, who, detail, " -> crashed");
            return Verdict::Dead;
        }
        let verdict = state.verdict(operation);
        let outcome = match verdict {
            Verdict::Pass => String::new(),
            Verdict::Fail(error) => format!(" -> {error}"),
            Verdict::LoseReply => " -> reply lost".to_owned(),
            Verdict::Delay(ms) => format!(" -> arrives {ms} ms later"),
            Verdict::Dead => " -> crashed".to_owned(),
        };
        state.write(operation, who, detail, &outcome);
        verdict
    }

    /// Whether a restore reads nothing this time.
    pub(super) fn restores_nothing(&self) -> bool {
        let mut state = self.state();
        let one_in = state.rates.empty_restore_one_in;
        let nothing = state.seed.one_in(one_in);
        if nothing {
            state.inject("empty restore");
        }
        nothing
    }

    pub(super) fn decide_delivery(&self, who: &str, detail: &str) -> Delivery {
        self.interrupt(who, Operation::Produce);
        let mut state = self.state();
        if state.is_dead(who) {
            state.write(Operation::Produce, who, detail, " -> crashed");
            return Delivery::Dead;
        }
        let rates = state.rates;
        let (delivery, outcome) = if state.seed.one_in(rates.delayed_delivery_one_in) {
            state.inject("delayed delivery");
            (Delivery::Later, " -> delayed")
        } else if state.seed.one_in(rates.failed_delivery_one_in) {
            state.inject("failed delivery");
            let appended = state.seed.one_in(2);
            (Delivery::GivenUp { appended }, if appended { " -> given up, appended" } else { " -> given up" })
        } else if state.seed.one_in(rates.lost_reply_one_in) {
            state.inject("produce sent twice");
            (Delivery::Twice, " -> sent twice")
        } else {
            (Delivery::Now, "")
        };
        state.write(Operation::Produce, who, detail, outcome);
        delivery
    }
}

impl State {
    fn inject(&mut self, kind: &'static str) {
        *self.injected.entry(kind).or_default() += 1;
    }

    /// How a call of a host that lives goes.
    fn verdict(&mut self, operation: Operation) -> Verdict {
        let rates = self.rates;
        let is_coordinated = matches!(
            operation,
            Operation::InitProducerId | Operation::AddPartitions | Operation::SendOffsets | Operation::EndTransaction
        );
        let has_effect = (is_coordinated && operation != Operation::AddPartitions)
            || matches!(operation, Operation::Commit | Operation::CreateTopic | Operation::Leave);
        if self.seed.one_in(rates.retriable_one_in) {
            let (kind, error) = if is_coordinated {
                ("coordinator error", COORDINATOR_ERRORS[self.seed.below(COORDINATOR_ERRORS.len() as u64) as usize])
            } else {
                ("retriable error", "the connection was closed before the request was sent")
            };
            self.inject(kind);
            Verdict::Fail(error)
        } else if has_effect && self.seed.one_in(rates.lost_reply_one_in) {
            self.inject("lost reply");
            Verdict::LoseReply
        } else if operation == Operation::EndTransaction && self.seed.one_in(rates.delayed_end_one_in) {
            self.inject("delayed end of a transaction");
            // Mostly soon, so that it meets what comes right after.
            let limit_ms = if self.seed.one_in(3) { END_DELAY_MAX_MS } else { 400 };
            Verdict::Delay(1 + self.seed.below(limit_ms))
        } else {
            Verdict::Pass
        }
    }

    /// Counts a call of a host that is about to crash.
    fn is_dead(&mut self, who: &str) -> bool {
        let host = who.rsplit_once('-').map_or(who, |(host, _)| host);
        let Some(calls) = self.crashing.get_mut(host) else { return false };
        let dead = *calls == 0;
        *calls = calls.saturating_sub(1);
        dead
    }

    fn write(&mut self, operation: Operation, who: &str, detail: &str, outcome: &str) {
        self.calls += 1;
        let parts = [&[operation as u8][..], who.as_bytes(), &[0], detail.as_bytes(), &[0], outcome.as_bytes()];
        for &byte in parts.into_iter().flatten() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>6} {who:<10} {operation:?} {detail}{outcome}", self.calls));
        }
    }
}
