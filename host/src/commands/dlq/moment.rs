//! Moments on the command line: a duration before now, or a date with a time as RFC 3339 writes it. Pure but for the
//! clock that is passed in. No leap seconds, as in Kafka's timestamps.

use engine::record::Timestamp;

use super::position::number;
use crate::runtime::parse_duration;

const DAY_MS: i64 = 86_400_000;
/// The years that RFC 3339 can write.
const YEARS: std::ops::RangeInclusive<i64> = 0..=9999;

/// Reads a moment such as `10m` (that long before `now_ms`) or `2026-11-27T17:30:00Z`.
///
/// # Errors
/// Says what was expected.
pub fn parse_at(text: &str, now_ms: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(now_ms.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    read(text).ok_or_else(|| {
        format!("expected a duration such as 10m, or a time such as 2026-11-27T17:30:00Z, found {text:?}")
    })
}

/// As `parse_at` at this moment, for an argument.
///
/// # Errors
/// Says what was expected.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, crate::runtime::wall_clock_ms())
}

fn read(text: &str) -> Option<Timestamp> {
    if !text.is_ascii() {
        return None;
    }
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let [year, month, day] = parts(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = parts(time, ':', [2, 2, 2])?;
    if !(1..=12).contains(&month)
        || !(1..=days_of(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let (fraction_ms, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let end = rest.find(|character: char| !character.is_ascii_digit())?;
            let (digits, zone) = rest.split_at(end);
            // What is finer than a millisecond is cut.
            (number::<i64>(format!("{digits:0<3}").get(..3).filter(|_| end > 0)?)?, zone)
        }
    };
    let seconds = hour * 3600 + minute * 60 + second - zone_seconds(zone)?;
    Some(days_since_epoch(year, month, day) * DAY_MS + seconds * 1000 + fraction_ms)
}

/// Seconds that a zone is ahead of UTC.
fn zone_seconds(zone: &str) -> Option<i64> {
    let sign = match zone.chars().next()? {
        'Z' | 'z' => return (zone.len() == 1).then_some(0),
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let [hours, minutes] = parts(&zone[1..], ':', [2, 2])?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// The numbers between separators, each of so many digits.
fn parts<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut found = text.split(separator);
    for (place, width) in numbers.iter_mut().zip(widths) {
        *place = number(found.next().filter(|part| part.len() == width)?)?;
    }
    found.next().is_none().then_some(numbers)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar from 1970-01-01 on. Years begin in March here, so that a leap day is the last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// Shows a timestamp as RFC 3339 in UTC; one that it cannot write, as the number.
pub fn show(timestamp: Timestamp) -> String {
    let (days, ms) = (timestamp.div_euclid(DAY_MS), timestamp.rem_euclid(DAY_MS));
    // Years, months and days by a first guess that is never too late, then one by one.
    let mut year = 1970 + days.div_euclid(366).min(days.div_euclid(365));
    if !YEARS.contains(&year) {
        return timestamp.to_string();
    }
    while days_since_epoch(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut day = days - days_since_epoch(year, 1, 1);
    let mut month = 1;
    while day >= days_of(year, month) {
        day -= days_of(year, month);
        month += 1;
    }
    if !YEARS.contains(&year) {
        return timestamp.to_string();
    }
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", day + 1, ms % 1000)
}

#[cfg(test)]
mod tests;
