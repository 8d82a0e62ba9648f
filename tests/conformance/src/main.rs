//! The conformance suite: what a Kafka client may expect of a broker, as one table of checks that run on the embedded
//! broker and on a real Apache Kafka. Real Kafka decides what is right. The binary starts the broker that it tests,
//! talks to it by librdkafka alone, and needs nothing else of the project.

mod broker;
mod check;
mod checks;
mod client;
mod eos_loop;
mod limits;
mod member;
mod raw;
mod report;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::broker::Kind;

/// Checks of the Kafka protocol, on the embedded broker and on real Kafka.
#[derive(Parser)]
#[command(name = "conformance")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the checks on one broker.
    Run {
        #[command(flatten)]
        target: Target,
        /// Only the checks whose name holds this.
        #[arg(long)]
        only: Option<String>,
        /// Write the results to this file too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// The exactly-once loop under kills, several times.
    EosLoop {
        #[command(flatten)]
        target: Target,
        #[arg(long, default_value_t = 1)]
        runs: u32,
        /// Who is killed by SIGKILL, five times in each run.
        #[arg(long)]
        kill: Victim,
    },
    /// Compare the table in the documentation with the results of two runs; SANDBAR_UPDATE=1 writes it anew.
    Document { embedded: PathBuf, kafka: PathBuf },
    /// List the checks.
    List,
    /// The embedded broker as a process.
    #[command(hide = true)]
    ServeBroker { dir: PathBuf, port: u16 },
    /// A member of a group as a process.
    #[command(hide = true)]
    Member { bootstrap: String, group: String, topic: String, settings: Vec<String> },
    /// The client of the exactly-once loop as a process.
    #[command(hide = true)]
    EosClient { bootstrap: String, name: String, records: usize },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The embedded broker, in a fresh folder.
    #[arg(long)]
    embedded: bool,
    /// A real Apache Kafka, by scripts/kafka.sh.
    #[arg(long)]
    kafka: bool,
}

impl Target {
    fn kind(&self) -> Kind {
        if self.kafka { Kind::Kafka } else { Kind::Embedded }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    Broker,
    Client,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("CONFORMANCE_LOG").unwrap_or_else(|_| "off".into()),
        )
        .init();
    match execute(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False when something was found wrong that has been printed already.
fn execute(command: Command) -> Result<bool> {
    match command {
        Command::Run { target, only, json } => {
            let report = run::run(&run::Options { kind: target.kind(), only })?;
            if let Some(file) = json {
                report.write(&file)?;
            }
            println!("{}", report.summary());
            return Ok(!report.failed());
        }
        Command::EosLoop { target, runs, kill } => return eos_loop::repeat(target.kind(), kill, runs),
        Command::Document { embedded, kafka } => {
            let page = e2e::repository::root().join("docs/src/reference/embedded-broker.md");
            let update = std::env::var_os("SANDBAR_UPDATE").is_some_and(|value| value == "1");
            report::document(&embedded, &kafka, &page, update)?;
        }
        Command::List => {
            for check in table::CHECKS.iter().flat_map(|theme| theme.iter()) {
                println!("{:<48} {}", check.name, check.proves);
            }
        }
        Command::ServeBroker { dir, port } => broker::serve(&dir, port)?,
        Command::Member { bootstrap, group, topic, settings } => member::run(&bootstrap, &group, &topic, &settings)?,
        Command::EosClient { bootstrap, name, records } => eos_loop::client(&bootstrap, &name, records)?,
    }
    Ok(true)
}
