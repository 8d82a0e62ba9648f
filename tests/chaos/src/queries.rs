//! Row Q2's clients: they ask whichever host runs for keys, batches, pages and counts, with and without copies, and
//! note what they are told. Nothing is judged here (`judge`).

pub mod judge;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use e2e::http;
use serde_json::{Value, json};

use self::judge::{Copies, Query, Said};
use crate::asking::{Answer, Asker, Directory};
use crate::random::Random;
use crate::workload::{Balance, Key, Plan, STORE};

/// Threads that ask, each with one query at a time.
const THREADS: u64 = 8;
/// From one query of a thread to its next one, at least.
const TURN: Duration = Duration::from_millis(20);
/// How long a key that copies may answer for is asked for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Numbers of keys that are nowhere begin here.
const ABSENT: u32 = 90_000;
const BATCH_KEYS: u64 = 20;
const PAGE_ENTRIES: usize = 100;

/// What clients know of the campaign.
#[derive(Clone)]
pub struct Surroundings {
    pub application_id: String,
    pub directory: Directory,
    pub plan: Plan,
    /// Entries of each partition that have been sent.
    pub sent: Arc<AtomicU64>,
    pub started: Instant,
    /// Whether there are copies that may answer.
    pub copies: bool,
}

/// What the clients were told.
#[derive(Debug, Default)]
pub struct Told {
    pub queries: Vec<Query>,
    /// Requests, each page of a walk by itself.
    pub requests: u64,
    /// Requests that may be asked again, as their answer said.
    pub later: u64,
    /// Requests to hosts that were killed before they had answered.
    pub cut_off: u64,
}

/// Running clients.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Told>>,
}

impl Clients {
    pub fn start(around: &Surroundings) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |number| {
            let (around, stop) = (around.clone(), Arc::clone(&stop));
            thread::spawn(move || Client::new(around, number).run(&stop))
        };
        Self { threads: (0..THREADS).map(start).collect(), stop }
    }

    /// Ends them, and gives what they were told.
    ///
    /// # Errors
    /// When one of them ended before.
    pub fn finish(self) -> Result<Told> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for thread in self.threads {
            let told = thread.join().map_err(|_| anyhow!("a client panicked"))?;
            all.queries.extend(told.queries);
            all.requests += told.requests;
            all.later += told.later;
            all.cut_off += told.cut_off;
        }
        Ok(all)
    }
}

/// Walks through the whole store at one host; `None` when it has no answer now.
pub fn walk_once(around: &Surroundings) -> Option<Query> {
    let mut client = Client::new(around.clone(), THREADS);
    let host = around.directory.pick(&mut client.random, None)?;
    client.walk(host, Copies::None);
    client.told.queries.pop().filter(|query| matches!(query.said, Said::Walk { .. }))
}

struct Client {
    around: Surroundings,
    random: Random,
    asker: Asker,
    told: Told,
}

impl Client {
    fn new(around: Surroundings, number: u64) -> Self {
        let random = Random::new(around.plan.seed.wrapping_mul(1_000) + number);
        Self { around, random, asker: Asker::default(), told: Told::default() }
    }

    fn run(mut self, stop: &AtomicBool) -> Told {
        while !stop.load(Ordering::Relaxed) {
            let next = Instant::now() + TURN;
            if let Some(host) = self.around.directory.pick(&mut self.random, None) {
                let copies = match self.random.below(4) {
                    0 if self.around.copies => Copies::Close,
                    1 if self.around.copies => Copies::Any,
                    _ => Copies::None,
                };
                match self.random.below(20) {
                    0..14 => self.key(host, copies),
                    14..17 => self.batch(host, copies),
                    17..19 => self.walk(host, copies),
                    _ => self.count(host),
                }
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.told
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/apps/{}/stores/{STORE}/{rest}", self.around.application_id)
    }

    fn some_key(&mut self) -> Key {
        let partition = u32::try_from(self.random.below(u64::from(self.around.plan.partitions))).unwrap_or(0);
        let number = u32::try_from(self.random.below(u64::from(self.around.plan.keys))).unwrap_or(0);
        Key { partition, number: if self.random.one_in(10) { ABSENT + number } else { number } }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.around.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Sends a request; `None` when it was cut off, which is no answer.
    fn ask(&mut self, host: SocketAddr, request: &[u8]) -> Option<Answer> {
        let answer = self.asker.send(host, request);
        self.told.requests += 1;
        if answer.status == 0 {
            self.told.cut_off += 1;
            return None;
        }
        self.told.later += u64::from(answer.is_later());
        Some(answer)
    }

    fn note(&mut self, begin_us: u64, copies: Copies, said: Said) {
        let (end_us, sent) = (self.now_us(), self.around.sent.load(Ordering::SeqCst));
        self.told.queries.push(Query { begin_us, end_us, sent, copies, said });
    }

    /// Asks for a key; where copies may answer, again until one does, as whoever needs it would: how long it cannot be
    /// read is then not a matter of how often its partition is asked for.
    fn key(&mut self, mut host: SocketAddr, copies: Copies) {
        let key = self.some_key();
        let end = Instant::now() + PATIENCE;
        while !self.key_once(host, copies, key) && copies != Copies::None && Instant::now() < end {
            thread::sleep(TURN);
            host = self.around.directory.pick(&mut self.random, None).unwrap_or(host);
        }
    }

    /// False when there is no answer now.
    fn key_once(&mut self, host: SocketAddr, copies: Copies, key: Key) -> bool {
        // Without its number the host asks every partition, if need be: the entries are not where the key's hash says.
        let partition = if self.random.one_in(4) { String::new() } else { format!("&partition={}", key.partition) };
        let rest = format!("keys/{}?value_format=hex{partition}{}", key.text(), words(copies));
        let begin_us = self.now_us();
        let path = self.path(&rest);
        let Some(answer) = self.ask(host, &http::request("GET", &path, &[], b"")) else { return false };
        let position = &answer.document["position"];
        let said = match (answer.status, answer.problem()) {
            (200, _) => match balance_of(&answer.document["value"]) {
                Ok(balance) => Said::Keys { exact: is_exact([position]), found: vec![(key, Some(balance))] },
                Err(error) => Said::Strange(format!("{error:#}: {}", answer.document)),
            },
            (404, "key-not-found") => Said::Keys { exact: copies == Copies::None, found: vec![(key, None)] },
            _ if answer.is_later() => later(Some(key.partition), &answer),
            _ => strange(&answer),
        };
        self.note(begin_us, copies, said);
        !answer.is_later()
    }

    fn batch(&mut self, host: SocketAddr, copies: Copies) {
        let keys: Vec<Key> = (0..BATCH_KEYS).map(|_| self.some_key()).collect();
        let texts: Vec<String> = keys.iter().map(|key| key.text()).collect();
        let path = self.path(&format!("batch-get?value_format=hex{}", words(copies)));
        let body = json!({ "keys": texts }).to_string();
        let request = http::request("POST", &path, &[("content-type", "application/json")], body.as_bytes());
        let begin_us = self.now_us();
        let Some(answer) = self.ask(host, &request) else { return };
        let said = match answer.status {
            200 => rows_of_batch(&keys, &answer.document).unwrap_or_else(|error| Said::Strange(format!("{error:#}"))),
            _ if answer.is_later() => later(None, &answer),
            _ => strange(&answer),
        };
        self.note(begin_us, copies, said);
    }

    /// All pages, at this host and, when it is killed or has a page later, at others.
    fn walk(&mut self, host: SocketAddr, copies: Copies) {
        let begin_us = self.now_us();
        let (mut host, mut cursor) = (host, String::new());
        let (mut exact, mut rows) = (true, Vec::new());
        loop {
            let rest = format!("entries?limit={PAGE_ENTRIES}&value_format=hex{cursor}{}", words(copies));
            let path = self.path(&rest);
            let answer = self.ask(host, &http::request("GET", &path, &[], b""));
            match answer {
                Some(answer) if answer.status == 200 => {
                    let page = read_page(&answer.document);
                    let Ok((page, next)) = page else { return self.note(begin_us, copies, strange(&answer)) };
                    exact &= is_exact(answer.document["positions"].as_array().into_iter().flatten());
                    rows.extend(page);
                    match next {
                        Some(next) => cursor = format!("&cursor={next}"),
                        None => return self.note(begin_us, copies, Said::Walk { exact, rows }),
                    }
                }
                Some(answer) if !answer.is_later() => return self.note(begin_us, copies, strange(&answer)),
                // A walk that cannot begin is no walk; one that was begun is carried through.
                _ if rows.is_empty() => return,
                _ => thread::sleep(TURN),
            }
            if let Some(next) = self.around.directory.pick(&mut self.random, None) {
                host = next;
            }
        }
    }

    fn count(&mut self, host: SocketAddr) {
        let path = self.path("count");
        let begin_us = self.now_us();
        let Some(answer) = self.ask(host, &http::request("GET", &path, &[], b"")) else { return };
        let said = match answer.status {
            200 => {
                let positions = answer.document["positions"].as_array().into_iter().flatten();
                let partition = |position: &Value| u32::try_from(position["partition"].as_u64()?).ok();
                Said::Count(positions.filter_map(partition).collect())
            }
            _ if answer.is_later() => later(None, &answer),
            _ => strange(&answer),
        };
        self.note(begin_us, Copies::None, said);
    }
}

/// The part of a query that says which copies may answer. A copy that is so close has had every key since seconds.
fn words(copies: Copies) -> &'static str {
    match copies {
        Copies::None => "",
        Copies::Close => "&standby=true&max_lag=200",
        Copies::Any => "&standby=true",
    }
}

/// Whether only tasks that run have answered.
fn is_exact<'a>(positions: impl IntoIterator<Item = &'a Value>) -> bool {
    positions.into_iter().all(|position| position["role"] == "active" && position["lag"] == 0)
}

fn strange(answer: &Answer) -> Said {
    Said::Strange(format!("{} {}", answer.status, answer.document))
}

fn later(partition: Option<u32>, answer: &Answer) -> Said {
    Said::Later(partition, format!("{}: {}", answer.problem(), answer.document["detail"]))
}

fn balance_of(value: &Value) -> Result<Balance> {
    Balance::parse_hex(value.as_str().context("a value without text")?)
}

fn rows_of_batch(keys: &[Key], document: &Value) -> Result<Said> {
    let entries = document["entries"].as_array().context("a batch without entries")?;
    anyhow::ensure!(entries.len() == keys.len(), "{} entries for {} keys", entries.len(), keys.len());
    let row = |(key, entry): (&Key, &Value)| {
        anyhow::ensure!(entry["key"].as_str() == Some(&key.text()), "{} for {key:?}", entry["key"]);
        let balance = (entry["found"] == true).then(|| balance_of(&entry["value"])).transpose()?;
        Ok((*key, balance))
    };
    let found = keys.iter().zip(entries).map(row).collect::<Result<_>>()?;
    let exact = is_exact(document["positions"].as_array().into_iter().flatten());
    Ok(Said::Keys { exact, found })
}

/// The rows of a page, and the cursor of the next one.
type Page = (Vec<(Key, Balance)>, Option<String>);

fn read_page(document: &Value) -> Result<Page> {
    let row = |entry: &Value| {
        let key = Key::parse(entry["key"].as_str().context("a key without text")?.as_bytes())?;
        Ok((key, balance_of(&entry["value"])?))
    };
    let entries = document["entries"].as_array().context("a page without entries")?;
    let rows = entries.iter().map(row).collect::<Result<_>>()?;
    Ok((rows, document["next_cursor"].as_str().map(str::to_owned)))
}
