//! `sandbar topics read`: prints committed records as NDJSON, from the beginning to the end as it was when the
//! command started, or on and on.

use std::collections::BTreeMap;
use std::io::{BufWriter, ErrorKind, Write};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use engine::broker::BrokerErrorKind;
use kafka::topics::{ReadFrom, ReadOptions};

use super::{ReadArguments, line};
use crate::exit::UsageError;
use crate::runtime::brokers::Folder;
use crate::terminal::Terminal;

const POLL_RECORDS: usize = 1000;
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs the command.
///
/// # Errors
/// When the topic, a partition or an offset is not there, or the broker fails.
pub fn run(arguments: &ReadArguments, terminal: Terminal) -> Result<()> {
    let options =
        ReadOptions { partitions: arguments.partition.clone(), from: from(arguments)?, follow: arguments.follow };
    let connected = arguments.connection.open(Folder::MustExist, terminal)?;
    let topic = &arguments.topic;
    let mut reader = connected.clients.topic_reader(topic, &options).map_err(|error| {
        let unknown = error.kind == BrokerErrorKind::UnknownTopic;
        let error = anyhow!(error);
        if unknown {
            error.context(format!("cannot read topic {topic}; `sandbar topics list` shows what there is"))
        } else {
            error
        }
    })?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut left = arguments.max.unwrap_or(u64::MAX);
    while left > 0 && !reader.is_done() {
        for record in reader.poll(POLL_TIMEOUT, POLL_RECORDS)? {
            let text = line::write(topic, &record, &arguments.formats)
                .map_err(|error| anyhow!("{topic}-{}, offset {}: {error}", record.partition, record.offset))?;
            if ended(writeln!(out, "{text}"))? {
                return Ok(());
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        if ended(out.flush())? {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether the reader of our output has gone away, as `head` does; anything else is a failure.
fn ended(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(error).context("cannot write the records"),
    }
}

fn from(arguments: &ReadArguments) -> Result<ReadFrom> {
    match arguments.from.as_str() {
        "beginning" => Ok(ReadFrom::Beginning),
        "end" => Ok(ReadFrom::End),
        text => {
            let offset: i64 =
                text.parse().map_err(|_| UsageError(format!("--from {text}: expected beginning, end or an offset")))?;
            let [partition] = arguments.partition.as_slice() else {
                let message = format!("--from {offset}: an offset belongs to one partition; name it with --partition");
                return Err(UsageError(message).into());
            };
            Ok(ReadFrom::Offsets(BTreeMap::from([(*partition, offset)])))
        }
    }
}
