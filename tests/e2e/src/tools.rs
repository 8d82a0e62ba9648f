//! Other people's clients as processes: Kafka's own command-line tools in Java, and kcat, which is librdkafka in C.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};

use crate::repository;

/// What a tool printed.
#[derive(Debug)]
pub struct Printed {
    pub stdout: String,
    pub stderr: String,
}

impl Printed {
    /// The lines of standard output, with runs of blanks as one, since tables are padded.
    pub fn rows(&self) -> Vec<String> {
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        self.stdout.lines().map(squeeze).filter(|line| !line.is_empty()).collect()
    }

    /// Whether a row begins with these words.
    pub fn has_row(&self, words: &str) -> bool {
        self.rows().iter().any(|row| row.starts_with(words))
    }
}

/// Runs one of Kafka's tools by the name of its class.
///
/// # Errors
/// When it fails; what it printed is in the error.
pub fn java(class: &str, arguments: &[&str], input: &str) -> Result<Printed> {
    let mut command = Command::new(repository::root().join("scripts/kafka.sh"));
    command.args(["tool", class]).args(arguments);
    run(command, input).with_context(|| class.to_owned())
}

/// Runs kcat.
///
/// # Errors
/// When it fails; what it printed is in the error.
pub fn kcat(arguments: &[&str], input: &str) -> Result<Printed> {
    let mut command = Command::new("kcat");
    command.args(arguments);
    run(command, input).with_context(|| format!("kcat {}", arguments.join(" ")))
}

/// Whether kcat is there. Where it is not, says so on the test run's own output, past the capture of the test's.
pub fn has_kcat() -> bool {
    let found = Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        let line = "skipped: the test of kcat, which is not installed (Debian: apt-get install kcat)";
        // Where nobody can be told, nothing is lost but the line.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    found
}

fn run(mut command: Command, input: &str) -> Result<Printed> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start it")?;
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    // Beside the reading of its output, or both sides could wait for each other.
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).is_ok());
        child.wait_with_output()
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = Printed { stdout: text(&output.stdout), stderr: text(&output.stderr) };
    ensure!(output.status.success(), "it ended with {}:\n{}\n{}", output.status, printed.stdout, printed.stderr);
    Ok(printed)
}
