//! Watches the running stream threads: shows restores and progress, notices that the application is idle, and ends
//! the run. Reads reports only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::stream_thread::{ThreadReport, ThreadState};
use engine::topology::TaskId;
use indicatif::ProgressBar;
use serde_json::json;

use super::idle::IdleVotes;
use super::status::{Migrating, Restoring, Status};
use super::stop::Stop;
use super::threads::StreamThreads;
use super::topics::TopicWatch;
use crate::terminal::Terminal;

const GLANCE: Duration = Duration::from_millis(50);
/// Time between two lines of progress where there is no bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// What the watch keeps between two glances.
pub struct Supervisor<'a> {
    status: &'a Status,
    terminal: Terminal,
    idleness: Idleness<'a>,
    restore: Option<RestoreWatch>,
    restored_before: u64,
    migration: Option<MigrationWatch>,
    migrated_before: u64,
    announced_running: bool,
    activity: Option<(Activity, Instant)>,
    bar: ProgressBar,
    last_line: Instant,
    trouble: Option<String>,
    /// The tasks that were promoted, and with how many records left to restore.
    promoted: BTreeMap<TaskId, u64>,
    last_glance: Instant,
}

/// Whether and when the run ends by itself.
#[derive(Clone, Copy)]
pub struct Idleness<'a> {
    /// After so long without records; never where it is `None`.
    pub after: Option<Duration>,
    /// Where the applications of the process agree on it, and the place of this one among them.
    pub votes: &'a IdleVotes,
    pub application: usize,
}

struct RestoreWatch {
    started: Instant,
    bar: ProgressBar,
}

struct MigrationWatch {
    started: Instant,
    bar: ProgressBar,
}

/// Changes whenever records came. Punctuations do not count: those by wall clock never end.
#[derive(Debug, PartialEq, Eq)]
struct Activity {
    processed: u64,
    /// Rows that were taken over included.
    restored: u64,
    tasks: Vec<TaskId>,
}

impl<'a> Supervisor<'a> {
    pub fn new(status: &'a Status, terminal: Terminal, idleness: Idleness<'a>) -> Self {
        let now = Instant::now();
        Self {
            status,
            terminal,
            idleness,
            restore: None,
            restored_before: 0,
            migration: None,
            migrated_before: 0,
            announced_running: false,
            activity: None,
            bar: terminal.bar("processing", None),
            last_line: now,
            trouble: None,
            promoted: BTreeMap::new(),
            last_glance: now,
        }
    }

    /// Watches until the threads end, a topic changes or the wish to stop comes. True when the run ended because it was
    /// idle, with all other applications of the process.
    pub fn watch(&mut self, threads: &mut StreamThreads, topics: &TopicWatch, stop: &Stop) -> bool {
        while threads.wait(GLANCE) {
            if stop.is_raised() {
                break;
            }
            if let Some(fault) = topics.take_fault() {
                threads.abandon(fault.into());
                break;
            }
            let reports = self.status.reports();
            self.show(&reports);
            self.last_glance = Instant::now();
            let is_idle = self.is_idle(&reports);
            if self.idleness.votes.vote(self.idleness.application, is_idle) {
                self.bar.finish_and_clear();
                return true;
            }
        }
        self.bar.finish_and_clear();
        false
    }

    fn show(&mut self, reports: &[ThreadReport]) {
        self.show_trouble(reports);
        self.show_promotions(reports);
        let restoring = Restoring::of(reports);
        if restoring.tasks_running < restoring.tasks {
            self.show_restore(restoring);
            return;
        }
        let started = match self.restore.take() {
            Some(watch) => {
                watch.bar.finish_and_clear();
                watch.started
            }
            // It was over before a glance could see it.
            None => self.last_glance,
        };
        self.end_restore(started, restoring);
        if let Some(migrating) = Migrating::of(reports) {
            self.show_migration(migrating);
            return;
        }
        self.end_migration(reports);
        if restoring.tasks == 0 {
            return;
        }
        if !self.announced_running {
            self.announced_running = true;
            let text = format!("running {} tasks", restoring.tasks);
            self.terminal.notice("running", &text, json!({ "tasks": restoring.tasks }));
        }
        let processed: u64 = reports.iter().map(|report| report.records_processed).sum();
        self.bar.set_position(processed);
        if self.bar.is_hidden() && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let lag: Option<u64> = reports.iter().map(ThreadReport::lag).sum();
            let left = lag.map_or("unknown".to_owned(), |lag| lag.to_string());
            let text = format!("processed {processed} records, {left} to go");
            self.terminal.notice("progress", &text, json!({ "records_processed": processed, "lag": lag }));
        }
    }

    fn show_trouble(&mut self, reports: &[ThreadReport]) {
        let trouble = reports.iter().find_map(|report| report.trouble.as_ref()).map(|(trouble, _)| trouble.clone());
        if trouble == self.trouble {
            return;
        }
        match (&trouble, &self.trouble) {
            (Some(trouble), _) => {
                self.terminal.notice("waiting", &format!("waiting: {trouble}"), json!({ "reason": trouble }));
            }
            (None, Some(_)) => self.terminal.notice("resumed", "going on", json!({})),
            (None, None) => {}
        }
        self.trouble = trouble;
    }

    fn show_promotions(&mut self, reports: &[ThreadReport]) {
        let tasks = reports.iter().flat_map(|report| &report.tasks);
        let promoted: BTreeMap<TaskId, u64> = tasks.filter_map(|task| Some((task.task, task.promoted_with?))).collect();
        for (task, records) in promoted.iter().filter(|(task, _)| !self.promoted.contains_key(task)) {
            let text = format!("promoted standby task {task}: {records} records to restore");
            self.terminal.notice("promoted", &text, json!({ "task": task.to_string(), "records": records }));
        }
        self.promoted = promoted;
    }

    fn show_restore(&mut self, restoring: Restoring) {
        let terminal = self.terminal;
        let started = self.last_glance;
        let watch = self.restore.get_or_insert_with(|| RestoreWatch {
            // It began after the glance that did not see it.
            started,
            bar: terminal.bar("restoring", Some(restoring.offsets)),
        });
        watch.bar.set_length(restoring.offsets);
        watch.bar.set_position(restoring.offsets - restoring.offsets_left.min(restoring.offsets));
        if watch.bar.is_hidden() && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let Restoring { tasks_running, tasks, offsets_left, .. } = restoring;
            let text = format!("restoring: {tasks_running} of {tasks} tasks ready, {offsets_left} offsets to go");
            let fields = json!({ "tasks_ready": tasks_running, "tasks": tasks, "offsets_left": offsets_left });
            self.terminal.notice("restoring", &text, fields);
        }
    }

    fn end_restore(&mut self, started: Instant, restoring: Restoring) {
        let records = restoring.records_restored - self.restored_before.min(restoring.records_restored);
        self.restored_before = restoring.records_restored;
        if records == 0 {
            return;
        }
        let seconds = started.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { (records as f64 / seconds) as u64 } else { records };
        let text = format!("restored {records} records in {seconds:.2} s ({rate} records/s)");
        let fields = json!({ "records": records, "seconds": seconds, "records_per_second": rate });
        self.terminal.notice("restored", &text, fields);
    }

    fn show_migration(&mut self, migrating: Migrating) {
        let (terminal, started) = (self.terminal, self.last_glance);
        let Migrating { tasks, rows, rows_expected } = migrating;
        let watch = self.migration.get_or_insert_with(|| MigrationWatch {
            started,
            bar: terminal.bar("taking older rows over", Some(rows_expected)),
        });
        watch.bar.set_length(rows_expected);
        watch.bar.set_position(rows);
        if watch.bar.is_hidden() && self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let text = format!("migrating: {tasks} tasks have taken over {rows} of about {rows_expected} rows");
            let fields = json!({ "tasks": tasks, "rows": rows, "rows_expected": rows_expected });
            self.terminal.notice("migrating", &text, fields);
        }
    }

    fn end_migration(&mut self, reports: &[ThreadReport]) {
        let started = match self.migration.take() {
            Some(watch) => {
                watch.bar.finish_and_clear();
                watch.started
            }
            // It was over before a glance could see it.
            None => self.last_glance,
        };
        let all: u64 = reports.iter().map(|report| report.rows_migrated).sum();
        let rows = all.saturating_sub(self.migrated_before);
        self.migrated_before = all;
        if rows == 0 {
            return;
        }
        let seconds = started.elapsed().as_secs_f64();
        let text = format!("took {rows} rows of an older schema over in {seconds:.2} s");
        self.terminal.notice("migrated", &text, json!({ "rows": rows, "seconds": seconds }));
    }

    /// Whether every partition was read to its end and nothing happened for the time that was asked for.
    fn is_idle(&mut self, reports: &[ThreadReport]) -> bool {
        let Some(quiet) = self.idleness.after else { return false };
        let activity = Activity {
            processed: reports.iter().map(|report| report.records_processed).sum(),
            restored: reports.iter().map(|report| report.records_restored + report.rows_migrated).sum(),
            tasks: reports.iter().flat_map(|report| &report.tasks).map(|task| task.task).collect(),
        };
        let caught_up = self.trouble.is_none()
            && reports.iter().all(|report| report.state == ThreadState::Running && report.lag() == Some(0));
        match &self.activity {
            Some((last, since)) if *last == activity && caught_up => since.elapsed() >= quiet,
            _ => {
                self.activity = Some((activity, Instant::now()));
                false
            }
        }
    }
}
