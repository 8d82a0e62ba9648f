//! Lines of a module in the host's log: whose they are, escaped, cut and counted (S15).

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use engine::processor::ProcessorSupplier;
use sandbox::Limits;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::support::Task;

/// Keeps the events of the target `guest`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Recorder {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "guest" {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push((*event.metadata().level(), fields.0));
        }
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

/// The lines of some calls.
pub fn recorded(run: impl FnOnce()) -> Vec<(Level, String)> {
    let recorder = Recorder::default();
    tracing::subscriber::with_default(recorder.clone(), run);
    std::mem::take(&mut *recorder.0.lock().unwrap())
}

#[test]
fn a_line_names_its_application_and_task() {
    let mut task = Task::start("probe", Limits::default());
    let lines = recorded(|| _ = task.ask("log", "hello\u{1b}[2J\nERROR forged"));
    let [(level, line)] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(*level, Level::INFO);
    for part in ["application_id=\"test-app\"", "task=0_3", "message=hello\\u{1b}[2J\\nERROR forged"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn a_flood_is_cut_and_counted() {
    let mut task = Task::start("probe", Limits { log_max_lines: 20, ..Limits::default() });
    let lines = recorded(|| _ = task.ask("log-flood", "500"));
    assert_eq!(lines.len(), 21);
    assert!(
        lines[20].1.contains("480 log lines of the application were dropped: 480 by processor.log.max.lines = 20"),
        "{lines:?}"
    );
    let usage = task.usage();
    assert_eq!((usage.log_lines, usage.log_lines_dropped), (20, 480));
    assert_eq!(task.hits("processor.log.max.lines"), 1);
    // The next call has its own lines.
    assert_eq!(recorded(|| _ = task.ask("log-flood", "5")).len(), 5);
}

/// Many calls, each within its own limit, on two instances: the application's second bounds them, and one line says so.
#[test]
fn a_flood_of_many_calls_is_cut_and_counted() {
    const LINES: &str = "processor.log.max.lines.per.second";
    let limits = Limits { log_max_lines_per_second: 100, ..Limits::default() };
    let mut task = Task::start("probe", limits.clone());
    let mut other = task.supplier.create(crate::support::TASK).unwrap();
    let start = Instant::now();
    let lines = recorded(|| {
        (0..50).for_each(|_| _ = task.ask("log-flood", "100"));
        std::mem::swap(&mut other, &mut task.processor);
        task.init().unwrap();
        (0..50).for_each(|_| _ = task.ask("log-flood", "100"));
    });
    let seconds = 1 + start.elapsed().as_secs() as usize;
    let told = lines.iter().filter(|line| line.1.contains("log lines of the application were dropped: ")).count();
    assert!((1..=seconds).contains(&told), "{told} notices");
    assert!((100..=100 * (1 + seconds)).contains(&(lines.len() - told)), "{} lines", lines.len());
    assert!(lines.iter().any(|line| line.1.contains(&format!(" by {LINES} = 100"))), "{lines:?}");
    let usage = task.usage();
    assert_eq!(usage.log_lines + usage.log_lines_dropped, 10_000);
    assert!((50..=99).contains(&task.hits(LINES)), "{}", task.hits(LINES));

    let limits = Limits { log_max_bytes_per_second: 10_000, ..Limits::default() };
    let mut task = Task::start("probe", limits);
    let lines = recorded(|| (0..10).for_each(|_| _ = task.ask("log-huge", "9000")));
    assert!(lines.iter().any(|line| line.1.contains("1 by processor.log.max.bytes.per.second = 10000")), "{lines:?}");
    assert!(task.hits("processor.log.max.bytes.per.second") >= 7);
}

#[test]
fn a_long_line_is_cut() {
    let mut task = Task::start("probe", Limits::default());
    let lines = recorded(|| _ = task.ask("log-huge", "1000000"));
    assert!(lines[0].1.len() < 5_000, "{}", lines[0].1.len());
    assert!(lines[0].1.contains("… (995904 bytes cut)"), "{}", &lines[0].1[4_000..]);
}
