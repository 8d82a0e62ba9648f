//! The counts, the file and the page of a run.

use std::path::PathBuf;

use super::*;

fn report(broker: &str, verdicts: &[(&str, Verdict)]) -> Report {
    let mut report = Report::new(broker);
    for (name, verdict) in verdicts {
        report.add((*name).to_owned(), "something", verdict.clone());
    }
    report
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let dir = std::env::temp_dir().join(format!("conformance-report-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    Folder(dir)
}

#[test]
fn the_summary_counts_each_verdict() {
    let failed = Verdict::Failed("why".to_owned());
    let limit = Verdict::Limit("because".to_owned());
    let report = report("embedded", &[("a", Verdict::Passed), ("b", failed), ("c", limit), ("d", Verdict::Passed)]);
    assert_eq!(report.summary(), "conformance: embedded 2 passed, 1 failed, 1 documented limits");
    assert!(report.failed());
}

#[test]
fn a_run_of_no_check_has_failed() {
    assert!(report("embedded", &[]).failed());
    assert!(!report("embedded", &[("a", Verdict::Passed)]).failed());
}

#[test]
fn a_stale_page_fails_and_is_written_on_demand() {
    let dir = folder("page");
    let (embedded, kafka, page) = (dir.0.join("e.json"), dir.0.join("k.json"), dir.0.join("page.md"));
    report("embedded", &[("a", Verdict::Limit("because".to_owned()))]).write(&embedded).unwrap();
    report("kafka", &[("a", Verdict::Passed)]).write(&kafka).unwrap();
    std::fs::write(&page, format!("# Page\n\n{BEGIN}\nold\n{END}\n\nThe end.\n")).unwrap();

    let stale = document(&embedded, &kafka, &page, false).unwrap_err();
    assert!(stale.to_string().contains("is stale"), "{stale}");
    document(&embedded, &kafka, &page, true).unwrap();
    document(&embedded, &kafka, &page, false).unwrap();
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("| `a` | something | limit | pass |"), "{text}");
    assert!(text.starts_with("# Page\n") && text.ends_with("\nThe end.\n"), "{text}");
}

#[test]
fn runs_of_different_checks_make_no_table() {
    let dir = folder("different");
    let (embedded, kafka, page) = (dir.0.join("e.json"), dir.0.join("k.json"), dir.0.join("page.md"));
    report("embedded", &[("a", Verdict::Passed)]).write(&embedded).unwrap();
    report("kafka", &[("b", Verdict::Passed)]).write(&kafka).unwrap();
    std::fs::write(&page, format!("{BEGIN}\n{END}\n")).unwrap();
    assert!(document(&embedded, &kafka, &page, true).is_err());
}
