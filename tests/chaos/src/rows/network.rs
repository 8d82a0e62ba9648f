//! Rows about the broker and the way to it: delayed requests (A7), a killed (B1) or absent (B2) broker, bad networks
//! (B3).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::host::wait_until;

use super::failpoints::binary;
use super::{Request, options, rest};
use crate::campaign::{self, Campaign, Options};
use crate::checker::Defect;
use crate::proxy::{END_TXN, Mode};
use crate::results::Slice;

pub fn delayed_end_txn(request: &Request) -> Slice {
    campaign::run(&delayed_options(request), |campaign| {
        (0..request.faults).try_for_each(|_| delay_end_txn(campaign))?;
        campaign.go_on(Duration::from_secs(2))
    })
}

/// The hole that librdkafka leaves open, to show that the rule is what closes it.
pub fn delayed_end_txn_control(request: &Request) -> Slice {
    let mut options = delayed_options(request);
    options.variables.push(("SANDBAR_KEEP_PRODUCER".to_owned(), "1".to_owned()));
    options.allowed = Defect::ALL.to_vec();
    campaign::run(&options, |campaign| {
        (0..request.faults).try_for_each(|_| delay_end_txn(campaign))?;
        campaign.go_on(Duration::from_secs(2))
    })
}

/// One host, so that every request of interest is its own.
fn delayed_options(request: &Request) -> Options {
    let mut options = options(request, 1_800);
    options.hosts = 1;
    options.static_members = true;
    options.proxied = true;
    options.binary = Some(binary());
    options
}

/// The request that ends a transaction is taken out of its connection; the client sends it again on another, and when
/// the next transaction is under way, the first request arrives.
fn delay_end_txn(campaign: &mut Campaign) -> Result<()> {
    let proxy = campaign.proxy()?;
    let pause_ms = campaign.random.between(200, 900);
    campaign.go_on(Duration::from_millis(pause_ms))?;
    let holding = proxy.hold_next(END_TXN);
    let held = holding.recv_timeout(Duration::from_secs(30)).context("no transaction was ended for 30 s")?;
    campaign.fault((0..campaign.options.partitions).collect());
    // From the middle of the retries to the middle of what follows.
    let wait_ms = campaign.random.between(20, 400);
    campaign.go_on(Duration::from_millis(wait_ms))?;
    match held.release() {
        Ok(0) => campaign.count("late EndTxn accepted", 1),
        Ok(_) => campaign.count("late EndTxn refused", 1),
        Err(_) => campaign.count("late EndTxn not answered", 1),
    }
    Ok(())
}

/// B1: the hosts' clients find nothing at the broker's place until it has started; what a lone Kafka is asked before,
/// it does as the leader of its former life.
pub fn kill_broker(request: &Request) -> Slice {
    let mut options = options(request, 25_000);
    (options.proxied, options.broker_restarts) = (true, true);
    campaign::run(&options, |campaign| {
        for _ in 0..request.faults {
            rest(campaign)?;
            away(campaign, Duration::from_secs(3))?;
        }
        rest(campaign)
    })
}

/// Kills the broker, starts it again after a time, and waits until something is committed again.
fn away(campaign: &mut Campaign, time: Duration) -> Result<()> {
    let proxy = campaign.proxy()?;
    campaign.kafka.kill()?;
    proxy.set(Mode::Cut);
    campaign.fault((0..campaign.options.partitions).collect());
    campaign.go_on(time)?;
    campaign.kafka.start_again()?;
    proxy.set(Mode::Open);
    recovered(campaign)
}

/// Waits until the hosts have committed further, and notes how long that took.
fn recovered(campaign: &mut Campaign) -> Result<()> {
    let started = Instant::now();
    let before = campaign.hosts.committed();
    wait_until(Duration::from_secs(60), || {
        let now = campaign.hosts.committed();
        ensure!(now > before, "{now} entries are committed, as before");
        Ok(())
    })?;
    campaign.hosts.check_all_alive()?;
    campaign.at_most("max ms to the next commit", u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    Ok(())
}

/// B2: away for longer than any request lasts. The hosts stay, and do next to nothing.
pub fn broker_away(request: &Request) -> Slice {
    const AWAY: Duration = Duration::from_secs(70);
    let mut options = options(request, 110_000);
    (options.proxied, options.broker_restarts) = (true, true);
    campaign::run(&options, |campaign| {
        for _ in 0..request.faults {
            rest(campaign)?;
            let before: Vec<Usage> = usages(campaign)?;
            let started = Instant::now();
            away(campaign, AWAY)?;
            let seconds = started.elapsed().as_secs_f64();
            for (before, after) in before.iter().zip(usages(campaign)?) {
                let percent = (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0;
                campaign.at_most("max % CPU of a host", percent.ceil() as u64);
                campaign.at_most("max MB more of a host", after.resident_mb.saturating_sub(before.resident_mb));
            }
        }
        rest(campaign)
    })
}

struct Usage {
    cpu_seconds: f64,
    resident_mb: u64,
}

fn usages(campaign: &Campaign) -> Result<Vec<Usage>> {
    campaign.hosts.process_ids().into_iter().map(usage).collect()
}

fn usage(process: u32) -> Result<Usage> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a strange /proc")?.1.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("a short /proc")?.parse::<f64>()?) };
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok(Usage { cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND, resident_mb: kilobytes / 1_024 })
}

/// B3: each kind of bad network in turn, for some seconds.
pub fn bad_network(request: &Request) -> Slice {
    const MODES: [(&str, Mode); 5] = [
        ("cut", Mode::Cut),
        ("half-open", Mode::HalfOpen),
        ("500 ms late", Mode::Delay(Duration::from_millis(500))),
        ("5 % resets", Mode::Reset(50)),
        ("10 KB/s", Mode::Slow(10_000)),
    ];
    let mut options = options(request, 20_000);
    options.proxied = true;
    campaign::run(&options, |campaign| {
        for (name, mode) in MODES.iter().cycle().take(usize::try_from(request.faults)?) {
            rest(campaign)?;
            let proxy = campaign.proxy()?;
            proxy.set(*mode);
            campaign.fault((0..campaign.options.partitions).collect());
            campaign.count(name, 1);
            let time_ms = campaign.random.between(4_000, 10_000);
            campaign.go_on(Duration::from_millis(time_ms))?;
            proxy.set(Mode::Open);
            recovered(campaign)?;
        }
        rest(campaign)
    })
}
