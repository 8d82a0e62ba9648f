//! What a module may use: the limits of an application with their manifest keys, and the budget of one call that is
//! counted against them. A limit is never zero and never absent.

use engine::processor::ProcessorError;

/// The bounds of one application's instances. Each field has a key of the manifest with the same meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// `processor.deadline.ms`: CPU time that one call may take, in milliseconds; `crate::deadline` says how it is
    /// counted.
    pub deadline_ms: u64,
    /// `processor.memory.max.bytes`: linear memory of one instance, all its memories together.
    pub memory_max_bytes: u64,
    /// `processor.memory.total.max.bytes`: linear memory of all instances of the application on this host.
    pub memory_total_max_bytes: u64,
    /// `processor.table.max.elements`: elements of all tables of one instance (function pointers, mostly).
    pub table_max_elements: u64,
    /// `processor.output.max.records`: records that one call may forward.
    pub output_max_records: u64,
    /// `processor.output.max.bytes`: keys, values and headers that one call may forward; also what one host call may
    /// take from the guest.
    pub output_max_bytes: u64,
    /// `processor.host.max.calls`: calls of imports within one call.
    pub host_max_calls: u64,
    /// `processor.state.max.operations`: keys read or written by `get`, `put` and their batches within one call.
    pub state_max_operations: u64,
    /// `processor.state.max.scan.entries`: entries that ranges may return within one call.
    pub state_max_scan_entries: u64,
    /// `processor.state.max.read.bytes`: bytes that state reads may return within one call.
    pub state_max_read_bytes: u64,
    /// `processor.state.max.write.bytes`: bytes that one call may write.
    pub state_max_write_bytes: u64,
    /// `processor.log.max.lines`: lines of one call that reach the log. Further lines are dropped and counted in one
    /// line of the host's; they still count as host calls.
    pub log_max_lines: u64,
    /// `processor.log.max.lines.per.second`: lines of all instances of the application on this host that reach the log
    /// within a second.
    pub log_max_lines_per_second: u64,
    /// `processor.log.max.bytes.per.second`: their bytes, as they stand in the log.
    pub log_max_bytes_per_second: u64,
    /// `processor.schedule.max.count`: schedules that one instance may hold.
    pub schedule_max_count: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 2_000,
            memory_max_bytes: 64 << 20,
            memory_total_max_bytes: 1 << 30,
            table_max_elements: 100_000,
            output_max_records: 1_000_000,
            output_max_bytes: 64 << 20,
            host_max_calls: 1_000_000,
            state_max_operations: 1_000_000,
            state_max_scan_entries: 1_000_000,
            state_max_read_bytes: 256 << 20,
            state_max_write_bytes: 64 << 20,
            log_max_lines: 1_000,
            log_max_lines_per_second: 10_000,
            log_max_bytes_per_second: 4 << 20,
            schedule_max_count: 1_000,
        }
    }
}

/// A manifest key of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitKey {
    pub key: &'static str,
    pub default: u64,
    /// One sentence for the reference.
    pub meaning: &'static str,
}

/// Why a limit was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitKeyError {
    #[error("no limit has the key {key}")]
    Unknown { key: String },
    #[error("{key} must be at least {least}, not {found}")]
    TooSmall { key: &'static str, least: u64, found: u64 },
    #[error("{key} must be at most {most}, not {found}")]
    TooLarge { key: &'static str, most: u64, found: u64 },
}

/// One row per key: the key, the smallest and the largest sensible value, the sentence for the reference, the field.
type Row = (&'static str, u64, u64, &'static str, fn(&mut Limits) -> &mut u64);

pub(crate) const DEADLINE_KEY: &str = "processor.deadline.ms";
pub(crate) const MEMORY_KEY: &str = "processor.memory.max.bytes";
pub(crate) const MEMORY_TOTAL_KEY: &str = "processor.memory.total.max.bytes";
pub(crate) const LOG_KEY: &str = "processor.log.max.lines";
pub(crate) const LOG_LINES_RATE_KEY: &str = "processor.log.max.lines.per.second";
pub(crate) const LOG_BYTES_RATE_KEY: &str = "processor.log.max.bytes.per.second";

const GIB: u64 = 1 << 30;
const COUNT_MAX: u64 = 1 << 40;

/// How many limits there are.
pub(crate) const KEYS: usize = 15;

const ROWS: [Row; KEYS] = [
    (
        DEADLINE_KEY,
        1,
        3_600_000,
        "CPU time that one call of the module may take: a start, `init`, `punctuate`, or `process` with one record; with \
         more it has twice as much. A call that has not ended after ten times as long by the clock is ended too.",
        |l| &mut l.deadline_ms,
    ),
    // A 32-bit memory ends at 4 GiB; one page is the least that a memory can have.
    (MEMORY_KEY, 65_536, 4 * GIB, "Linear memory of one instance.", |l| &mut l.memory_max_bytes),
    (
        MEMORY_TOTAL_KEY,
        65_536,
        COUNT_MAX,
        "Linear memory of all instances of the application on this host together. There is one instance for each task.",
        |l| &mut l.memory_total_max_bytes,
    ),
    ("processor.table.max.elements", 1, 10_000_000, "Elements of all tables of one instance.", |l| {
        &mut l.table_max_elements
    }),
    ("processor.output.max.records", 1, COUNT_MAX, "Records that one call may forward.", |l| &mut l.output_max_records),
    (
        "processor.output.max.bytes",
        1_024,
        2 * GIB,
        "Bytes of keys, values and headers that one call may forward, and that one host call may take.",
        |l| &mut l.output_max_bytes,
    ),
    ("processor.host.max.calls", 1, COUNT_MAX, "Calls of imports within one call.", |l| &mut l.host_max_calls),
    ("processor.state.max.operations", 1, COUNT_MAX, "Keys read or written within one call.", |l| {
        &mut l.state_max_operations
    }),
    ("processor.state.max.scan.entries", 1, COUNT_MAX, "Entries that ranges may return within one call.", |l| {
        &mut l.state_max_scan_entries
    }),
    ("processor.state.max.read.bytes", 1_024, 64 * GIB, "Bytes that state reads may return within one call.", |l| {
        &mut l.state_max_read_bytes
    }),
    ("processor.state.max.write.bytes", 1_024, 64 * GIB, "Bytes that one call may write to its stores.", |l| {
        &mut l.state_max_write_bytes
    }),
    (LOG_KEY, 1, COUNT_MAX, "Log lines of one call; the rest is dropped and counted.", |l| &mut l.log_max_lines),
    (
        LOG_LINES_RATE_KEY,
        1,
        COUNT_MAX,
        "Log lines of all instances of the application on this host within a second; the rest is dropped and counted.",
        |l| &mut l.log_max_lines_per_second,
    ),
    (
        LOG_BYTES_RATE_KEY,
        1_024,
        COUNT_MAX,
        "Bytes of those lines within a second; the rest is dropped and counted.",
        |l| &mut l.log_max_bytes_per_second,
    ),
    ("processor.schedule.max.count", 1, 1_000_000, "Schedules that one instance may hold.", |l| {
        &mut l.schedule_max_count
    }),
];

impl Limits {
    /// All keys in the order of the reference.
    pub fn keys() -> impl Iterator<Item = LimitKey> {
        let mut defaults = Self::default();
        ROWS.iter().map(move |(key, _, _, meaning, field)| LimitKey { key, default: *field(&mut defaults), meaning })
    }

    /// The keys whose values differ from the defaults.
    pub fn changed(&self) -> Vec<(String, String)> {
        let (mut own, mut defaults) = (self.clone(), Self::default());
        let changed = ROWS.iter().filter(|(.., field)| *field(&mut own) != *field(&mut defaults));
        let keys: Vec<&Row> = changed.collect();
        keys.into_iter().map(|(key, _, _, _, field)| ((*key).to_owned(), field(&mut own).to_string())).collect()
    }

    /// The place of a key in `keys`.
    pub(crate) fn position(key: &str) -> Option<usize> {
        ROWS.iter().position(|row| row.0 == key)
    }

    /// Sets the limit with this manifest key.
    pub fn set(&mut self, key: &str, value: u64) -> Result<(), LimitKeyError> {
        let row = ROWS.iter().find(|row| row.0 == key);
        let &(key, least, most, _, field) = row.ok_or_else(|| LimitKeyError::Unknown { key: key.to_owned() })?;
        if value < least {
            return Err(LimitKeyError::TooSmall { key, least, found: value });
        }
        if value > most {
            return Err(LimitKeyError::TooLarge { key, most, found: value });
        }
        *field(self) = value;
        Ok(())
    }
}

/// What the running call has used so far.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    pub host_calls: u64,
    state_operations: u64,
    scan_entries: u64,
    read_bytes: u64,
    write_bytes: u64,
}

/// Adds to a counter and fails once it is above its limit.
fn spend(
    counter: &mut u64,
    amount: usize,
    limit: u64,
    name: &'static str,
    key: &'static str,
) -> Result<(), ProcessorError> {
    *counter = counter.saturating_add(amount as u64);
    if *counter > limit {
        return Err(ProcessorError::Limit { name, key, limit, found: *counter });
    }
    Ok(())
}

impl Budget {
    pub fn host_call(&mut self, limits: &Limits) -> Result<(), ProcessorError> {
        spend(&mut self.host_calls, 1, limits.host_max_calls, "host calls", "processor.host.max.calls")
    }

    pub fn operations(&mut self, keys: usize, limits: &Limits) -> Result<(), ProcessorError> {
        let (counter, limit) = (&mut self.state_operations, limits.state_max_operations);
        spend(counter, keys, limit, "state operations", "processor.state.max.operations")
    }

    pub fn scan(&mut self, entries: usize, limits: &Limits) -> Result<(), ProcessorError> {
        let (counter, limit) = (&mut self.scan_entries, limits.state_max_scan_entries);
        spend(counter, entries, limit, "scanned entries", "processor.state.max.scan.entries")
    }

    pub fn read(&mut self, bytes: usize, limits: &Limits) -> Result<(), ProcessorError> {
        let (counter, limit) = (&mut self.read_bytes, limits.state_max_read_bytes);
        spend(counter, bytes, limit, "state bytes read", "processor.state.max.read.bytes")
    }

    pub fn write(&mut self, bytes: usize, limits: &Limits) -> Result<(), ProcessorError> {
        let (counter, limit) = (&mut self.write_bytes, limits.state_max_write_bytes);
        spend(counter, bytes, limit, "state bytes written", "processor.state.max.write.bytes")
    }
}

#[cfg(test)]
mod tests;
