//! The report's arithmetic, on figures made up.

use std::time::Duration;

use super::*;
use crate::measure::Sample;

fn run(records_per_second: f64, cpu_us: f64) -> Measured {
    Measured { records_per_second, cpu_us, broker_cpu_us: 1.0, peak_memory_mib: 1.0, first_output_s: 1.0, commits: 3.0 }
}

fn row() -> Row {
    let runs = |side, rounds: [Measured; 2]| Runs { side, rounds: rounds.to_vec(), outputs: 7 };
    Row {
        pipeline: "count",
        guarantee: "at_least_once",
        sides: vec![
            runs(Side::KafkaStreams, [run(100_000.0, 10.0), run(120_000.0, 12.0)]),
            runs(Side::KafkaStreamsMerging, [run(150_000.0, 8.0), run(110_000.0, 16.0)]),
            runs(Side::Sandbar, [run(300_000.0, 2.0), run(360_000.0, 3.0)]),
        ],
    }
}

#[test]
fn ratios_are_taken_against_the_better_setting_of_each_round() {
    let row = row();
    let of = |index: usize| row.ratio(&FIGURES[index]).map(|spread| (spread.min, spread.median, spread.max));
    assert_eq!(of(0), Some((2.0, 2.5, 3.0)));
    assert_eq!(of(1), Some((0.25, 0.25, 0.25)));
}

#[test]
fn the_report_is_written_with_its_raw_figures_and_a_row_replaces_its_own() {
    let folder = std::env::temp_dir().join(format!("sandbar-bench-report-{}", std::process::id()));
    let sample = Sample { records: 1_000, wall: Duration::from_secs(1), cpu: Duration::from_millis(2) };
    let floor = Floor { name: "a part".to_owned(), samples: vec![sample] };
    let mut figures = Figures { facts: "facts".to_owned(), parts: parts(&[floor]), ..Figures::default() };
    figures.put(row().figures("at first"));
    figures.put(Row { pipeline: "join", ..row() }.figures("once"));
    figures.put(row().figures("again"));
    figures.write(&folder).expect("it is written");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("it is there");
    let page = read("peer.md");
    assert_eq!(page.lines().filter(|line| line.starts_with("| count | at_least_once |")).count(), 3);
    assert!(page.contains("| **ours / their better** | 2.50 (2.00–3.00) | 0.25 (0.25–0.25) |"), "{page}");
    assert!(page.contains("| a part | 1 (1–1) | 2.00 (2.00–2.00) |"), "{page}");
    assert!(page.contains("* count, at_least_once: again\n") && !page.contains("at first"), "{page}");
    assert_eq!(read("peer.svg").matches("<rect x=").count(), 6);
    let kept = Figures::read(&folder).expect("it is read");
    assert_eq!((kept.rows[0].sides[2].rounds[1].cpu_us, &kept), (3.0, &figures));
    std::fs::remove_dir_all(folder).expect("it is removed");
}
