//! `sandbar repro`: repeats the call of a dead letter offline, with the times and the reads that it carries, and says
//! whether the module fails in the same way. Needs no host; with a saved dead letter no broker either. Changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use engine::dead_letter::DeadLetterReason;
use engine::processor::{ProcessorError, ProcessorSupplier};
use engine::replay::{Replay, ReplayedCall, replay};
use sandbox::{CompileLimits, DEFAULT_MODULE_MAX_BYTES, Limits, Module};

use super::dlq::{self, DeadLetter, Position, Subject};
use crate::components::{self, LoadRequest, Sandbox};
use crate::config::{Manifest, Overrides};
use crate::exit::UsageError;
use crate::runtime::{cache_dir, compile_limits};
use crate::terminal::{Format, Terminal, print_line};
use crate::versions::TrustedKeys;

mod report;
mod settings;

use report::Report;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    place: dlq::Place,

    /// The dead letter: TOPIC@PARTITION:OFFSET, as `dlq list` prints it
    #[arg(long, value_name = "POSITION", required_unless_present = "from_file", conflicts_with = "from_file")]
    from_dlq: Option<Position>,

    /// A dead letter that `dlq show --save` wrote
    #[arg(long, value_name = "PATH")]
    from_file: Option<PathBuf>,

    /// The module to run; that of the manifest where it is absent. Without a manifest its size and what compiling it
    /// may take have the defaults of module.max.bytes and module.compile.*
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
}

/// Marks a module that failed again, which is what was asked for but no success.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reproduced(&'static str);

/// Runs the command.
///
/// # Errors
/// When the call fails again, or when it cannot be repeated at all.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let letter = match (&arguments.from_file, &arguments.from_dlq) {
        (Some(path), _) => dlq::read_saved(path)?,
        (None, Some(position)) => arguments.place.letter(position, terminal)?,
        (None, None) => return Err(UsageError("name a dead letter with --from-dlq or --from-file".to_owned()).into()),
    };
    let recorded = settings::Recorded::of(&letter)?;
    let module = load(arguments, &recorded.limits, terminal)?;
    let topology = recorded.topology(module.declaration());
    let supplier = module.supplier(topology.into(), recorded.limits.clone());
    let replayed = replay(&repeated(&letter, &recorded)?, &*supplier as &dyn ProcessorSupplier)
        .context("the module cannot be started")?;
    let report = Report::new(&letter, module.digest(), &replayed);
    match terminal.format {
        Format::Text => report.lines().iter().for_each(|line| print_line(line)),
        Format::Json => print_line(&report.document().to_string()),
    }
    match report.failure() {
        None => Ok(()),
        Some(verdict) => Err(Reproduced(verdict).into()),
    }
}

fn load(arguments: &Arguments, limits: &Limits, terminal: Terminal) -> Result<Module> {
    let manifest = match &arguments.place.file {
        Some(path) => Some(Manifest::load(path, &Overrides::of_environment(&[]))?),
        None => None,
    };
    let path = match (&arguments.module, &manifest) {
        (Some(path), _) => path.clone(),
        (None, Some(manifest)) if !manifest.text("module").is_empty() => manifest.path_of("module"),
        _ => return Err(UsageError("no module: name it with --module, or its manifest with -f".to_owned()).into()),
    };
    let folder = manifest.as_ref().map_or_else(|| PathBuf::from(".sandbar/cache"), cache_dir);
    // A module that no manifest bounds has the bounds of one that sets none: it may be of a stranger.
    let module_max_bytes = manifest.as_ref().map_or(DEFAULT_MODULE_MAX_BYTES, |manifest| {
        usize::try_from(manifest.count("module.max.bytes")).unwrap_or(usize::MAX)
    });
    let compile_limits = manifest.as_ref().map_or_else(CompileLimits::default, compile_limits);
    let limits = limits.clone();
    let given_up = Arc::default();
    let trusted_keys = manifest.as_ref().map(TrustedKeys::of).transpose()?.flatten();
    let (bytes, _) = components::read_signed(&path, module_max_bytes, trusted_keys.as_ref())?;
    let name = path.display().to_string();
    let request = LoadRequest { name, cache_dir: folder, module_max_bytes, limits, compile_limits, given_up };
    components::load(&bytes, &request, &Sandbox::default(), terminal)
}

/// The call as it was.
fn repeated(letter: &DeadLetter, recorded: &settings::Recorded) -> Result<Replay> {
    let call = match &letter.subject {
        Subject::Record(source) => ReplayedCall::Record {
            partition: engine::record::TopicPartition::new(source.topic.as_str(), source.partition),
            record: engine::record::Record {
                offset: source.offset,
                timestamp: letter.source_timestamp.unwrap_or(letter.timestamp),
                key: letter.key.clone(),
                value: letter.value.clone(),
                headers: letter.own_headers.clone(),
            },
        },
        Subject::Punctuation { schedule: Some(schedule), time: Some(time) } => {
            ReplayedCall::Punctuation { schedule: *schedule, time: *time }
        }
        _ => bail!("{}: it does not say which record or schedule it is of", letter.position),
    };
    let Some(wall_clock_ms) = letter.wall_clock_time else {
        bail!("{}: it does not say when it was processed, so it was not written by this program", letter.position);
    };
    Ok(Replay {
        call,
        task: recorded.task,
        application_id: letter.application.clone().unwrap_or_default(),
        stream_time: letter.stream_time,
        write_time: letter.write_time.or(letter.stream_time).unwrap_or(wall_clock_ms),
        wall_clock_ms,
        reads: recorded.reads.clone(),
        partition_counts: recorded.partition_counts.clone(),
        sink_limits: recorded.sink_limits.clone(),
        entry_max_bytes: recorded.entry_max_bytes.clone(),
    })
}

/// The word for a failure, as dead letters have it.
fn reason(error: &ProcessorError) -> &'static str {
    DeadLetterReason::of(error).as_str()
}
