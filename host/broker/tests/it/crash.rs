//! `kill -9` in the middle of writing: what was acknowledged is there, once and in order. The broker runs in a process
//! of its own, which is this test binary started again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use broker::core::batch::{BatchHeader, Records};
use broker::{EmbeddedBroker, EmbeddedBrokerOptions, running_at};

use crate::client::{Client, TestDir};

const DIR_VARIABLE: &str = "BROKER_IT_SERVE_DIR";
const KILLS: usize = 8;

/// Not a test by itself: serves the folder that the variable names, until it is killed.
#[test]
fn serve_until_killed() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE).map(PathBuf::from) else { return };
    let _broker = EmbeddedBroker::start(&dir, &EmbeddedBrokerOptions::default()).unwrap();
    loop {
        std::thread::park();
    }
}

pub struct Process(Child);

impl Process {
    pub fn start(dir: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::serve_until_killed"])
            .env(DIR_VARIABLE, dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub fn connect(dir: &Path) -> Client {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(address) = running_at(dir)
            && let Ok(client) = Client::connect(address)
        {
            return client;
        }
        assert!(Instant::now() < deadline, "the broker did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn values(client: &mut Client) -> Vec<i32> {
    let mut found = Vec::new();
    loop {
        let bytes = client.fetch(found.len() as i64);
        if bytes.is_empty() {
            return found;
        }
        let mut at = 0;
        while let Some(header) = bytes.get(at..).and_then(BatchHeader::read) {
            let size = header.size().unwrap();
            let records = Records::new(&bytes[at..at + size], &header);
            found.extend(records.map(|record| i32::from_be_bytes(record.value.unwrap()[..4].try_into().unwrap())));
            at += size;
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let dir = TestDir::new();
    let mut process = Some(Process::start(dir.path()));
    let mut client = connect(dir.path());
    assert_eq!(client.create_topic(), 0);
    let (mut next, mut committed) = (0i32, -1i64);
    for round in 0..KILLS {
        // The kill comes from another thread while this one writes.
        let delay = Duration::from_millis(40 + 17 * round as u64);
        let victim = process.take();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            // Dropping kills.
            drop(victim);
        });
        let value = |number: i32| [number.to_be_bytes().as_slice(), &[7; 2_000]].concat();
        while let Ok((code, offset)) = client.produce(1, next, &value(next)) {
            assert_eq!((code, offset), (0, i64::from(next)));
            next += 1;
            if next % 5 == 0 {
                match client.commit(i64::from(next)) {
                    Ok(code) => assert_eq!(code, 0),
                    Err(_) => break,
                }
                committed = i64::from(next);
            }
        }
        killer.join().unwrap();
        process = Some(Process::start(dir.path()));
        client = connect(dir.path());
        // The batch in flight may be there or not; sent again, it is there once.
        assert_eq!(client.produce(1, next, &value(next)).unwrap(), (0, i64::from(next)));
        next += 1;
        let found = values(&mut client);
        assert!(found.iter().copied().eq(0..next), "round {round}: {} of {next} records", found.len());
        // A commit in flight may be there too.
        let kept = client.committed();
        assert!(kept == committed || kept == committed.max(0) + 5, "round {round}: {kept}, acknowledged {committed}");
        committed = kept;
    }
    assert!(next > KILLS as i32, "{next} records");
}
