//! The plain route: a server of the framework that the host uses, with as many threads, whose one route answers with a
//! constant. What it manages is what is left when nothing is looked up. It runs as a process of its own, so that its
//! CPU time can be told from the driver's.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use axum::Router;
use axum::http::header;
use axum::routing::get;

/// As many threads as the host has for REST.
const THREADS: usize = 2;

/// A running one.
pub struct PlainRoute {
    pub address: SocketAddr,
    child: Child,
}

impl PlainRoute {
    /// Starts this program anew as a server of so many bytes.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(bytes: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["plain-route", &bytes.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start the plain route")?;
        let mut line = String::new();
        let output = child.stdout.take().context("the plain route has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("the plain route's address, found {line:?}"));
        // Dropping it ends it in any case.
        let route = |address| Self { address, child };
        let placeholder = SocketAddr::from(([127, 0, 0, 1], 0));
        match address {
            Ok(address) => Ok(route(address)),
            Err(error) => {
                drop(route(placeholder));
                Err(error)
            }
        }
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for PlainRoute {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until the process is ended; prints the address first.
pub fn serve(bytes: usize) -> Result<()> {
    let (runtime, listener) = prepare()?;
    println!("{}", listener.local_addr()?);
    Ok(runtime.block_on(async { axum::serve(listener, router(bytes)).await })?)
}

/// The same in this process, for as long as that lasts.
#[cfg(test)]
pub fn serve_in_background(bytes: usize) -> Result<SocketAddr> {
    let (runtime, listener) = prepare()?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || runtime.block_on(async { axum::serve(listener, router(bytes)).await }));
    Ok(address)
}

fn prepare() -> Result<(tokio::runtime::Runtime, tokio::net::TcpListener)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    Ok((runtime, listener))
}

fn router(bytes: usize) -> Router {
    let body = "x".repeat(bytes);
    let answer = || async move { ([(header::CONTENT_TYPE, "application/json")], body) };
    Router::new().route("/v1/apps/{app}/stores/{store}/keys/{key}", get(answer))
}
