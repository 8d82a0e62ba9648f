//! The load driver: connections that are kept, each with a thread of its own that sends the next request when it has
//! the answer to the last one. A blocked thread costs less than a runtime would on a machine that is shared with the
//! host.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use e2e::http::Client;

use super::Plan;
use crate::measure::cpu_time_of;

/// How long an answer may take before the request has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to ask, and how hard.
pub struct Load {
    pub address: SocketAddr,
    /// The processes whose CPU time counts.
    pub processes: Vec<u32>,
    pub connections: usize,
    pub time: Duration,
    /// The status of a good answer.
    pub status: u16,
}

impl Load {
    /// Requests that are answered with 200.
    pub fn of(plan: &Plan, address: SocketAddr, processes: Vec<u32>) -> Self {
        Self { address, processes, connections: plan.connections, time: plan.time, status: 200 }
    }

    fn cpu_time(&self) -> Result<Duration> {
        self.processes.iter().map(|process| cpu_time_of(&process.to_string())).sum()
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Requests with a good answer.
    pub requests: u64,
    pub failed: u64,
    pub wall: Duration,
    pub cpu: Duration,
    /// Of the good answers, in order.
    latencies_us: Vec<u32>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.wall.as_secs_f64()
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }

    /// The time within which so many of a thousand answers came.
    pub fn latency_ms(&self, per_mille: usize) -> f64 {
        let rank = (self.latencies_us.len() * per_mille).div_ceil(1_000).max(1);
        self.latencies_us.get(rank - 1).map_or(0.0, |&us| f64::from(us) / 1_000.0)
    }
}

/// Sends requests for as long as the load says. `request` makes one from a number that looks random.
///
/// # Errors
/// When none of the requests had a good answer, or a process is gone.
pub fn drive(load: &Load, request: &(dyn Fn(u64) -> Vec<u8> + Sync)) -> Result<Measured> {
    let end = Instant::now() + load.time;
    drive_while(load, &|| Instant::now() < end, request)
}

/// The same for as long as `goes_on` says.
///
/// # Errors
/// As `drive`.
pub fn drive_while(
    load: &Load,
    goes_on: &(dyn Fn() -> bool + Sync),
    request: &(dyn Fn(u64) -> Vec<u8> + Sync),
) -> Result<Measured> {
    let (cpu_before, start) = (load.cpu_time()?, Instant::now());
    let parts: Vec<Part> = thread::scope(|scope| {
        let of_connection = |number: usize| scope.spawn(move || Part::run(load, number as u64, goes_on, request));
        let threads: Vec<_> = (0..load.connections).map(of_connection).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("the driver panicked")))
            .collect::<Result<_>>()
    })?;
    let (wall, cpu) = (start.elapsed(), load.cpu_time()?.saturating_sub(cpu_before));
    let failed = parts.iter().map(|part| part.failed).sum();
    let last = parts.iter().find_map(|part| part.why.clone()).unwrap_or_default();
    let mut latencies_us: Vec<u32> = parts.into_iter().flat_map(|part| part.latencies_us).collect();
    ensure!(!latencies_us.is_empty(), "no request had a good answer; one was: {last}");
    latencies_us.sort_unstable();
    Ok(Measured { requests: latencies_us.len() as u64, failed, wall, cpu, latencies_us })
}

/// What one connection did.
#[derive(Default)]
struct Part {
    latencies_us: Vec<u32>,
    failed: u64,
    why: Option<String>,
}

impl Part {
    fn run(load: &Load, number: u64, goes_on: &dyn Fn() -> bool, request: &dyn Fn(u64) -> Vec<u8>) -> Self {
        let mut part = Self::default();
        let mut client = Client::new(load.address, TIMEOUT);
        let mut step = 0;
        while goes_on() {
            let bytes = request(scatter((number << 40) | step));
            step += 1;
            let sent = Instant::now();
            match client.send(&bytes) {
                Ok(answer) if answer.head.status == load.status => {
                    part.latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                Ok(answer) => part.fail(format!("{} {}", answer.head.status, String::from_utf8_lossy(&answer.body))),
                Err(error) => part.fail(error.to_string()),
            }
        }
        part
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.why.get_or_insert(why);
        // An address where nobody listens would be asked many thousand times a second.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Spreads numbers that follow each other (splitmix64).
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
