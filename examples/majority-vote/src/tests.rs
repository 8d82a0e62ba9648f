//! The vote by hand, and over a year of weather at three airports against the answers that DuckDB found.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use sandbar::testing::{TestDriver, TestRecord};

use super::*;

const HOUR_MS: i64 = 3_600_000;

fn report(agent: &str, state: bool, at_ms: i64) -> Report {
    Report { agent: agent.to_owned(), state, at_ms }
}

fn pipe(driver: &mut TestDriver<MajorityVote>, object: &str, report: &Report) -> Result<()> {
    driver.pipe(object, &Some(report.clone()), report.at_ms)
}

#[test]
#[cfg(not(feature = "two-thirds"))]
fn more_than_half_of_the_agents_decide() -> Result<()> {
    let mut driver = TestDriver::<MajorityVote>::new()?;
    pipe(&mut driver, "fog", &report("EWR", true, 10))?;
    pipe(&mut driver, "fog", &report("JFK", false, 20))?;
    pipe(&mut driver, "fog", &report("LGA", true, 30))?;
    pipe(&mut driver, "fog", &report("EWR", false, 40))?;

    let votes: Vec<Vote> = driver.read(|p| &p.votes).into_iter().map(|vote| vote.value).collect();
    let vote = |at_ms, yes, agents, state| Vote { at_ms, yes, agents, state };
    assert_eq!(votes, [vote(10, 1, 1, true), vote(20, 1, 2, false), vote(30, 2, 3, true), vote(40, 1, 3, false)]);
    Ok(())
}

#[test]
#[cfg(feature = "two-thirds")]
fn more_than_two_thirds_of_the_agents_decide() -> Result<()> {
    let mut driver = TestDriver::<MajorityVote>::new()?;
    for (at_ms, agent, state) in [(10, "EWR", true), (20, "JFK", false), (30, "LGA", true), (40, "JFK", true)] {
        pipe(&mut driver, "fog", &report(agent, state, at_ms))?;
    }
    pipe(&mut driver, "fog", &report("BOS", false, 50))?;

    let votes: Vec<Vote> = driver.read(|p| &p.votes).into_iter().map(|vote| vote.value).collect();
    let vote = |at_ms, yes, agents, state| Vote { at_ms, yes, agents, state };
    // Two of three are more than half of them, but not more than two thirds; three of four are.
    let expected = [
        vote(10, 1, 1, true),
        vote(20, 1, 2, false),
        vote(30, 2, 3, false),
        vote(40, 3, 3, true),
        vote(50, 3, 4, true),
    ];
    assert_eq!(votes, expected);
    Ok(())
}

/// What a version kept is read by the other: the formats of the stores are the same.
#[test]
fn both_versions_declare_the_same() -> Result<()> {
    let driver = TestDriver::<MajorityVote>::new()?;
    let [part] = driver.topology().sub_topologies.as_slice() else { bail!("one part was expected") };
    let sources: Vec<_> = part.sources.iter().map(|source| source.name.as_str()).collect();
    let sinks: Vec<_> = part.sinks.iter().map(|sink| sink.name.as_str()).collect();
    let stores: Vec<_> =
        part.stores.iter().map(|store| (store.name.as_str(), store.value_format.as_str(), store.version)).collect();
    assert_eq!((sources, sinks), (vec!["reports"], vec!["votes", "summaries"]));
    assert_eq!(stores, [("latest", "json", 1), ("schedule", "json", 1)]);
    Ok(())
}

#[test]
fn an_overtaken_report_changes_nothing() -> Result<()> {
    let mut driver = TestDriver::<MajorityVote>::new()?;
    pipe(&mut driver, "fog", &report("EWR", true, 20))?;
    pipe(&mut driver, "fog", &report("EWR", false, 10))?;

    assert_eq!(driver.read(|p| &p.votes)[1].value, Vote { at_ms: 20, yes: 1, agents: 1, state: true });
    assert_eq!(driver.store(|p| &p.latest).get("fog").unwrap_or_default()["EWR"].at_ms, 20);
    Ok(())
}

#[test]
fn a_report_without_a_value_forgets_its_object() -> Result<()> {
    let mut driver = TestDriver::<MajorityVote>::new()?;
    pipe(&mut driver, "fog", &report("EWR", true, 10))?;
    let known = TestRecord::new::<String, Json<Report>>("fog", &report("EWR", true, 20), 20)?;
    assert!(driver.pipe_all(vec![TestRecord { value: None, ..known }])?.is_empty());
    assert!(driver.store(|p| &p.latest).entries().is_empty() && driver.store(|p| &p.schedule).entries().is_empty());
    assert_eq!(driver.read_nullable(|p| &p.summaries).last().map(|summary| summary.value.is_none()), Some(true));
    Ok(())
}

#[test]
fn a_malformed_report_is_refused_and_the_others_count() -> Result<()> {
    let mut driver = TestDriver::<MajorityVote>::new()?;
    let good = TestRecord::new::<String, Json<Report>>("fog", &report("EWR", true, 10), 10)?;
    let bad = TestRecord { value: Some(b"{\"agent\":\"JFK\"}".to_vec()), ..good.clone() };
    let refused = driver.pipe_all(vec![good.clone(), bad, good])?;

    assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1]);
    assert!(refused[0].reason.contains("missing field `state`"), "{}", refused[0].reason);
    assert_eq!(driver.read(|p| &p.votes).len(), 2);
    Ok(())
}

#[test]
fn every_hour_a_summary_and_after_a_day_of_silence_nothing() -> Result<()> {
    let mut driver = TestDriver::<MajorityVote>::new()?;
    pipe(&mut driver, "fog", &report("EWR", true, 30 * HOUR_MS))?;
    pipe(&mut driver, "rain", &report("EWR", false, 30 * HOUR_MS + 1))?;
    pipe(&mut driver, "rain", &report("EWR", true, 31 * HOUR_MS))?;
    let summaries = driver.read_nullable(|p| &p.summaries);
    // The first record fires the schedule at once, then every full hour does.
    let keys: Vec<_> = summaries.iter().map(|summary| (summary.key.as_str(), summary.timestamp)).collect();
    assert_eq!(keys, [("fog", 30 * HOUR_MS), ("fog", 31 * HOUR_MS), ("rain", 31 * HOUR_MS)]);
    let rain = summaries[2].value.clone().ok_or_else(|| Error::new("a tombstone"))?;
    assert_eq!((rain.reports, rain.vote.state), (2, true));

    pipe(&mut driver, "rain", &report("EWR", true, 54 * HOUR_MS))?;
    let summaries = driver.read_nullable(|p| &p.summaries);
    assert_eq!(summaries[0].key, "fog");
    assert_eq!(summaries[0].value, None);
    assert_eq!(driver.store(|p| &p.latest).entries().len(), 1);
    assert_eq!(driver.store(|p| &p.schedule).entries().len(), 1);
    Ok(())
}

fn csv(name: &str) -> Result<Vec<Vec<String>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/nycflights13").join(name);
    let mut text = String::new();
    GzDecoder::new(File::open(path)?).read_to_string(&mut text)?;
    Ok(text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect())
}

/// Milliseconds of `2013-01-01T06:00:00Z`: days of the year 2013 and on, hours.
fn millis(time: &str) -> Result<i64> {
    let part = |range: std::ops::Range<usize>| -> Result<i64> {
        Ok(time.get(range).ok_or_else(|| Error::new(format_args!("no time: {time}")))?.parse()?)
    };
    let (year, month, day, hour) = (part(0..4)?, part(5..7)?, part(8..10)?, part(11..13)?);
    // Days from the civil calendar, with March as the first month.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Ok((days * 24 + hour) * HOUR_MS)
}

/// Three reports a line of weather, in event-time order.
fn reports() -> Result<Vec<TestRecord>> {
    let lines = csv("weather.csv.gz")?;
    let (header, lines) = lines.split_first().ok_or_else(|| Error::new("no weather"))?;
    let column = |name: &str| {
        header.iter().position(|other| other == name).ok_or_else(|| Error::new(format_args!("no column {name}")))
    };
    let (station, time) = (column("origin")?, column("time_hour")?);
    let (rain, fog, wind) = (column("precip")?, column("visib")?, column("wind_speed")?);
    let mut records = Vec::new();
    for line in lines {
        let at_ms = millis(&line[time])?;
        // A missing measurement is NaN, for which no comparison holds.
        let measured = |column: usize| line[column].parse::<f64>().unwrap_or(f64::NAN);
        for (object, state) in
            [("rain", measured(rain) > 0.0), ("fog", measured(fog) < 5.0), ("wind", measured(wind) > 15.0)]
        {
            let report = report(&line[station], state, at_ms);
            records.push(TestRecord::new::<String, Json<Report>>(object, &report, at_ms)?);
        }
    }
    records.sort_by_key(|record| record.timestamp);
    Ok(records)
}

/// The last vote of every (object, hour).
fn answers(batch_records: usize, records: Vec<TestRecord>) -> Result<BTreeMap<(String, i64), Vote>> {
    let mut driver = TestDriver::<MajorityVote>::builder().batch_records(batch_records).start()?;
    assert_eq!(driver.pipe_all(records)?, []);
    let votes = driver.read(|p| &p.votes).into_iter();
    Ok(votes.map(|vote| ((vote.key, vote.value.at_ms), vote.value)).collect())
}

#[test]
fn all_26142_hours_of_2013_are_right() -> Result<()> {
    let mut expected = BTreeMap::new();
    let mut decided_otherwise = 0;
    for line in csv("expected/majority_vote.csv.gz")?.iter().skip(1) {
        let [key, at_ms, yes, agents, state] = line.as_slice() else { bail!("unexpected line {line:?}") };
        let mut vote =
            Vote { at_ms: at_ms.parse()?, yes: yes.parse()?, agents: agents.parse()?, state: state.parse()? };
        if cfg!(feature = "two-thirds") {
            // The table has the decision of more than half; at three airports more than two thirds are all of them.
            decided_otherwise += usize::from(vote.state && vote.yes < vote.agents);
            vote.state = vote.yes == vote.agents;
        }
        expected.insert((key.clone(), vote.at_ms), vote);
    }
    assert_eq!(expected.len(), 26_142);
    assert_eq!(decided_otherwise > 0, cfg!(feature = "two-thirds"));

    let records = reports()?;
    let found = answers(500, records.clone())?;
    assert_eq!(found.len(), 26_142);
    let wrong = expected.iter().filter(|(key, vote)| found.get(key) != Some(vote)).collect::<Vec<_>>();
    assert!(wrong.is_empty(), "{} wrong, first {:?}", wrong.len(), wrong.first());
    assert!(answers(1, records)? == found, "the batch size changed the result");
    Ok(())
}
