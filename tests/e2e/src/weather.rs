//! The weather reports of New York's airports as records of the majority vote, in order of event time. Reads the
//! checked-in CSV files; a report is `{agent, state, at_ms}` under the key of its object.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde_json::json;

use crate::repository;

/// One station's statement on one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub object: &'static str,
    pub agent: String,
    pub state: bool,
    pub at_ms: i64,
}

impl Report {
    /// The record as a line for `sandbar topics produce`.
    pub fn to_line(&self) -> String {
        let value = json!({ "agent": self.agent, "state": self.state, "at_ms": self.at_ms });
        json!({ "key": self.object, "value": value, "timestamp": self.at_ms }).to_string()
    }
}

/// An object, the measurement it is read from, and when it holds.
type Object = (&'static str, &'static str, fn(f64) -> bool);

const OBJECTS: [Object; 3] = [
    ("rain", "precip", |inches| inches > 0.0),
    ("fog", "visib", |miles| miles < 5.0),
    ("wind", "wind_speed", |miles_per_hour| miles_per_hour > 15.0),
];

/// All reports, by event time, then station, then object.
///
/// # Errors
/// When the file is missing or not what it should be.
pub fn reports() -> Result<Vec<Report>> {
    let table = read_csv(&repository::root().join("examples/data/nycflights13/weather.csv.gz"))?;
    let (origin, time) = (table.column("origin")?, table.column("time_hour")?);
    let mut reports = Vec::with_capacity(table.rows.len() * OBJECTS.len());
    for row in &table.rows {
        let at_ms = parse_time_ms(&row[time])?;
        for (object, measurement, holds) in OBJECTS {
            let text = &row[table.column(measurement)?];
            let state = match text.as_str() {
                "NA" => false,
                number => holds(number.parse().with_context(|| format!("{measurement} `{number}` is not a number"))?),
            };
            reports.push(Report { object, agent: row[origin].clone(), state, at_ms });
        }
    }
    // Stable, so that reports of one station and hour keep the order of the objects.
    reports.sort_by(|a, b| (a.at_ms, &a.agent).cmp(&(b.at_ms, &b.agent)));
    Ok(reports)
}

/// A CSV file without quoted fields.
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The place of a column.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn column(&self, name: &str) -> Result<usize> {
        self.header.iter().position(|column| column == name).with_context(|| format!("there is no column `{name}`"))
    }
}

/// Reads a gzip-compressed CSV file with a header.
///
/// # Errors
/// When it is missing, damaged, or a row has another number of fields than the header.
pub fn read_csv(path: &Path) -> Result<Table> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).with_context(|| format!("cannot unpack {}", path.display()))?;
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().with_context(|| format!("{} is empty", path.display()))?;
    let rows: Vec<_> = lines.collect();
    for (index, row) in rows.iter().enumerate() {
        let (found, expected) = (row.len(), header.len());
        ensure!(found == expected, "{}:{}: {found} fields instead of {expected}", path.display(), index + 2);
    }
    Ok(Table { header, rows })
}

/// Milliseconds since the epoch of a time such as `2013-01-01T06:00:00Z`.
///
/// # Errors
/// When it has another form.
pub fn parse_time_ms(text: &str) -> Result<i64> {
    let numbers: Vec<i64> = text.split(['-', 'T', ':', 'Z']).filter_map(|part| part.parse().ok()).collect();
    let [year, month, day, hour, minute, second] = numbers[..] else { bail!("`{text}` is not a time in UTC") };
    let days = days_since_epoch(year, month, day);
    Ok((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

/// Days from 1970-01-01 in the Gregorian calendar. Years start in March here, so that a leap day is a year's last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year;
    const EPOCH: i64 = 719_468;
    day_of_era - EPOCH
}

/// The day and hour of a time, such as `2013-01-01 06:00`.
pub fn format_time(at_ms: i64) -> String {
    let minutes = at_ms.div_euclid(60_000);
    let (days, minute_of_day) = (minutes.div_euclid(1440), minutes.rem_euclid(1440));
    // The inverse of `days_since_epoch`, for years that start in March.
    let day_of_all = days + 719_468;
    let era = day_of_all.div_euclid(146_097);
    let day_of_era = day_of_all.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minute_of_day / 60, minute_of_day % 60)
}
