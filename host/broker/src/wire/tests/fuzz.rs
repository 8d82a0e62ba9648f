//! Damaged requests of every kind and version, from a seed, through the whole way from a frame to its answer. They run
//! in a process of their own with little memory, so that a length that is believed ends it. A failure prints the seed
//! and the bytes; `BROKER_FUZZ_SEED` and `BROKER_FUZZ_CASES` run others.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;

use super::client::batch;
use super::samples::sample;
use crate::core::admin::NewTopic;
use crate::core::log::IsolationLevel;
use crate::core::memory::MemoryStorage;
use crate::core::{Core, CoreOptions};
use crate::mutation::{Numbers, hexadecimal, mutate};
use crate::wire::WireOptions;
use crate::wire::connection::{Ended, Session, serve_frame};
use crate::wire::requests::Reply;
use crate::wire::server::Shared;
use crate::wire::shape::{APIS, Api};

const CASES: u64 = 60_000;
/// Cases on one broker, which grows by what is made on it.
const CASES_A_BROKER: u64 = 1_000;
/// What the process may take, its code and stacks included.
const MEMORY_KIB: u64 = 1_000_000;
/// No sample comes near this name, so no damaged request can mean it.
const BYSTANDER: &str = "a-topic-that-no-request-speaks-of";
const CORRELATION_ID: i32 = 0x0bad_cafe;
/// Where the mutable part of a frame begins, its key, version and correlation id left alone.
const HEADER_BYTES: usize = 8;

fn number_of(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn damaged_requests_cost_nothing_but_their_connection() {
    let case_file = std::env::temp_dir().join(format!("broker-fuzz-{}", std::process::id()));
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY_KIB} && exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "wire::tests::fuzz::inside_of_a_small_process", "--nocapture"])
        .env("BROKER_FUZZ_CASE_FILE", &case_file)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let last = std::fs::read(&case_file).unwrap_or_default();
    drop(std::fs::remove_file(&case_file));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{}; the last case: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&last),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Not a test by itself: see above.
#[test]
fn inside_of_a_small_process() {
    let Some(case_file) = std::env::var_os("BROKER_FUZZ_CASE_FILE").map(PathBuf::from) else { return };
    let case_file = std::fs::File::create(case_file).unwrap();
    let seed = number_of("BROKER_FUZZ_SEED", 0x5eed);
    let samples = all_samples();
    let mut broker = FuzzedBroker::start();
    for frame in &samples {
        broker.answer(frame).unwrap_or_else(|reason| panic!("{}: {reason}", hexadecimal(frame)));
    }
    lie_everywhere(&broker, &samples);
    for case in 0..number_of("BROKER_FUZZ_CASES", CASES) {
        let mut numbers = Numbers::new(seed.wrapping_add(case));
        if case % CASES_A_BROKER == 0 {
            broker.check_bystander();
            broker = FuzzedBroker::start();
        }
        let mut frame = samples[case as usize % samples.len()].clone();
        // Now and then the header too: another request, another version.
        let from = if numbers.below(20) == 0 { 0 } else { HEADER_BYTES };
        let other = samples[numbers.below(samples.len())].clone();
        mutate(&mut numbers, &mut frame, from, &other);
        let name = format!("seed {} bytes {}\n", seed.wrapping_add(case), hexadecimal(&frame));
        case_file.write_all_at(name.as_bytes(), 0).unwrap();
        case_file.set_len(name.len() as u64).unwrap();
        broker.check(&frame).unwrap_or_else(|reason| panic!("{name}{reason}"));
    }
    broker.check_bystander();
}

/// A length that lies at every place of every request.
fn lie_everywhere(broker: &FuzzedBroker, samples: &[Vec<u8>]) {
    for sample in samples {
        for at in HEADER_BYTES..sample.len() {
            for lie in [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x80, 0, 0, 0], &[0xff, 0xfe]]
            {
                let mut frame = sample.clone();
                let end = (at + lie.len()).min(frame.len());
                drop(frame.splice(at..end, lie.iter().copied()));
                broker.check(&frame).unwrap_or_else(|reason| panic!("bytes {}: {reason}", hexadecimal(&frame)));
            }
        }
    }
    broker.check_bystander();
}

/// A frame for each request in each version.
fn all_samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for api in APIS {
        for version in api.min..=api.max {
            samples.push(frame_of(api, version, &sample(api.key, version)));
        }
    }
    samples
}

fn frame_of(api: &Api, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&(api.key as i16).to_be_bytes());
    frame.extend_from_slice(&version.to_be_bytes());
    frame.extend_from_slice(&CORRELATION_ID.to_be_bytes());
    frame.extend_from_slice(&4i16.to_be_bytes());
    frame.extend_from_slice(b"fuzz");
    if api.is_flexible(version) {
        frame.push(0);
    }
    frame.extend_from_slice(body);
    frame
}

/// A broker without a socket that anybody speaks to.
struct FuzzedBroker {
    shared: Shared,
    storage: MemoryStorage,
    stream: Arc<TcpStream>,
}

impl FuzzedBroker {
    fn start() -> Self {
        let storage = MemoryStorage::new();
        let options = CoreOptions { max_partitions: 50, ..CoreOptions::default() };
        let (core, _) = Core::open(options, Arc::new(storage.clone())).unwrap();
        for (name, partitions) in [("t", 2), (BYSTANDER, 1)] {
            let new = NewTopic { name: name.into(), partitions, ..NewTopic::default() };
            core.create_topic(&new, false).unwrap();
            core.partition(name, 0).unwrap().append(&batch(b"kept"), 1).unwrap();
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        // Its other end is closed at once, so that a look whether the client is there costs nothing.
        drop(TcpStream::connect(address).unwrap());
        let stream = Arc::new(listener.accept().unwrap().0);
        let options = WireOptions { auto_create_topics: true, ..WireOptions::default() };
        let shared = Shared::new(Arc::new(core), options, address);
        // So that nothing waits for records or for other members.
        shared.stopping.store(true, Ordering::SeqCst);
        let broker = Self { shared, storage, stream };
        // Producer 0, which the samples of transactions speak for.
        let init = Api::find(ApiKey::InitProducerId as i16).unwrap();
        broker.answer(&frame_of(init, 1, &sample(init.key, 1))).unwrap();
        broker
    }

    fn serve(&self, frame: &[u8]) -> Result<Reply, Ended> {
        let address = self.shared.address;
        let session = Session { shared: &self.shared, peer: address, address, stream: Arc::clone(&self.stream) };
        serve_frame(&session, Bytes::copy_from_slice(frame))
    }

    /// An undamaged request has an answer, or waits.
    fn answer(&self, frame: &[u8]) -> Result<(), String> {
        match self.serve(frame) {
            Ok(_) | Err(Ended::Closed) => Ok(()),
            Err(ended) => Err(ended.to_string()),
        }
    }

    /// A damaged request is answered, or refused with nothing changed.
    fn check(&self, frame: &[u8]) -> Result<(), String> {
        let began = Instant::now();
        let writes = self.storage.write_count();
        match self.serve(frame) {
            Ok(Reply::Frame(reply)) => {
                let expected = frame.get(4..8).unwrap_or_default();
                if reply.get(4..8) != Some(expected) || reply.len() > 100_000 + 200 * frame.len() {
                    return Err(format!("an answer of {} bytes", reply.len()));
                }
            }
            // A member that waits for others, and `acks=0`.
            Ok(Reply::Nothing) | Err(Ended::Closed) => {}
            Err(ended @ (Ended::Panicked { .. } | Ended::Encode { .. })) => return Err(ended.to_string()),
            Err(ended) if self.storage.write_count() != writes => return Err(format!("written, but refused: {ended}")),
            Err(_) => {}
        }
        match began.elapsed() {
            elapsed if elapsed > Duration::from_secs(2) => Err(format!("took {elapsed:?}")),
            _ => Ok(()),
        }
    }

    fn check_bystander(&self) {
        let handle = self.shared.core.partition(BYSTANDER, 0).unwrap();
        let fetched = handle.read(0, 1_000, true, IsolationLevel::ReadUncommitted).unwrap();
        assert_eq!((fetched.bounds.high_watermark, fetched.records), (1, batch_at_0()));
    }
}

/// The bystander's batch as the log has it.
fn batch_at_0() -> Bytes {
    let sent = batch(b"kept");
    let mut kept = crate::core::batch::stamp(&sent, 0, 0, None).unwrap().to_vec();
    kept.extend_from_slice(&sent[crate::core::batch::HEADER_BYTES..]);
    Bytes::from(kept)
}

#[test]
#[should_panic(expected = "has no sample: add one to wire/tests/samples.rs")]
fn a_request_without_a_sample_is_noticed() {
    sample(ApiKey::ControllerRegistration, 0);
}
