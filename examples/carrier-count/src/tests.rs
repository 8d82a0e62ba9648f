//! The counts of all flights of 2013 against those that DuckDB found.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use sandbar::testing::{TestDriver, TestRecord};

use super::*;

fn csv(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/nycflights13").join(name);
    let mut text = String::new();
    GzDecoder::new(File::open(path)?).read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn counts_a_carrier() -> Result<()> {
    let mut driver = TestDriver::<CarrierCount>::new()?;
    driver.pipe("UA", &None, 1)?;
    driver.pipe("AA", &None, 2)?;
    driver.pipe("UA", &Some(b"{}".to_vec()), 3)?;

    assert_eq!(driver.store(|p| &p.counts).get("UA"), Some(2));
    let totals: Vec<_> = driver.read(|p| &p.totals).into_iter().map(|total| (total.key, total.value)).collect();
    assert_eq!(totals, [("UA".into(), 1), ("AA".into(), 1), ("UA".into(), 2)]);
    Ok(())
}

#[test]
fn refuses_a_flight_without_a_carrier() -> Result<()> {
    let mut driver = TestDriver::<CarrierCount>::new()?;
    let refused = driver.pipe_all(vec![TestRecord { timestamp: 1, ..TestRecord::default() }])?;
    assert_eq!(refused[0].reason, "deserialization: the key is null where UTF-8 text was expected");
    Ok(())
}

#[test]
fn counts_all_flights_of_2013() -> Result<()> {
    let flights = csv("flights.csv.gz")?;
    let column = flights.lines().next().and_then(|header| header.split(',').position(|name| name == "carrier"));
    let column = column.ok_or_else(|| Error::new("no column carrier"))?;
    let mut records = Vec::new();
    for (line, index) in flights.lines().skip(1).zip(1..) {
        let carrier = line.split(',').nth(column).unwrap_or_default();
        records.push(TestRecord::new::<Str, Option<Raw>>(carrier, &None, index)?);
    }

    let mut driver = TestDriver::<CarrierCount>::new()?;
    assert_eq!(driver.pipe_all(records)?, []);

    let expected = csv("expected/count_by_carrier.csv.gz")?;
    let expected: BTreeMap<String, i64> = expected
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .map(|(carrier, count)| Ok((carrier.to_owned(), count.parse()?)))
        .collect::<Result<_>>()?;
    assert_eq!(expected.len(), 16);
    let counts: BTreeMap<String, i64> = driver.store(|p| &p.counts).entries().into_iter().collect();
    assert_eq!(counts, expected);
    let totals: BTreeMap<String, i64> =
        driver.read(|p| &p.totals).into_iter().map(|total| (total.key, total.value)).collect();
    assert_eq!(totals, expected);
    Ok(())
}
