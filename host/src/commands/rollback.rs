//! `sandbar rollback`: gives a running application an earlier version back, by the same swap as a deploy.

use anyhow::Result;

use super::client::{Client, HostArguments};
use super::deploy::{WaitArguments, client, finish, who};
use crate::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Application; not needed where the host runs only one
    #[arg(long)]
    app: Option<String>,

    #[command(flatten)]
    host: HostArguments,

    /// The version to go back to; the one before, unless given
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    to: Option<u64>,

    /// A store that may go, with all that is in it; may be given several times
    #[arg(long, value_name = "NAME")]
    drop_store: Vec<String>,

    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,

    #[command(flatten)]
    wait: WaitArguments,
}

/// Rolls back.
///
/// # Errors
/// Why the host refuses it, or that it cannot be reached.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    let client = Client::new(&arguments.host.url);
    let application = client.application(arguments.app.as_deref())?;
    let said = (arguments.why.as_deref(), who());
    let version =
        client::roll_back(&client, &application, arguments.to, &arguments.drop_store, (said.0, said.1.as_deref()))?;
    finish(&client, &application, version, &arguments.wait, terminal)
}
