//! How campaigns ask hosts: the list of those that run now, which changes as they are killed and started, and a client
//! with a connection to each of them. An answer says its status and its document; whether it is right is for others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use e2e::http::{self, Client};
use serde_json::Value;

use crate::random::Random;

/// How long a host may take for a part of an answer. Longer than a host itself lets a request take.
const TIMEOUT: Duration = Duration::from_secs(35);

/// The hosts that run, as far as the campaign has come.
#[derive(Debug, Clone, Default)]
pub struct Directory(Arc<Mutex<Vec<SocketAddr>>>);

impl Directory {
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    pub fn all(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One of them by chance, another one than `not` where there is one.
    pub fn pick(&self, random: &mut Random, not: Option<SocketAddr>) -> Option<SocketAddr> {
        let mut addresses = self.all();
        if addresses.len() > 1 {
            addresses.retain(|address| Some(*address) != not);
        }
        let index = random.index(addresses.len());
        addresses.get(index).copied()
    }
}

/// What a host said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// 0 where no whole answer came: the host was killed, or is not there yet.
    pub status: u16,
    pub document: Value,
    /// Whether it says when to ask again.
    pub says_when: bool,
}

impl Answer {
    /// The last word of a problem's type.
    pub fn problem(&self) -> &str {
        let kind = self.document["type"].as_str().unwrap_or_default();
        kind.rsplit(':').next().unwrap_or_default()
    }

    /// No answer now, and one that says so: none that is wrong.
    pub fn is_later(&self) -> bool {
        self.status == 503 && self.says_when
    }
}

/// A client with a connection to each host.
#[derive(Default)]
pub struct Asker {
    clients: BTreeMap<SocketAddr, Client>,
}

impl Asker {
    pub fn get(&mut self, address: SocketAddr, path: &str) -> Answer {
        self.send(address, &http::request("GET", path, &[], b""))
    }

    pub fn send(&mut self, address: SocketAddr, request: &[u8]) -> Answer {
        let client = self.clients.entry(address).or_insert_with(|| Client::new(address, TIMEOUT));
        let Ok(answer) = client.send(request) else { return Answer::default() };
        Answer {
            status: answer.head.status,
            says_when: answer.head.header("retry-after").is_some(),
            document: serde_json::from_slice(&answer.body).unwrap_or_default(),
        }
    }
}
