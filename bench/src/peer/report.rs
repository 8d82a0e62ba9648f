//! What is told of the runs: a table, a plot, and the raw figures. Ratios are taken round by round against whichever of
//! the peer's settings was the better one in that figure.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::processes::{Measured, Side};
use crate::floors::Floor;
use crate::measure::{Spread, spread};
use crate::{cpu, rate, show};

/// The runs of one side.
pub struct Runs {
    pub side: Side,
    pub rounds: Vec<Measured>,
    /// Of the round whose outputs were read and found right.
    pub outputs: u64,
}

/// One pipeline under one guarantee.
pub struct Row {
    pub pipeline: &'static str,
    pub guarantee: &'static str,
    pub sides: Vec<Runs>,
}

struct Figure {
    name: &'static str,
    key: &'static str,
    of: fn(&Measured) -> f64,
    decimals: usize,
    more_is_better: bool,
}

const fn figure(name: &'static str, key: &'static str, of: fn(&Measured) -> f64, decimals: usize) -> Figure {
    Figure { name, key, of, decimals, more_is_better: false }
}

const FIGURES: [Figure; 6] = [
    Figure {
        more_is_better: true,
        ..figure("k rec/s", "krecords_per_second", |run| run.records_per_second / 1_000.0, 0)
    },
    figure("CPU µs/rec", "cpu_us", |run| run.cpu_us, 2),
    figure("broker CPU µs/rec", "broker_cpu_us", |run| run.broker_cpu_us, 2),
    figure("peak MiB", "peak_memory_mib", |run| run.peak_memory_mib, 0),
    figure("first output s", "first_output_s", |run| run.first_output_s, 1),
    figure("commits", "commits", |run| run.commits, 0),
];

/// The figures whose ratio says something.
const COMPARED: usize = 5;

impl Runs {
    fn spread(&self, figure: &Figure) -> Option<Spread> {
        spread(self.rounds.iter().map(figure.of))
    }
}

impl Row {
    fn peers(&self) -> impl Iterator<Item = &Runs> {
        self.sides.iter().filter(|runs| runs.side != Side::Sandbar)
    }

    /// Ours over theirs, round by round.
    fn ratio(&self, figure: &Figure) -> Option<Spread> {
        let ours = self.sides.iter().find(|runs| runs.side == Side::Sandbar)?;
        spread(ours.rounds.iter().enumerate().filter_map(|(round, run)| {
            let theirs = self.peers().filter_map(|runs| runs.rounds.get(round)).map(figure.of);
            let best = if figure.more_is_better { theirs.reduce(f64::max) } else { theirs.reduce(f64::min) };
            Some((figure.of)(run) / best?)
        }))
    }
}

/// The head of the table.
pub fn head() -> String {
    let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
    format!(
        "| pipeline | guarantee | | {} | outputs |\n| --- | --- | --- |{}\n",
        names.join(" | "),
        " ---: |".repeat(7)
    )
}

/// The lines of one row.
pub fn lines(row: &Row) -> String {
    let mut text = String::new();
    for runs in &row.sides {
        let cells: Vec<String> = FIGURES.iter().map(|figure| show(runs.spread(figure), figure.decimals)).collect();
        let (name, outputs) = (runs.side.name(), runs.outputs);
        let _ = writeln!(text, "| {} | {} | {name} | {} | {outputs} |", row.pipeline, row.guarantee, cells.join(" | "));
    }
    let cells: Vec<String> = FIGURES[..COMPARED].iter().map(|figure| show(row.ratio(figure), 2)).collect();
    let _ = writeln!(text, "| | | **ours / their better** | {} | | |", cells.join(" | "));
    text
}

/// The table of the parts by themselves.
pub fn floors(floors: &[Floor]) -> String {
    let mut text =
        "| part by itself, one thread, at-least-once | k rec/s | CPU µs/rec |\n| --- | ---: | ---: |\n".to_owned();
    for Floor { name, samples } in floors {
        let _ = writeln!(text, "| {name} | {} | {} |", show(rate(samples), 0), show(cpu(samples), 2));
    }
    text
}

/// Every round of every run.
pub fn raw(rows: &[Row]) -> Value {
    let side = |runs: &Runs| json!({"side": runs.side.name(), "outputs": runs.outputs, "rounds": runs.rounds});
    let row = |row: &Row| {
        let sides: Vec<Value> = row.sides.iter().map(side).collect();
        let ratios = FIGURES[..COMPARED].iter().filter_map(|figure| {
            let Spread { min, median, max } = row.ratio(figure)?;
            Some((figure.key.to_owned(), json!({"min": min, "median": median, "max": max})))
        });
        let ratios: serde_json::Map<String, Value> = ratios.collect();
        json!({"pipeline": row.pipeline, "guarantee": row.guarantee, "sides": sides, "ratios": ratios})
    };
    rows.iter().map(row).collect()
}

const BAR_HEIGHT: usize = 14;
const LEFT: usize = 330;
const WIDTH: f64 = 420.0;

/// The CPU time per record as bars, the median with a line from the least to the most.
pub fn plot(rows: &[Row]) -> String {
    let cpu = &FIGURES[1];
    let spreads = rows.iter().flat_map(|row| &row.sides).filter_map(|runs| runs.spread(cpu));
    let most = spreads.map(|spread| spread.max).fold(0.0, f64::max).max(1e-9);
    let x = |value: f64| LEFT as f64 + value / most * WIDTH;
    let (mut bars, mut y) = (String::new(), 40);
    for row in rows {
        for runs in &row.sides {
            let Some(Spread { min, median, max }) = runs.spread(cpu) else { continue };
            let color = match runs.side {
                Side::KafkaStreams => "#8a8a8a",
                Side::KafkaStreamsMerging => "#b9b9b9",
                Side::Sandbar => "#d97706",
            };
            let (bar, middle, end) = (BAR_HEIGHT - 3, y + BAR_HEIGHT / 2 - 1, y + BAR_HEIGHT - 4);
            let label = format!("{}, {}: {}", row.pipeline, row.guarantee, runs.side.name());
            let _ = writeln!(
                bars,
                r#"<text x="{}" y="{end}" text-anchor="end">{label}</text>
<rect x="{LEFT}" y="{y}" width="{:.1}" height="{bar}" fill="{color}"/>
<path d="M{:.1} {middle}H{:.1}" stroke="black"/>
<text x="{:.1}" y="{end}">{median:.2}</text>"#,
                LEFT - 6,
                x(median) - LEFT as f64,
                x(min),
                x(max),
                x(max) + 6.0,
            );
            y += BAR_HEIGHT;
        }
        y += BAR_HEIGHT / 2;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"{y}\" font-family=\"sans-serif\" \
         font-size=\"10\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"10\" y=\"20\" \
         font-size=\"13\">CPU time of the process, µs per record: median, least and most of all rounds</text>\n{bars}</svg>\n"
    )
}

/// Writes table, plot and raw figures to a folder.
///
/// # Errors
/// When that fails.
pub fn write(folder: &Path, facts: &str, load: &str, rows: &[Row], floors: &[Floor]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    let table: String = rows.iter().map(lines).collect();
    let page = format!(
        "# Sandbar beside Kafka Streams\n\nWritten by `make bench-peer`, with every round in [peer.json](peer.json).\n\n\
         {facts}\n\n{load}\n\n{}{table}\n![CPU time per record](peer.svg)\n\n{}",
        head(),
        self::floors(floors)
    );
    write("peer.md", page)?;
    write("peer.svg", plot(rows))?;
    let part = |floor: &Floor| {
        let runs = floor.samples.iter();
        let runs =
            runs.map(|run| json!({"records_per_second": run.records_per_second(), "cpu_us": run.cpu_us_per_record()}));
        json!({"part": floor.name, "rounds": runs.collect::<Vec<_>>()})
    };
    let parts: Vec<Value> = floors.iter().map(part).collect();
    let raw = json!({"facts": facts, "load": load, "rows": raw(rows), "parts": parts});
    write("peer.json", format!("{raw:#}\n"))
}

#[cfg(test)]
mod tests;
