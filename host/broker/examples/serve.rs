//! Serves a folder until it is killed: `cargo run -p broker --example serve -- DIR [PORT]`.

use std::path::PathBuf;

use broker::{EmbeddedBroker, EmbeddedBrokerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: serve DIR [PORT]")?);
    let port = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let options = EmbeddedBrokerOptions { port, auto_create_topics: true, ..EmbeddedBrokerOptions::default() };
    let broker = EmbeddedBroker::start(&dir, &options)?;
    println!("{}", broker.address());
    loop {
        std::thread::park();
    }
}
