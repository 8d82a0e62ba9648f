//! `sim`: replays one schedule with its trace, or plays many.

mod long;

use std::path::Path;
use std::process::ExitCode;

use sim::campaign::{Campaign, Failure, schedules};
use sim::{Kind, Scenario, run};

const USAGE: &str = "usage: sim replay KIND SEED   one schedule, with every call
       sim hunt FROM TO       as `play`, until the first one fails
       sim play FROM TO       the schedules with these numbers, of all kinds
       sim kind KIND FROM TO  the seeds of one kind
       sim long FILE TO       the schedules up to this number that the file has not, in slices that are written to it";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match command(&arguments) {
        Ok(passed) => ExitCode::from(u8::from(!passed)),
        Err(fault) => {
            eprintln!("sim: {fault}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a number, found {text:?}"))
}

fn command(arguments: &[String]) -> Result<bool, String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["replay", kind, seed] => Ok(replay(kind.parse()?, number(seed)?)),
        ["hunt", from, to] => Ok(hunt(&schedules(number(from)?, number(to)?))),
        ["play", from, to] => Ok(play(&schedules(number(from)?, number(to)?))),
        ["kind", kind, from, to] => {
            let kind: Kind = kind.parse()?;
            Ok(play(&(number(from)?..number(to)?).map(|seed| (kind, seed)).collect::<Vec<_>>()))
        }
        ["long", file, to] => long::play(Path::new(file), number(to)?),
        _ => Err("no such command".to_owned()),
    }
}

fn replay(kind: Kind, seed: u64) -> bool {
    let scenario = Scenario::new(kind, seed);
    let report = run(&scenario, true);
    println!("{scenario:#?}\n{}\n{kind} seed {seed}: {}", report.trace.join("\n"), report.summary);
    println!("coverage {:?}\ndigest {:016x}", report.coverage, report.digest);
    report.violations.iter().for_each(|violation| println!("violation: {violation}"));
    report.violations.is_empty()
}

fn hunt(schedules: &[(Kind, u64)]) -> bool {
    let campaign = Campaign::play(schedules, 1);
    if let Some(Failure { kind, seed, violations, .. }) = campaign.failures.first() {
        let violation = violations.first().map(ToString::to_string).unwrap_or_default();
        println!("{kind} seed {seed}: {}", violation.chars().take(160).collect::<String>());
    }
    campaign.failures.is_empty()
}

fn play(schedules: &[(Kind, u64)]) -> bool {
    let campaign = Campaign::play(schedules, usize::MAX);
    println!("{}", campaign.describe_failures());
    println!("faults {:?}\ncoverage {:#?}", campaign.counts, campaign.coverage);
    println!("{} schedules, {} failed: {:?}", schedules.len(), campaign.failures.len(), campaign.played);
    campaign.failures.is_empty()
}
