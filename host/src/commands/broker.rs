//! `sandbar broker`: the embedded broker alone, for other tools, until a signal. Its address is the one line on
//! standard output, so that a script can read it; all else goes to standard error.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use broker::{EmbeddedBroker, EmbeddedBrokerOptions};
use serde_json::json;

use crate::exit::UsageError;
use crate::runtime::brokers;
use crate::runtime::stop::{self, Stop};
use crate::terminal::{Format, Terminal, print_line};

const WAIT: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder of the broker; made where it is not there
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Port to listen on; 0 is the port of the folder's last start if that is free, else any free one
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// Address to listen on; one that other machines can reach needs --no-authentication too
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = parse_address)]
    listen: IpAddr,

    /// Let everybody who can reach the address read, write and delete everything
    #[arg(long)]
    no_authentication: bool,

    /// Keep every acknowledged write over a power cut too, at a high price; without it, over the end of the process
    #[arg(long)]
    fsync: bool,

    /// Create a topic of one partition when a client asks for one that is not there
    #[arg(long)]
    auto_create_topics: bool,
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| String::from("expected an IP address, for example 127.0.0.1; the port goes to --port"))
}

/// Runs the broker until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start.
pub fn run(arguments: &Arguments, terminal: Terminal) -> Result<()> {
    check_address(arguments)?;
    // Before the start, so that a signal during it is not the end of the process.
    let stop = Stop::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("signals")
        .enable_all()
        .build()
        .context("cannot start the thread that waits for signals")?;
    let farewell = "stopping: everything acknowledged is kept; a second signal ends at once";
    stop::on_signals(runtime.handle(), &stop, farewell).context("cannot listen to signals")?;

    let options = EmbeddedBrokerOptions {
        listen: arguments.listen,
        port: arguments.port,
        fsync: arguments.fsync,
        auto_create_topics: arguments.auto_create_topics,
        ..EmbeddedBrokerOptions::default()
    };
    let broker = brokers::start(&arguments.dir, &options, terminal)?;
    tell(arguments, &broker, terminal);
    while !stop.wait(WAIT) {}
    broker.shutdown();
    terminal.notice("stopped", "stopped", json!({}));
    Ok(())
}

/// An address that others reach has to be asked for twice, once by its name and once by its danger.
fn check_address(arguments: &Arguments) -> Result<()> {
    if arguments.listen.is_loopback() || arguments.no_authentication {
        return Ok(());
    }
    let message = format!(
        "--listen {}: other machines can reach this address, and the embedded broker has no authentication: whoever \
         reaches it can read, write and delete everything; add --no-authentication where that is fine",
        arguments.listen
    );
    Err(UsageError(message).into())
}

fn tell(arguments: &Arguments, broker: &EmbeddedBroker, terminal: Terminal) {
    let address = broker.address();
    if !arguments.listen.is_loopback() {
        let text = format!(
            "the broker listens on {}, which other machines can reach, and there is no authentication",
            arguments.listen
        );
        terminal.notice("warning", &text, json!({ "warning": text }));
    }
    let (durable, topics) = match (arguments.fsync, arguments.auto_create_topics) {
        (true, create) => ("on: acknowledged writes survive a power cut", create),
        (false, create) => ("off: acknowledged writes survive the end of the process, not a power cut", create),
    };
    let topics = if topics { "are created when a client asks for one" } else { "must be created before they are used" };
    let folder = arguments.dir.display();
    let fields = json!({
        "address": address.to_string(),
        "listen": arguments.listen.to_string(),
        "dir": folder.to_string(),
        "embedded": true,
        "started": true,
        "fsync": arguments.fsync,
        "auto_create_topics": arguments.auto_create_topics,
    });
    let text = format!("{}; fsync is {durable}; topics {topics}", brokers::what_it_is(&arguments.dir, address));
    terminal.notice("broker", &text, fields);
    if terminal.format == Format::Text {
        print_line(&address.to_string());
    }
}
