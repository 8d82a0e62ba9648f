//! The `sandbar` binary: reads the command line, runs one command, turns its result into an exit code. Owns the
//! way errors reach the user; decides nothing else.

use std::process::ExitCode;

use clap::Parser;

mod app;
mod commands;
mod components;
mod config;
mod exit;
#[cfg(feature = "failpoints")]
mod failpoints;
mod formats;
mod networks;
mod rest;
mod routes;
mod runtime;
mod telemetry;
mod terminal;
mod text;
mod toolchain;
mod versions;

/// Also that of RocksDB and librdkafka, whose blocks and messages come and go on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command_line = commands::CommandLine::parse();
    let format = command_line.output;
    match commands::run(command_line).and_then(|()| terminal::check_output()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::report_error(&error, format);
            exit::code_of(&error)
        }
    }
}
