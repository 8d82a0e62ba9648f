//! What people see while a command works: progress bars on a terminal, plain lines elsewhere, NDJSON events where
//! `-o json` asks for them. Progress goes to standard error, results and events to standard output.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::text;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON value a line.
    Json,
}

/// Writes notices of a long-running command.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    pub format: Format,
    /// Whose notices they are, where a process has several applications.
    application: Option<&'static str>,
}

impl Terminal {
    pub fn new(format: Format) -> Self {
        Self { format, application: None }
    }

    /// For the notices of one of several applications. They are told in lines, since bars would draw over each other.
    pub fn of_application(self, application: &str) -> Self {
        // One short text for each application of a command line.
        Self { application: Some(application.to_owned().leak()), ..self }
    }

    /// Tells one thing that happened: `text` to people, `event` with `fields` to programs.
    pub fn notice(self, event: &str, text: &str, fields: Value) {
        match self.format {
            Format::Text => match self.application {
                Some(application) => tell(&format!("[{application}] {text}")),
                None => tell(text),
            },
            Format::Json => {
                let mut object = Map::new();
                object.insert("event".to_owned(), json!(event));
                if let Some(application) = self.application {
                    object.insert("app".to_owned(), json!(application));
                }
                if let Value::Object(fields) = fields {
                    object.extend(fields);
                }
                print_line(&Value::Object(object).to_string());
            }
        }
    }

    /// A progress bar of `total` steps, or a spinner where the total is unknown. Hidden off a terminal, and where there
    /// are several applications.
    pub fn bar(self, message: &str, total: Option<u64>) -> ProgressBar {
        let visible = self.format == Format::Text && self.application.is_none() && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target).with_message(message.to_owned());
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {human_pos}/{human_len} {per_sec} {eta}",
            None => "{spinner} {msg} {human_pos} {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        if visible {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        bar
    }
}

/// Whether there is somebody at a terminal who can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal()
}

/// Asks on a terminal whether to go on; where nobody can be asked, nobody agrees.
///
/// # Errors
/// When the terminal cannot be read.
pub fn confirmed(question: &str) -> std::io::Result<bool> {
    if !can_ask() {
        return Ok(false);
    }
    // Where the question cannot be written, the answer is awaited all the same.
    let _ = write!(std::io::stderr().lock(), "{} [y/N] ", text::escape_lines(question));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Writes a line to standard error. It may hold what modules, dead letters and brokers say, so nothing in it steers the
/// terminal; what a message has line ends for stays in lines. Where nobody reads it any more, or its disk is full,
/// there is nobody to tell, and what the process does goes on.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text::escape_lines(line));
}

/// The first line that standard output did not take.
static LOST: OnceLock<ErrorKind> = OnceLock::new();

/// Writes a line to standard output. Whether all were written, `check_output` says.
pub fn print_line(line: &str) {
    // It is written through at the end of each line, so that no error is left for later.
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}") {
        LOST.get_or_init(|| error.kind());
    }
}

/// Whether standard output took every line. A closed pipe ends a command quietly.
///
/// # Errors
/// Why it did not take the first one that is missing.
pub fn check_output() -> anyhow::Result<()> {
    match LOST.get() {
        None | Some(ErrorKind::BrokenPipe) => Ok(()),
        Some(kind) => anyhow::bail!("cannot write to standard output: {kind}; its lines are not complete"),
    }
}

/// Tells why the command failed, with the whole chain of causes.
pub fn report_error(error: &anyhow::Error, format: Format) {
    let causes = causes(error);
    if format == Format::Json {
        print_line(&json!({ "event": "failed", "error": causes[0], "causes": causes[1..] }).to_string());
    }
    tell(&format!("error: {}", causes[0]));
    for cause in &causes[1..] {
        tell(&format!("  caused by: {cause}"));
    }
}

/// The chain of causes as text. A cause whose words its parent already holds is left out.
pub fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
    }
    texts
}
