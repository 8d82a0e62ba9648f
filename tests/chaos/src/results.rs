//! What a slice of a campaign came to, as it is kept in the results file, and the table of the documentation that is
//! made from that file alone. Slices are only added; a failed one stays in the file like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// One run of a row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    pub row: String,
    pub seed: u64,
    pub seconds: u64,
    /// Kills, freezes, injections: whatever the row does.
    pub faults: u64,
    pub records: u64,
    /// What the checker found, by kind; empty is what is wanted.
    pub defects: BTreeMap<String, u64>,
    /// Why the slice could not be carried through, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// For each fault, the longest time in which some partition that it hit showed nothing new to a reader.
    pub downtime_ms: Vec<u64>,
    /// Changelog records that hosts restored after the faults.
    pub records_restored: u64,
    /// Further figures of the row.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, u64>,
    pub settings: BTreeMap<String, String>,
    /// Of the machine, before and after.
    pub load_average: [f64; 2],
    pub sandbar: String,
    pub kafka: String,
}

impl Slice {
    pub fn passed(&self) -> bool {
        self.defects.is_empty() && self.failure.is_none()
    }

    /// One line of it.
    pub fn summary(&self) -> String {
        let seconds = |percent| percentile(&self.downtime_ms, percent).unwrap_or(0) as f64 / 1_000.0;
        let mut text = format!(
            "chaos: {} seed {}: {}, {} faults, {} records, defects {:?}, downtime s p50 {:.1} p99 {:.1} max {:.1}, {} \
             restored, {} s",
            self.row,
            self.seed,
            if self.passed() { "ok" } else { "FAILED" },
            self.faults,
            self.records,
            self.defects,
            seconds(50),
            seconds(99),
            seconds(100),
            self.records_restored,
            self.seconds
        );
        if !self.figures.is_empty() {
            let _ = write!(text, ", {:?}", self.figures);
        }
        text
    }
}

/// Adds a slice to a results file.
///
/// # Errors
/// When the file is damaged or cannot be written.
pub fn add(path: &Path, slice: &Slice) -> Result<()> {
    let mut slices = read(path)?;
    slices.push(slice.clone());
    let lines: Vec<String> = slices.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Beside and renamed, so that a run that is cut off leaves the sums that were there.
    let draft = path.with_extension("new");
    std::fs::write(&draft, format!("[\n{}\n]\n", lines.join(",\n")))
        .with_context(|| format!("cannot write {}", draft.display()))?;
    std::fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

/// All slices of a results file; none when it is not there.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<Slice>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// The value below which so many per cent lie.
pub fn percentile(values: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

const BEGIN: &str = "<!-- begin of the table; written by `chaos document` from docs/reliability/results.json -->";
const END: &str = "<!-- end of the table -->";

/// Compares the table in a page with the results, or writes it anew.
///
/// # Errors
/// When they differ and the page is not to be changed.
pub fn document(results: &Path, page: &Path, update: bool) -> Result<()> {
    let slices = read(results)?;
    let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{}: no `{BEGIN}`", page.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{}: no `{END}`", page.display()))?;
    let made = format!("{before}{BEGIN}\n\n{}\n{END}{after}", table(&slices));
    if made != text {
        ensure!(update, "{} is not what the results say; SANDBAR_UPDATE=1 writes it anew", page.display());
        std::fs::write(page, made)?;
    }
    Ok(())
}

/// The slices of each row summed up.
pub fn table(slices: &[Slice]) -> String {
    let mut text = String::from(
        "| row | slices | faults | records | lost | doubled | torn | other defects | downtime p50 / p99 / max, s | \
         restored per fault | further figures | versions, seeds, load |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let rows: BTreeSet<&str> = slices.iter().map(|slice| slice.row.as_str()).collect();
    for row in rows {
        let of_row: Vec<&Slice> = slices.iter().filter(|slice| slice.row == row).collect();
        text.push_str(&line(row, &of_row));
    }
    text.push_str(&failures(slices));
    text
}

/// Why slices were not carried through, with the load of the machine, which is a reason more often than not.
fn failures(slices: &[Slice]) -> String {
    let mut text = String::new();
    for slice in slices {
        if let Some(reason) = &slice.failure {
            let Slice { row, seed, load_average: [before, after], .. } = slice;
            let _ = write!(text, "\nFailed: {row} seed {seed}, at a load of {before:.0} to {after:.0}: {reason}\n");
        }
    }
    text
}

fn line(row: &str, slices: &[&Slice]) -> String {
    let sum = |of: fn(&Slice) -> u64| slices.iter().map(|slice| of(slice)).sum::<u64>();
    let (faults, restored) = (sum(|slice| slice.faults), sum(|slice| slice.records_restored));
    let mut defects: BTreeMap<&str, u64> = BTreeMap::new();
    let mut figures: BTreeMap<&str, u64> = BTreeMap::new();
    for slice in slices {
        slice.defects.iter().for_each(|(name, count)| *defects.entry(name).or_default() += count);
        for (name, value) in &slice.figures {
            let figure = figures.entry(name).or_default();
            *figure = if name.starts_with("max ") { *value.max(figure) } else { *figure + value };
        }
    }
    let mut take = |name: &str| defects.remove(name).unwrap_or(0);
    let (lost, doubled, torn) = (take("lost"), take("duplicated"), take("torn"));
    let list = |values: &BTreeMap<&str, u64>| {
        let items: Vec<String> = values.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        if items.is_empty() { "–".to_owned() } else { items.join(", ") }
    };
    let failed = slices.iter().filter(|slice| slice.failure.is_some()).count();
    let mut other = list(&defects);
    if failed > 0 {
        let _ = write!(other, "; {failed} slices failed");
    }
    let downtimes: Vec<u64> = slices.iter().flat_map(|slice| slice.downtime_ms.iter().copied()).collect();
    let seconds = |percent| percentile(&downtimes, percent).map(|ms| format!("{:.1}", ms as f64 / 1000.0));
    let downtime = match (seconds(50), seconds(99), seconds(100)) {
        (Some(p50), Some(p99), Some(max)) => format!("{p50} / {p99} / {max}"),
        _ => "–".to_owned(),
    };
    let per_fault = restored.checked_div(faults).map_or_else(|| "–".to_owned(), |restored| restored.to_string());
    format!(
        "| {row} | {} | {faults} | {} | {lost} | {doubled} | {torn} | {other} | {downtime} | {per_fault} | {} | {} |\n",
        slices.len(),
        sum(|slice| slice.records),
        list(&figures),
        circumstances(slices),
    )
}

fn circumstances(slices: &[&Slice]) -> String {
    let of = |name: fn(&Slice) -> String| {
        let names: BTreeSet<String> = slices.iter().map(|slice| name(slice)).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let loads = slices.iter().flat_map(|slice| slice.load_average);
    let seeds = (slices.iter().map(|slice| slice.seed).min(), slices.iter().map(|slice| slice.seed).max());
    let (first, last) = (seeds.0.unwrap_or(0), seeds.1.unwrap_or(0));
    let seeds = if first == last { first.to_string() } else { format!("{first} to {last}") };
    let load = loads.fold(0.0, f64::max);
    format!(
        "Sandbar {}; Kafka {}; seeds {seeds}; load up to {load:.1}",
        of(|slice| slice.sandbar.clone()),
        of(|slice| slice.kafka.clone())
    )
}

#[cfg(test)]
mod tests;
