//! Bad versions under load: each is refused, or goes back by itself within its time and says why, and the old one goes
//! on. And deployments that are refused while nothing flows: they change nothing at all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::deploying::{Version, state};
use super::{Campaign, module};

/// A version that must not stay.
#[derive(Debug, Clone, Copy)]
pub struct Bad {
    /// The guest's behaviour.
    pub name: &'static str,
    /// It is found out before it runs.
    pub is_refused: bool,
    /// Only its rate of outputs tells: some go wrong until then.
    pub spoils: bool,
}

const fn refused(name: &'static str) -> Bad {
    Bad { name, is_refused: true, spoils: false }
}

const fn rolled_back(name: &'static str) -> Bad {
    Bad { name, is_refused: false, spoils: false }
}

const fn spoiling(name: &'static str) -> Bad {
    Bad { name, is_refused: false, spoils: true }
}

/// All of them. The short form takes the first ones, of as many kinds as there are.
pub const BAD: [Bad; 22] = [
    rolled_back("trap-every-record"),
    refused("trap-in-init"),
    rolled_back("error-every-call"),
    rolled_back("loop-in-process"),
    rolled_back("sink-out-of-range"),
    rolled_back("grow-memory"),
    rolled_back("trap-in-punctuate"),
    rolled_back("refuse-every-record"),
    spoiling("outputs-none"),
    spoiling("outputs-hundredfold"),
    refused("error-in-init"),
    refused("loop-in-init"),
    rolled_back("trap-first-record"),
    rolled_back("trap-one-key"),
    rolled_back("recurse"),
    rolled_back("panic-huge"),
    rolled_back("flood-log"),
    rolled_back("flood-host-calls"),
    rolled_back("columns-misfit"),
    rolled_back("partition-missing"),
    rolled_back("output-too-large"),
    rolled_back("null-key"),
];

/// How long a bad version may stay.
const BAD_LIMIT: Duration = Duration::from_secs(30);

/// Entries that the old version must commit before and after each.
const ENTRIES: u64 = 2_000;

/// Deploys bad versions one after the other while entries flow.
///
/// # Errors
/// When a host ends, or the old version does not go on.
pub fn under_load(campaign: &mut Campaign, bad: &[Bad]) -> Result<()> {
    let good = campaign.swap()?;
    campaign.wait_tasks(good, Instant::now())?;
    confirmed(campaign)?;
    for bad in bad {
        progress(campaign).with_context(|| format!("before {}", bad.name))?;
        let old = active(campaign)?;
        let module = campaign.next_module();
        let version = campaign.version(module, &[("config.behaviour", bad.name), ("config.key", "0-00001")]);
        if bad.spoils {
            campaign.note_spoiling();
        }
        let started = Instant::now();
        match try_out(campaign, bad, &version, started).with_context(|| bad.name)? {
            Ok(reason) => {
                let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                println!("  {}: {} after {ms} ms: {reason}", bad.name, word(bad));
                campaign.count(&format!("bad versions {}", word(bad)), 1);
                campaign.at_most(&format!("max ms until {}", word(bad)), ms);
            }
            Err(what) => campaign.defect("bad version that stayed", &format!("{}: {what}", bad.name)),
        }
        campaign.faults += 1;
        campaign.wait_tasks(old, Instant::now()).with_context(|| format!("after {}", bad.name))?;
        progress(campaign).with_context(|| format!("after {}", bad.name))?;
    }
    Ok(())
}

fn word(bad: &Bad) -> &'static str {
    if bad.is_refused { "refused" } else { "rolled back" }
}

/// Waits until the probation of the active version is over on every host: they go back to the last version that is
/// confirmed, which is the same for all of them then.
fn confirmed(campaign: &mut Campaign) -> Result<()> {
    let started = Instant::now();
    loop {
        campaign.go_on(Duration::from_millis(50))?;
        let mut open = 0;
        for (_, host) in campaign.hosts.numbered() {
            let (_, document) = host.get(&format!("/v1/apps/{}/versions", campaign.name))?;
            open += usize::from(document["on_probation"] != false);
        }
        if open == 0 {
            return Ok(());
        }
        ensure!(started.elapsed() < BAD_LIMIT, "{open} hosts have confirmed nothing after {BAD_LIMIT:?}");
    }
}

/// The version that is active for the hosts.
fn active(campaign: &mut Campaign) -> Result<u64> {
    let list = campaign.deployer.list()?;
    let is_active = |state: &str| matches!(state, "ACTIVE" | "SWAPPING");
    let number = list.iter().find(|version| is_active(state(version).0)).and_then(|version| version["number"].as_u64());
    number.context("no version is active")
}

/// The old version processes.
fn progress(campaign: &mut Campaign) -> Result<()> {
    let (before, started) = (campaign.committed(), Instant::now());
    loop {
        campaign.go_on(Duration::from_millis(50))?;
        let committed = campaign.committed();
        if committed >= before + ENTRIES {
            return Ok(());
        }
        ensure!(started.elapsed() < BAD_LIMIT, "{committed} entries are committed {BAD_LIMIT:?} after {before}");
    }
}

/// The reason that the hosts show; or what it did in place of that.
fn try_out(campaign: &mut Campaign, bad: &Bad, version: &Version, started: Instant) -> Result<Result<String, String>> {
    let answer = campaign.deployer.deploy(version)?.answer;
    if answer.status == 422 {
        let reason = answer.document["detail"].as_str().unwrap_or_default().to_owned();
        return Ok(match (bad.is_refused, reason.is_empty()) {
            (true, false) => Ok(reason),
            (true, true) => Err("it was refused without a reason".to_owned()),
            (false, _) => Err(format!("it was refused, and should have run: {reason}")),
        });
    }
    if bad.is_refused || answer.status != 201 {
        return Ok(Err(format!("the answer was {} {}", answer.status, answer.document)));
    }
    let number = answer.document["number"].as_u64().context("an answer without a number")?;
    loop {
        campaign.hosts.check_all_alive()?;
        let document = campaign.deployer.version(number)?;
        match state(&document) {
            ("ROLLED_BACK", "") => return Ok(Err("it went back without a reason".to_owned())),
            ("ROLLED_BACK", reason) => return Ok(Ok(reason.to_owned())),
            (state, _) if started.elapsed() > BAD_LIMIT => {
                campaign.deployer.roll_back()?;
                return Ok(Err(format!("it is {state} after {BAD_LIMIT:?}")));
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Deploys what does not fit while nothing flows: whoever looks finds everything as it was.
///
/// # Errors
/// When hosts or broker have no answer.
pub fn refused_at_rest(campaign: &mut Campaign) -> Result<()> {
    campaign.quiet()?;
    settle_versions(campaign)?;
    let good = module("versions-b")?;
    let mut cases: Vec<(&str, Version)> = Vec::new();
    for guest in ["store-less", "other-format", "higher-schema"] {
        cases.push((guest, campaign.version(module(&format!("versions-{guest}"))?, &[])));
    }
    for (name, bytes) in [
        ("an empty module", Vec::new()),
        ("a module that is cut off", good[..good.len() / 2].to_vec()),
        ("bytes that are no module", b"this is no module".repeat(100)),
        ("a module that is no component", b"\0asm\x01\0\0\0".to_vec()),
        ("another world", module("wasi-probe")?),
    ] {
        cases.push((name, campaign.version(bytes, &[])));
    }
    for behaviour in ["trap-in-init", "error-in-init", "loop-in-init"] {
        cases.push((behaviour, campaign.version(good.clone(), &[("config.behaviour", behaviour)])));
    }
    cases.push(("a key that is not there", campaign.version(good.clone(), &[("conifg.label", "1")])));
    for (name, version) in cases {
        let before = campaign.state()?;
        let answer = campaign.deployer.deploy(&version)?.answer;
        // What a broker or a host would still do comes in this time.
        campaign.go_on(Duration::from_millis(300))?;
        let after = campaign.state()?;
        let detail = answer.document["detail"].as_str().unwrap_or_default();
        if !matches!(answer.status, 400 | 422) || detail.is_empty() {
            campaign.defect("not refused", &format!("{name}: {} {}", answer.status, answer.document));
        } else if before != after {
            let differs = |key: &&String| before.get(key.as_str()) != after.get(key.as_str());
            let keys: Vec<&String> = after.as_object().into_iter().flat_map(|map| map.keys()).filter(differs).collect();
            campaign.defect("changed by a refusal", &format!("{name}: {keys:?}"));
        } else {
            println!("  {name}: {}: {detail}", answer.status);
            campaign.count("refusals that changed nothing", 1);
        }
    }
    Ok(())
}

/// Waits until no version is on its way any more.
fn settle_versions(campaign: &mut Campaign) -> Result<()> {
    let started = Instant::now();
    loop {
        let list = campaign.deployer.list()?;
        let states: Vec<&str> = list.iter().map(|version| state(version).0).collect();
        let is_on_its_way = |state: &&str| matches!(*state, "PREPARING" | "READY" | "SWAPPING");
        if !states.iter().any(is_on_its_way) {
            return Ok(());
        }
        if started.elapsed() > BAD_LIMIT {
            bail!("after {BAD_LIMIT:?} a version is still on its way: {states:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
