//! What is told of the runs: a table, a plot, and the raw figures. Ratios are taken round by round against whichever of
//! the peer's settings was the better one in that figure. The file of figures is what counts: each row replaces the one
//! of its name there as soon as it is measured, and table and plot are made of the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::processes::{Measured, Side};
use crate::floors::Floor;
use crate::measure::{Spread, spread};
use crate::{cpu, rate, show};

/// Everything that was measured, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub facts: String,
    pub rows: Vec<RowFigures>,
    pub parts: Vec<PartFigures>,
}

/// One pipeline under one guarantee.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowFigures {
    pub pipeline: String,
    pub guarantee: String,
    /// When it was measured, and how busy the machine was.
    pub measured: String,
    pub sides: Vec<SideFigures>,
    pub ratios: BTreeMap<String, Spread>,
}

/// What one side did in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideFigures {
    pub side: String,
    pub outputs: u64,
    pub figures: BTreeMap<String, Spread>,
    pub rounds: Vec<Measured>,
}

/// A part by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartFigures {
    pub part: String,
    pub krecords_per_second: Option<Spread>,
    pub cpu_us: Option<Spread>,
}

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

    /// As it is kept; `measured` says when and beside what load.
    pub fn figures(&self, measured: &str) -> RowFigures {
        let side = |runs: &Runs| SideFigures {
            side: runs.side.name().to_owned(),
            outputs: runs.outputs,
            figures: FIGURES.iter().filter_map(|one| Some((one.key.to_owned(), runs.spread(one)?))).collect(),
            rounds: runs.rounds.clone(),
        };
        RowFigures {
            pipeline: self.pipeline.to_owned(),
            guarantee: self.guarantee.to_owned(),
            measured: measured.to_owned(),
            sides: self.sides.iter().map(side).collect(),
            ratios: FIGURES[..COMPARED].iter().filter_map(|one| Some((one.key.to_owned(), self.ratio(one)?))).collect(),
        }
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
pub fn lines(row: &RowFigures) -> String {
    let cells = |figures: &[Figure], of: &BTreeMap<String, Spread>, decimals: Option<usize>| {
        let cell = |figure: &Figure| show(of.get(figure.key).copied(), decimals.unwrap_or(figure.decimals));
        figures.iter().map(cell).collect::<Vec<_>>().join(" | ")
    };
    let (pipeline, guarantee) = (&row.pipeline, &row.guarantee);
    let mut text = String::new();
    for SideFigures { side, outputs, figures, .. } in &row.sides {
        let cells = cells(&FIGURES, figures, None);
        let _ = writeln!(text, "| {pipeline} | {guarantee} | {side} | {cells} | {outputs} |");
    }
    let cells = cells(&FIGURES[..COMPARED], &row.ratios, Some(2));
    let _ = writeln!(text, "| | | **ours / their better** | {cells} | | |");
    text
}

/// The parts as they are kept.
pub fn parts(floors: &[Floor]) -> Vec<PartFigures> {
    let part = |floor: &Floor| PartFigures {
        part: floor.name.clone(),
        krecords_per_second: rate(&floor.samples),
        cpu_us: cpu(&floor.samples),
    };
    floors.iter().map(part).collect()
}

/// The table of the parts by themselves.
pub fn parts_table(parts: &[PartFigures]) -> String {
    let mut text =
        "| part by itself, one thread, at-least-once | k rec/s | CPU µs/rec |\n| --- | ---: | ---: |\n".to_owned();
    for PartFigures { part, krecords_per_second, cpu_us } in parts {
        let _ = writeln!(text, "| {part} | {} | {} |", show(*krecords_per_second, 0), show(*cpu_us, 2));
    }
    text
}

const FILE: &str = "peer.json";

const BAR_HEIGHT: usize = 14;
const LEFT: usize = 330;
const WIDTH: f64 = 420.0;

/// The CPU time per record as bars, the median with a line from the least to the most.
pub fn plot(rows: &[RowFigures]) -> String {
    let cpu = |side: &SideFigures| side.figures.get(FIGURES[1].key).copied();
    let spreads = rows.iter().flat_map(|row| &row.sides).filter_map(cpu);
    let most = spreads.map(|spread| spread.max).fold(0.0, f64::max).max(1e-9);
    let x = |value: f64| LEFT as f64 + value / most * WIDTH;
    let (mut bars, mut y) = (String::new(), 40);
    for row in rows {
        for side in &row.sides {
            let Some(Spread { min, median, max }) = cpu(side) else { continue };
            let color = match side.side.as_str() {
                name if name == Side::Sandbar.name() => "#d97706",
                name if name == Side::KafkaStreamsMerging.name() => "#b9b9b9",
                _ => "#8a8a8a",
            };
            let (bar, middle, end) = (BAR_HEIGHT - 3, y + BAR_HEIGHT / 2 - 1, y + BAR_HEIGHT - 4);
            let label = format!("{}, {}: {}", row.pipeline, row.guarantee, side.side);
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

impl Figures {
    /// What is kept in a folder; nothing where nothing is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Puts a row in the place of the one of its name, or at the end.
    pub fn put(&mut self, row: RowFigures) {
        let same = |other: &&mut RowFigures| other.pipeline == row.pipeline && other.guarantee == row.guarantee;
        match self.rows.iter_mut().find(same) {
            Some(before) => *before = row,
            None => self.rows.push(row),
        }
    }

    /// Writes table, plot and figures to a folder.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        let table: String = self.rows.iter().map(lines).collect();
        let measured = |row: &RowFigures| format!("* {}, {}: {}\n", row.pipeline, row.guarantee, row.measured);
        let measured: String = self.rows.iter().map(measured).collect();
        let page = format!(
            "# Sandbar beside Kafka Streams\n\nMeasured by `make bench-peer`; the figures are in [peer.json](peer.json), the single rounds too where they were kept.\n\n\
             {}\n\n{}{table}\n![CPU time per record](peer.svg)\n\n{}\nThe sides of a row were measured by turns:\n\n{measured}",
            self.facts,
            head(),
            if self.parts.is_empty() { String::new() } else { parts_table(&self.parts) }
        );
        write("peer.md", page)?;
        write("peer.svg", plot(&self.rows))?;
        write(FILE, format!("{:#}\n", serde_json::to_value(self)?))
    }
}

#[cfg(test)]
mod tests;
