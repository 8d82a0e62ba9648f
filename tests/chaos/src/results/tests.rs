//! Percentiles, the sums of a table, and that a page which says something else is found.

use super::*;

fn slice(row: &str, faults: u64, downtime_ms: &[u64]) -> Slice {
    Slice { row: row.to_owned(), faults, records: 1_000, downtime_ms: downtime_ms.to_vec(), ..Slice::default() }
}

#[test]
fn percentiles_are_values_that_were_measured() {
    let values: Vec<u64> = (1..=200).collect();
    assert_eq!(percentile(&values, 50), Some(100));
    assert_eq!(percentile(&values, 99), Some(198));
    assert_eq!(percentile(&values, 100), Some(200));
    assert_eq!(percentile(&[7], 50), Some(7));
    assert_eq!(percentile(&[], 50), None);
}

#[test]
fn slices_of_a_row_are_summed_and_defects_and_failures_show() {
    let mut bad = slice("A1", 3, &[2_000]);
    bad.defects.insert("torn".to_owned(), 2);
    bad.defects.insert("hanging".to_owned(), 1);
    bad.failure = Some("a host ended".to_owned());
    bad.figures.insert("max stall ms".to_owned(), 7);
    let mut good = slice("A1", 7, &[500, 1_000]);
    good.figures.insert("max stall ms".to_owned(), 5);
    assert!(!bad.passed() && good.passed());
    let text = table(&[good, bad, slice("A4", 1, &[])]);
    let row = text.lines().find(|line| line.starts_with("| A1 ")).expect("a line for A1");
    let expected =
        "| A1 | 2 | 10 | 2000 | 0 | 0 | 2 | hanging: 1; 1 slices failed | 1.0 / 2.0 / 2.0 | 0 | max stall ms: 7 |";
    assert!(row.starts_with(expected), "{row}");
    assert!(text.contains("\nFailed: A1 seed 0, at a load of 0 to 0: a host ended\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with('|')).count(), 4);
}

#[test]
fn a_page_that_is_not_what_the_results_say_is_found_and_written_anew() {
    let folder = std::env::temp_dir().join(format!("sandbar-chaos-results-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (results, page) = (folder.join("results.json"), folder.join("page.md"));
    std::fs::write(&page, format!("# Page\n{BEGIN}\nold\n{END}\nrest\n")).expect("a page");
    add(&results, &slice("A1", 3, &[10])).expect("a first slice");
    add(&results, &slice("A1", 4, &[])).expect("a second slice");
    assert_eq!(read(&results).expect("slices").len(), 2);
    assert!(document(&results, &page, false).is_err());
    document(&results, &page, true).expect("written anew");
    document(&results, &page, false).expect("equal now");
    let text = std::fs::read_to_string(&page).expect("the page");
    assert!(text.starts_with("# Page\n") && text.ends_with("\nrest\n") && text.contains("| A1 | 2 | 7 |"), "{text}");
    std::fs::remove_dir_all(folder).expect("remove the folder");
}
