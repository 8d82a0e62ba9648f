//! Log lines of guests: escaped, cut and counted, then given to `tracing` under the target `guest`. What a guest says
//! never reaches the log as it is (S15).

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::topology::TaskId;

/// A longer line is cut.
pub(crate) const LINE_MAX_BYTES: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Where the lines of one instance go; shared with its standard output streams.
#[derive(Debug, Clone)]
pub(crate) struct GuestLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    application_id: Arc<str>,
    task: Option<TaskId>,
    lines_max: u64,
    lines: u64,
    dropped: u64,
    /// The last warning or error of the call: most often the message of the panic behind a trap.
    last_complaint: Option<String>,
}

/// What a call said.
#[derive(Debug, Default)]
pub(crate) struct CallLines {
    pub lines: u64,
    pub dropped: u64,
    pub last_complaint: Option<String>,
}

impl GuestLog {
    pub fn new(task: Option<TaskId>, lines_max: u64) -> Self {
        let application_id = Arc::from("");
        let inner = Inner { application_id, task, lines_max, lines: 0, dropped: 0, last_complaint: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every state of `Inner` is a valid one, so a panic elsewhere does not matter.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin_call(&self, application_id: &Arc<str>) {
        let mut inner = self.lock();
        inner.application_id = Arc::clone(application_id);
        (inner.lines, inner.dropped, inner.last_complaint) = (0, 0, None);
    }

    pub fn end_call(&self) -> CallLines {
        let mut inner = self.lock();
        let (lines, dropped) = (inner.lines, inner.dropped);
        if dropped > 0 {
            let (application_id, lines_max) = (&*inner.application_id, inner.lines_max);
            let task = inner.task.unwrap_or_default();
            tracing::warn!(
                target: "guest", application_id, %task,
                "{dropped} log lines of this call were dropped (processor.log.max.lines = {lines_max})"
            );
        }
        CallLines { lines, dropped, last_complaint: inner.last_complaint.take() }
    }

    pub fn line(&self, level: Level, message: &str) {
        let mut inner = self.lock();
        let complaint = matches!(level, Level::Warn | Level::Error);
        if inner.lines >= inner.lines_max {
            inner.dropped += 1;
            if !complaint {
                return;
            }
            inner.last_complaint = Some(escape(message, LINE_MAX_BYTES));
            return;
        }
        inner.lines += 1;
        let escaped = escape(message, LINE_MAX_BYTES);
        emit(level, &inner.application_id, inner.task, &escaped);
        if complaint {
            inner.last_complaint = Some(escaped);
        }
    }
}

/// `tracing` needs its level at compile time.
fn emit(level: Level, application_id: &str, task: Option<TaskId>, line: &str) {
    let task = task.unwrap_or_default();
    match level {
        Level::Trace => tracing::trace!(target: "guest", application_id, %task, "{line}"),
        Level::Debug => tracing::debug!(target: "guest", application_id, %task, "{line}"),
        Level::Info => tracing::info!(target: "guest", application_id, %task, "{line}"),
        Level::Warn => tracing::warn!(target: "guest", application_id, %task, "{line}"),
        Level::Error => tracing::error!(target: "guest", application_id, %task, "{line}"),
    }
}

/// Makes a guest's text safe for one line: control characters, direction marks and line separators are written as
/// escapes, and what is longer than `max_bytes` is cut with a note.
pub(crate) fn escape(text: &str, max_bytes: usize) -> String {
    let mut escaped = String::with_capacity(text.len().min(max_bytes));
    for (position, character) in text.char_indices() {
        if escaped.len() >= max_bytes {
            let cut = text.len() - position;
            // Writing to a string cannot fail.
            let _ = write!(escaped, "… ({cut} bytes cut)");
            break;
        }
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // Backslashes too, or an escape could be forged.
            '\\' => escaped.push_str("\\\\"),
            c if c.is_control() || steers_display(c) => {
                let _ = write!(escaped, "\\u{{{:x}}}", c as u32);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Characters that are no control characters but change how a terminal or browser shows their neighbours.
fn steers_display(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
