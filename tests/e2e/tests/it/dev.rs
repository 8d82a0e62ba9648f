//! `sandbar dev`: a guest is edited while its application runs, and each save is swapped in with the state kept; a save
//! that does not compile leaves the version before alone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::{free_port, get, wait_until};
use e2e::repository;
use e2e::topics::{self, Broker, Values};
use serde_json::{Value, json};

/// The guest and its dependencies are compiled first.
const BUILD_LIMIT: Duration = Duration::from_secs(240);
const LIMIT: Duration = Duration::from_secs(60);

/// A developer's terminal.
struct Dev {
    child: Child,
    folder: PathBuf,
    log: PathBuf,
    url: String,
    /// Events that were seen, in order.
    seen: usize,
}

impl Dev {
    fn start(id: &str) -> Result<Self> {
        let scratch = repository::scratch(id)?;
        let sdk = repository::root().join("guest-sdk/rust");
        let made = Command::new(repository::sandbar()?)
            .current_dir(&scratch)
            .args(["new", "buoys", "--sdk-path"])
            .arg(sdk)
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (folder, log, port) = (scratch.join("buoys"), scratch.join("dev.log"), free_port()?);
        let file = File::create(&log)?;
        let child = Command::new(repository::sandbar()?)
            .current_dir(&folder)
            // What it compiles goes with its folder.
            .env_remove("CARGO_TARGET_DIR")
            .args(["dev", "-o", "json", "--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { child, folder, log, url: format!("http://127.0.0.1:{port}"), seen: 0 })
    }

    /// Waits for the next event of a kind, of those that were not waited for yet. Those of the host stand between.
    fn next(&mut self, event: &str, limit: Duration) -> Result<Value> {
        wait_until(limit, || {
            let text = std::fs::read_to_string(&self.log)?;
            let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let place = events.iter().skip(self.seen).position(|found| found["event"] == event);
            let place = place.with_context(|| format!("no event {event}:\n{text}"))? + self.seen;
            self.seen = place + 1;
            Ok(events[place].clone())
        })
    }

    fn edit(&self, old: &str, new: &str) -> Result<()> {
        let path = self.folder.join("src/lib.rs");
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(old), "{old} is not in {}", path.display());
        Ok(std::fs::write(&path, text.replacen(old, new, 1))?)
    }

    fn report(&self, value: f64) -> Result<()> {
        let broker = Broker::Embedded(self.folder.join(".sandbar/dev/broker"));
        let line = json!({ "key": "one", "value": { "value": value } }).to_string() + "\n";
        topics::produce(&broker, "buoys-readings", Values::Json, &line)
    }

    /// Waits until the store says that of the one buoy.
    fn expect(&self, count: u64, mean: f64) -> Result<()> {
        wait_until(LIMIT, || {
            let (status, body) = get(&format!("{}/v1/apps/buoys/stores/averages/keys/one", self.url))?;
            let expected = json!({ "count": count, "mean": mean });
            ensure!(status == 200 && body["value"] == expected, "expected {expected}: {status} {body}");
            Ok(())
        })
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_save_is_swapped_in_with_the_state_kept() -> Result<()> {
    let mut dev = Dev::start(&repository::unique("dev"))?;
    dev.next("running", BUILD_LIMIT).with_context(|| text(&dev.log))?;
    dev.report(10.0)?;
    dev.expect(1, 10.0)?;

    dev.edit("(value - average.mean)", "(2.0 * value - average.mean)")?;
    let swapped = dev.next("deployed", BUILD_LIMIT)?;
    ensure!(swapped["version"]["number"] == 2 && swapped["effects"].to_string().contains("kept"), "{swapped}");
    dev.report(20.0)?;
    let first = dev.next("first-record", LIMIT)?;
    ensure!(first["number"] == 2 && first["took_ms"].as_u64().is_some_and(|took_ms| took_ms > 0), "{first}");
    println!("from save to swap {} ms", swapped["took_ms"]);
    // (10 + 2 * 20) / 2: the first reading is still counted.
    dev.expect(2, 25.0)?;

    dev.edit("ensure!(", "ensure!!(")?;
    dev.next("waiting", BUILD_LIMIT)?;
    dev.report(25.0 / 2.0)?;
    dev.expect(3, 25.0)?;
    dev.edit("ensure!!(", "ensure!(")?;
    dev.next("unchanged", BUILD_LIMIT)?;
    Ok(())
}
