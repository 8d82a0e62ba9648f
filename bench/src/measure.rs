//! What a run cost: wall time, CPU time of the whole process and its peak memory, read from /proc. Takes medians over
//! rounds that were run by turns, because this kind of figure drifts with the machine. Never judges.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Clock ticks per second of `/proc/self/stat`; fixed on Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// One measured run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub records: u64,
    pub wall: Duration,
    /// User and system time of every thread of this process, in 10 ms steps.
    pub cpu: Duration,
}

impl Sample {
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.wall.as_secs_f64()
    }

    pub fn cpu_us_per_record(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.records as f64
    }
}

/// Runs `work`, which returns the number of records it did, and measures it.
pub fn measure(work: impl FnOnce() -> Result<u64>) -> Result<Sample> {
    let cpu_before = cpu_time()?;
    let start = Instant::now();
    let records = work()?;
    let wall = start.elapsed();
    let cpu = cpu_time()?.saturating_sub(cpu_before);
    Ok(Sample { records, wall, cpu })
}

/// User and system time of this process so far.
pub fn cpu_time() -> Result<Duration> {
    cpu_time_of("self")
}

/// User and system time of the calling thread so far.
pub fn thread_cpu_time() -> Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let field = text.split_ascii_whitespace().next().with_context(|| format!("{path} is empty"))?;
    Ok(Duration::from_nanos(field.parse().with_context(|| format!("{path} begins with {field}"))?))
}

/// User and system time so far of a process, by its number or `self`.
pub fn cpu_time_of(process: &str) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The command name is in parentheses and may hold spaces; fields are counted after the last one.
    let rest = stat.rsplit_once(')').with_context(|| format!("{path} has no command name"))?.1;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = 0;
    for name in ["utime", "stime"] {
        let field = fields.next().with_context(|| format!("{path} has no {name}"))?;
        ticks += field.parse::<u64>().with_context(|| format!("{name} in {path} is {field}"))?;
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// A line of `/proc/self/status` in kB, for example `VmHWM` (peak resident memory) or `VmRSS`.
pub fn memory_kb(name: &str) -> Result<u64> {
    memory_kb_of("self", name)
}

/// The same of a process, by its number or `self`.
pub fn memory_kb_of(process: &str, name: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name} in {path}"))?;
    let field = line.split_ascii_whitespace().nth(1).with_context(|| format!("{name} in {path} has no value"))?;
    field.parse().with_context(|| format!("{name} in {path} is {field}"))
}

/// The load of the machine over the last minute, as the kernel prints it.
pub fn load_average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    Ok(text.split_ascii_whitespace().next().unwrap_or("?").to_owned())
}

/// Minimum, median and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

/// The spread of at least one value.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some(Spread { min, median, max })
}

#[cfg(test)]
mod tests;
