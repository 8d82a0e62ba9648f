//! `sandbar reference`: prints the pages of the reference that come from the code's own tables.

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The keys of `sandbar.toml`
    Manifest,
}

/// Prints a page.
///
/// # Errors
/// None; a closed pipe ends the command quietly.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Manifest => crate::terminal::print_line(crate::config::manifest_reference().trim_end()),
    }
    Ok(())
}
