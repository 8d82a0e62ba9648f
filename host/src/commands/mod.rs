//! The command line: its shape, and which function runs a command. One file a command; each takes its arguments
//! and returns an error that says what was tried.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::exit;
use crate::telemetry;
use crate::terminal::{Format, Terminal};

mod apps;
mod broker;
mod build;
mod client;
mod compile_module;
mod completions;
mod deploy;
mod dev;
mod dlq;
mod new;
mod reference;
mod repro;
mod rollback;
mod run;
mod stores;
mod table;
mod topics;

pub use compile_module::COMPILE_MODULE;

/// Runs stateful Kafka stream processors as sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "sandbar", version, about, after_long_help = exit::HELP, propagate_version = true)]
pub struct CommandLine {
    /// How results are written
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub output: Format,

    /// Which log lines go to standard error, for example `info,kafka=debug`
    #[arg(long, env = telemetry::FILTER_VARIABLE, value_name = "FILTER", global = true)]
    log: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start an application: a crate with a processor, its tests and a manifest
    New(new::NewArgs),
    /// Compile a crate to a module and check it
    Build(build::BuildArgs),
    /// Build, run and swap an application again and again while its sources are edited
    Dev(dev::Arguments),
    /// Run an application
    Run(run::Arguments),
    /// Give a running application a new version of its module, without a stop
    Deploy(deploy::Arguments),
    /// Give a running application an earlier version back
    Rollback(rollback::Arguments),
    /// The applications of a running host: look at them, pause and stop them
    #[command(subcommand)]
    Apps(apps::Command),
    /// Serve topics as read-only key-value stores over REST, without a module
    ServeTopic(table::Arguments),
    /// Tables: topics as read-only key-value stores
    #[command(subcommand)]
    Table(table::Command),
    /// Run the embedded broker alone, for other tools (one machine, for trials and tests)
    Broker(broker::Arguments),
    /// List, create, fill and read topics
    #[command(subcommand)]
    Topics(topics::Command),
    /// Dead letters: look at them, send them back, remove them
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Repeat the call of a dead letter offline and compare
    Repro(repro::Arguments),
    /// Look into the state stores of a running application
    #[command(subcommand)]
    Stores(stores::Command),
    /// Print the completions of a shell
    Completions(completions::Arguments),
    /// Compile a module for the host that started this process
    #[command(hide = true)]
    CompileModule(compile_module::Arguments),
    /// Print reference pages as Markdown
    #[command(subcommand, hide = true)]
    Reference(reference::Command),
}

/// Runs the command.
///
/// # Errors
/// What the command says; `exit::code_of` turns it into an exit code.
pub fn run(command_line: CommandLine) -> Result<()> {
    telemetry::start(command_line.log.as_deref(), command_line.output)?;
    let terminal = Terminal::new(command_line.output);
    match command_line.command {
        Command::New(arguments) => new::run(&arguments, terminal),
        Command::Build(arguments) => build::run(&arguments, terminal),
        Command::Dev(arguments) => dev::run(&arguments, terminal),
        Command::Run(arguments) => run::run(&arguments, terminal),
        Command::Deploy(arguments) => deploy::run(&arguments, terminal),
        Command::Rollback(arguments) => rollback::run(&arguments, terminal),
        Command::Apps(command) => apps::run(&command, terminal),
        Command::ServeTopic(arguments) => table::serve(&arguments, terminal),
        Command::Table(command) => table::run(&command, terminal),
        Command::Broker(arguments) => broker::run(&arguments, terminal),
        Command::Topics(command) => topics::run(&command, terminal),
        Command::Dlq(command) => dlq::run(&command, terminal),
        Command::Repro(arguments) => repro::run(&arguments, terminal),
        Command::Stores(command) => stores::run(&command, terminal),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::CompileModule(arguments) => compile_module::run(&arguments),
        Command::Reference(command) => reference::run(&command),
    }
}
