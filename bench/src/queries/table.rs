//! The rows of the tables: one a series, with the median of its rounds and the least and most of them.

use super::driver::Measured;
use crate::measure::spread;
use crate::show;

/// The rounds of one thing that was measured.
pub struct Series {
    name: &'static str,
    rounds: Vec<Measured>,
}

impl Series {
    pub fn new(name: &'static str) -> Self {
        Self { name, rounds: Vec::new() }
    }

    pub fn add(&mut self, measured: Measured) {
        self.rounds.push(measured);
    }

    /// Its row, with its rate beside that of another series.
    pub fn line(&self, base: Option<&Self>) -> String {
        let of = |figure: &dyn Fn(&Measured) -> f64| spread(self.rounds.iter().map(figure));
        let latency = |per_mille| show(of(&|round| round.latency_ms(per_mille)), 2);
        let ratio = base.and_then(|base| {
            let pairs = self.rounds.iter().zip(&base.rounds);
            spread(pairs.map(|(round, base)| round.per_second() / base.per_second()))
        });
        let failed: u64 = self.rounds.iter().map(|round| round.failed).sum();
        format!(
            "| {} | {} | {} | {} | {} | {} | {failed} | {} |\n",
            self.name,
            show(of(&|round| round.per_second() / 1_000.0), 1),
            latency(500),
            latency(990),
            latency(999),
            show(of(&Measured::cpu_us), 1),
            show(ratio, 2)
        )
    }
}

/// The head of a table, whose last column has a ratio.
pub fn head(ratio: &str) -> String {
    format!(
        "| what | k requests/s | p50 ms | p99 ms | p99.9 ms | CPU µs/request | failed | {ratio} |\n| --- |{}\n",
        " ---: |".repeat(7)
    )
}
