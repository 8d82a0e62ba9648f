//! `sandbar topics produce`: sends the lines of a file or of standard input and waits until the broker has
//! acknowledged every one. A bad line ends the command with its number; what was sent before it is finished first.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use engine::broker::BrokerError;
use flate2::bufread::MultiGzDecoder;
use kafka::topics::TopicWriter;
use serde_json::json;

use super::{ProduceArguments, line};
use crate::runtime::brokers::Folder;
use crate::runtime::wall_clock_ms;
use crate::terminal::Terminal;

/// A line longer than this is no record that a broker would take.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Records between two looks at the progress bar.
const PROGRESS_STEP: u64 = 256;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Runs the command.
///
/// # Errors
/// Names the line that cannot be read, or the record that the broker did not take, and how many were written.
pub fn run(arguments: &ProduceArguments, terminal: Terminal) -> Result<()> {
    let (mut input, total) = open(arguments.file.as_deref())?;
    let connected = arguments.connection.open(Folder::MayBeNew, terminal)?;
    let mut writer = connected.clients.topic_writer(&arguments.topic).map_err(|error| no_topic(arguments, error))?;
    let started = Instant::now();
    let bar = terminal.bar(&format!("producing to {}", arguments.topic), total);
    let sent = send_all(&mut input, &mut writer, arguments, &bar);
    // What went before a failure is finished all the same, so that the count that is told is true.
    let timeout = flush_timeout(arguments.connection.timeout, writer.in_flight());
    let flushed = writer.flush(timeout);
    bar.finish_and_clear();
    let (topic, written) = (&arguments.topic, writer.sent());
    if let Err(error) = flushed {
        let lost = format!(
            "not all of {written} records reached topic {topic} ({} without an answer); read the topic to see which",
            writer.in_flight()
        );
        return Err(anyhow!(error).context(lost));
    }
    sent.with_context(|| format!("stopped after {written} records, which are all in topic {topic}"))?;
    let seconds = started.elapsed().as_secs_f64();
    let rate = if seconds > 0.0 { (written as f64 / seconds) as u64 } else { written };
    let text = format!("wrote {written} records to {topic} in {seconds:.2} s ({rate} records/s), all acknowledged");
    let fields = json!({ "topic": topic, "records": written, "seconds": seconds, "records_per_second": rate });
    terminal.notice("produced", &text, fields);
    Ok(())
}

fn send_all(
    input: &mut dyn BufRead,
    writer: &mut TopicWriter,
    arguments: &ProduceArguments,
    bar: &indicatif::ProgressBar,
) -> Result<()> {
    let mut buffer = Vec::new();
    for number in 1_u64.. {
        buffer.clear();
        let read = input
            .take(MAX_LINE_BYTES + 1)
            .read_until(b'\n', &mut buffer)
            .with_context(|| format!("line {number}: cannot read the input"))?;
        if read == 0 {
            break;
        }
        if buffer.len() as u64 > MAX_LINE_BYTES {
            return Err(anyhow!("line {number}: longer than {MAX_LINE_BYTES} bytes"));
        }
        let text = std::str::from_utf8(&buffer).map_err(|error| anyhow!("line {number}: not UTF-8 text: {error}"))?;
        if text.trim().is_empty() {
            continue;
        }
        let record = line::read(text.trim_end(), &arguments.formats, wall_clock_ms())
            .map_err(|error| anyhow!("line {number}: {error}"))?;
        writer.send(&record).with_context(|| format!("line {number}: the broker did not take the record"))?;
        if number % PROGRESS_STEP == 0 {
            bar.set_position(number);
        }
    }
    Ok(())
}

/// The input and, where that is cheap to know, its lines.
fn open(file: Option<&Path>) -> Result<(Box<dyn BufRead>, Option<u64>)> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        return Ok((plain(BufReader::new(std::io::stdin()))?, None));
    };
    let opened = || File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let mut start = [0_u8; 2];
    let is_gzip = opened()?.read_exact(&mut start).is_ok() && start == GZIP_MAGIC;
    let is_file = opened()?.metadata().is_ok_and(|metadata| metadata.is_file());
    let total = if is_file && !is_gzip { Some(count_lines(opened()?)?) } else { None };
    Ok((plain(BufReader::with_capacity(1 << 20, opened()?))?, total))
}

fn plain<R: BufRead + 'static>(mut input: R) -> Result<Box<dyn BufRead>> {
    let is_gzip = input.fill_buf().context("cannot read the input")?.starts_with(&GZIP_MAGIC);
    Ok(if is_gzip { Box::new(BufReader::new(MultiGzDecoder::new(input))) } else { Box::new(input) })
}

fn count_lines(file: File) -> Result<u64> {
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut lines = 0;
    loop {
        let chunk = input.fill_buf().context("cannot read the input")?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        lines += chunk.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let length = chunk.len();
        input.consume(length);
    }
}

/// A second more for every ten thousand records that are still on their way.
fn flush_timeout(timeout: Duration, in_flight: usize) -> Duration {
    timeout + Duration::from_secs(in_flight as u64 / 10_000)
}

fn no_topic(arguments: &ProduceArguments, error: BrokerError) -> anyhow::Error {
    let unknown = error.kind == engine::broker::BrokerErrorKind::UnknownTopic;
    let error = anyhow!(error);
    if !unknown {
        return error;
    }
    let topic = &arguments.topic;
    error.context(format!("topic {topic} does not exist; create it with `sandbar topics create {topic}`"))
}
