//! A client of row Q3: writes its own keys at one host and reads them at another, one thing after the other, and notes
//! all that it was told. What is no answer yet is asked for again; nothing is judged here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use e2e::http;

use super::STORE;
use super::judge::{Event, Key, Kind, Number, Outcome, value_text};
use crate::asking::{Answer, Asker, Directory};
use crate::random::Random;

/// Keys of a client.
pub const KEYS: Key = 10;

/// How long an answer may take, whatever is done to the hosts.
const LIMIT: Duration = Duration::from_secs(120);
/// Before something is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a client knows of the campaign.
#[derive(Clone)]
pub struct Surroundings {
    pub application_id: String,
    pub directory: Directory,
    pub started: Instant,
    /// Partitions stay where they are for a while.
    pub calm: Arc<AtomicBool>,
    pub stop: Arc<AtomicBool>,
    /// Reads of one's own writes, of all clients.
    pub passes: Arc<AtomicU64>,
}

/// See the module's head.
pub struct Client {
    around: Surroundings,
    number: u32,
    random: Random,
    asker: Asker,
    written: Number,
    pub events: Vec<Event>,
    pub figures: BTreeMap<String, u64>,
}

/// The text of a key.
pub fn key_text(key: Key) -> String {
    format!("r{key:05}")
}

/// How a write is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Put,
    Delete,
    Applied,
    /// Twice under one idempotency key, at two hosts.
    Twice,
}

impl Client {
    pub fn new(around: Surroundings, number: u32, seed: u64) -> Self {
        let random = Random::new(seed.wrapping_mul(1_000) + u64::from(number));
        let (asker, events, figures) = (Asker::default(), Vec::new(), BTreeMap::new());
        Self { around, number, random, asker, written: 0, events, figures }
    }

    /// Goes on until it is stopped.
    ///
    /// # Errors
    /// When something has no answer for far too long.
    pub fn run(mut self) -> Result<Self> {
        while !self.around.stop.load(Ordering::Relaxed) {
            self.pass()?;
        }
        Ok(self)
    }

    fn pass(&mut self) -> Result<()> {
        let Some(host) = self.around.directory.pick(&mut self.random, None) else {
            thread::sleep(PAUSE);
            return Ok(());
        };
        let key = self.number * KEYS + u32::try_from(self.random.below(u64::from(KEYS)))?;
        self.written += 1;
        let number = self.written;
        let how = match self.random.below(20) {
            0 => How::Delete,
            1..4 => How::Applied,
            4..7 if self.around.calm.load(Ordering::Relaxed) => How::Twice,
            _ => How::Put,
        };
        let Some(token) = self.write(host, key, number, how)? else { return Ok(()) };
        if self.random.one_in(3) {
            self.read_once(key);
        }
        let (answer, other) = self.read_fresh(host, key, number, &token)?;
        // What an answer reflects is no less for the next host.
        if let (Some(token), true) = (answer.document["consistency_token"].as_str(), self.random.one_in(2)) {
            self.read_fresh(other, key, number, token)?;
        }
        self.around.passes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Writes, and gives the token where that was acknowledged.
    fn write(&mut self, host: SocketAddr, key: Key, number: Number, how: How) -> Result<Option<String>> {
        let delete = how == How::Delete;
        let answer = match how {
            How::Twice => self.write_twice(host, key, number)?,
            _ => self.asker.send(host, &self.request(key, number, how)),
        };
        let outcome = self.outcome(&answer);
        self.events.push(Event::Write { key, number, delete, outcome });
        if outcome != Outcome::Acknowledged {
            self.count(if outcome == Outcome::Doubtful { "writes in doubt" } else { "writes put off" });
            return Ok(None);
        }
        self.count("writes acknowledged");
        if answer.status == 200 {
            self.count("waited until applied");
            // The module declares bytes, and the request names no format for them.
            let found = answer.document["entry"]["value"].as_str().map(text_of_base64);
            self.note(Kind::Applied, key, number, found);
        }
        Ok(answer.document["consistency_token"].as_str().map(str::to_owned))
    }

    fn request(&self, key: Key, number: Number, how: How) -> Vec<u8> {
        let path = self.path(key);
        let value = value_text(key, number);
        let name = format!("{}-{value}", self.around.application_id);
        match how {
            How::Put => http::request("PUT", &path, &[], value.as_bytes()),
            How::Delete => http::request("DELETE", &path, &[], b""),
            How::Applied => http::request("PUT", &format!("{path}&wait=applied"), &[], value.as_bytes()),
            How::Twice => http::request("PUT", &path, &[("idempotency-key", &name)], value.as_bytes()),
        }
    }

    fn path(&self, key: Key) -> String {
        format!("/v1/apps/{}/stores/{STORE}/keys/{}?key_format=utf8", self.around.application_id, key_text(key))
    }

    /// The same write at two hosts, one after the other or at the same time.
    fn write_twice(&mut self, host: SocketAddr, key: Key, number: Number) -> Result<Answer> {
        let request = self.request(key, number, How::Twice);
        let other = self.around.directory.pick(&mut self.random, Some(host)).unwrap_or(host);
        let (first, second) = if self.random.one_in(2) {
            (until_ended(&mut self.asker, host, &request)?, until_ended(&mut self.asker, other, &request)?)
        } else {
            let beside = &request;
            thread::scope(|scope| {
                let second = scope.spawn(move || until_ended(&mut Asker::default(), other, beside));
                let first = until_ended(&mut self.asker, host, beside);
                let second = second.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
                anyhow::Ok((first?, second?))
            })?
        };
        self.count("writes sent twice under one idempotency key");
        let acknowledged = |answer: &Answer| outcome_of(answer) == Some(Outcome::Acknowledged);
        let differ = first.document["consistency_token"] != second.document["consistency_token"];
        if acknowledged(&first) && acknowledged(&second) && differ {
            self.events.push(Event::TwoOutcomes { key, number });
        }
        Ok(of_two(first, second))
    }

    fn outcome(&mut self, answer: &Answer) -> Outcome {
        outcome_of(answer).unwrap_or_else(|| {
            self.events.push(Event::Strange(format!("a write: {} {}", answer.status, answer.document)));
            Outcome::Doubtful
        })
    }

    /// Reads without a token, once.
    fn read_once(&mut self, key: Key) {
        let Some(host) = self.around.directory.pick(&mut self.random, None) else { return };
        let answer = self.asker.get(host, &format!("{}&value_format=utf8", self.path(key)));
        self.count("reads without a token");
        if !self.take(&answer, Kind::Plain, key, 0) {
            self.count("reads asked for later");
        }
    }

    /// Reads at another host what a token says, until there is an answer; gives that and who gave it.
    fn read_fresh(&mut self, not: SocketAddr, key: Key, at_least: Number, token: &str) -> Result<(Answer, SocketAddr)> {
        let path = format!("{}&value_format=utf8&min_position={token}", self.path(key));
        let asked = Instant::now();
        self.count("reads with a token");
        loop {
            if let Some(host) = self.around.directory.pick(&mut self.random, Some(not)) {
                let answer = self.asker.get(host, &path);
                if self.take(&answer, Kind::Fresh, key, at_least) {
                    let took_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let longest = self.figures.entry("max ms to an answer with a token".to_owned()).or_default();
                    *longest = took_ms.max(*longest);
                    return Ok((answer, host));
                }
                self.count("reads asked for later");
            }
            if asked.elapsed() > LIMIT {
                bail!("key {key} has no answer for {LIMIT:?}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Notes what an answer says; false where it says nothing yet.
    fn take(&mut self, answer: &Answer, kind: Kind, key: Key, at_least: Number) -> bool {
        let found = match (answer.status, answer.problem()) {
            (200, _) => answer.document["value"].as_str().map(str::to_owned).or_else(|| Some(String::new())),
            (404, "key-not-found") => None,
            (0, _) | (412, "position-not-reached") => return false,
            _ if answer.is_later() => return false,
            _ => {
                self.events.push(Event::Strange(format!("a read: {} {}", answer.status, answer.document)));
                return false;
            }
        };
        self.note(kind, key, at_least, found);
        true
    }

    fn note(&mut self, kind: Kind, key: Key, at_least: Number, found: Option<String>) {
        let at_ms = u64::try_from(self.around.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.events.push(Event::Read { kind, key, at_least, found, at_ms });
    }

    fn count(&mut self, figure: &str) {
        *self.figures.entry(figure.to_owned()).or_default() += 1;
    }
}

/// The text of bytes as hosts show them; what is none stays as it is, for the judge to see.
fn text_of_base64(shown: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in shown.trim_end_matches('=').bytes() {
        let Some(digit) = ALPHABET.iter().position(|known| *known == byte) else { return shown.to_owned() };
        bits = (bits << 6) | u32::try_from(digit).unwrap_or(0);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| shown.to_owned())
}

/// What an answer says of a write; `None` where nobody should ever get it.
fn outcome_of(answer: &Answer) -> Option<Outcome> {
    match (answer.status, answer.problem()) {
        (200 | 202, _) => Some(Outcome::Acknowledged),
        (503, "starting" | "write-unavailable" | "not-here") => Some(Outcome::Nothing),
        (0, _) | (503, "write-unknown" | "timeout") | (409, "write-unknown") => Some(Outcome::Doubtful),
        _ => None,
    }
}

/// The answer that says how a write ended that was sent twice. That nothing was written is said of one request alone,
/// so only two of those say it of the write; one that is in doubt, or strange, leaves the write in doubt.
fn of_two(first: Answer, second: Answer) -> Answer {
    match (outcome_of(&first), outcome_of(&second)) {
        (Some(Outcome::Acknowledged), _) => first,
        (_, Some(Outcome::Acknowledged)) | (Some(Outcome::Nothing), _) => second,
        _ => first,
    }
}

/// Sends a write until it is no longer under way somewhere else.
fn until_ended(asker: &mut Asker, host: SocketAddr, request: &[u8]) -> Result<Answer> {
    let asked = Instant::now();
    loop {
        let answer = asker.send(host, request);
        if (answer.status, answer.problem()) != (409, "write-pending") {
            return Ok(answer);
        }
        if asked.elapsed() > LIMIT {
            bail!("a write is under way for {LIMIT:?}");
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests;
