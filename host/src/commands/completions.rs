//! `sandbar completions SHELL`: prints what a shell needs to complete our commands.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    shell: Shell,
}

/// Prints the completions.
///
/// # Errors
/// None; a closed pipe ends the command quietly.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::CommandLine::command(), "sandbar", &mut script);
    crate::terminal::print_line(String::from_utf8_lossy(&script).trim_end());
    Ok(())
}
