//! A full disk under the stores (C8): the host pauses and says why, commits nothing meanwhile, and goes on by itself
//! when there is space again. Its state directory is a small disk in a mount namespace of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::embedded::EmbeddedBroker;
use e2e::host::{Host, Options, wait_committed, wait_until};
use e2e::topics::{self, Broker, Values};
use e2e::{host, repository};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
const RECORDS: usize = 500;

/// Mounts a disk of 40 MiB, which only this process sees, and becomes what follows. RocksDB wants a write buffer's
/// worth of space, 16 MiB, before it goes on.
const ON_A_SMALL_DISK: &str = r#"mount -t tmpfs -o size=40m tmpfs "$0" && exec "$@""#;

fn unshare() -> [&'static str; 3] {
    ["unshare", "--mount", "--map-root-user"]
}

/// Where a machine does not allow a private mount, says so.
fn can_mount(folder: &std::path::Path) -> Result<bool> {
    let place = folder.join("probe");
    fs::create_dir_all(&place)?;
    let [program, arguments @ ..] = unshare();
    let mut command = Command::new(program);
    command.args(arguments).args(["sh", "-c", ON_A_SMALL_DISK]).arg(&place).arg("true");
    let output = command.output().context("unshare of util-linux")?;
    if !output.status.success() {
        let line = format!("skipped: no private mount here: {}", String::from_utf8_lossy(&output.stderr));
        // Where nobody can be told, nothing is lost but the line.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    Ok(output.status.success())
}

/// The state directory as the host sees it.
fn inside(host: &Host) -> PathBuf {
    let path = format!("/proc/{}/root{}", host.process_id(), host.state_dir.display());
    PathBuf::from(path)
}

/// Takes all the space that is left.
fn fill(host: &Host) -> Result<PathBuf> {
    let path = inside(host).join("filler");
    let mut file = File::create(&path)?;
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    Ok(path)
}

fn produce(broker: &Broker, records: usize) -> Result<()> {
    let line = |number: usize| format!("{{\"key\":\"c{}\",\"value\":\"x\",\"timestamp\":1}}\n", number % 5);
    topics::produce(broker, "flights", Values::Text, &(0..records).map(line).collect::<String>())
}

fn metric(host: &Host, name: &str) -> Result<f64> {
    let (_, text) = host::get(&format!("{}/metrics", host.url))?;
    let text = text.as_str().context("metrics are text")?;
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{"))).context("no such metric")?;
    Ok(line.rsplit(' ').next().context("no value")?.parse()?)
}

#[test]
fn a_full_disk_pauses_and_space_resumes() -> Result<()> {
    let folder = repository::scratch(&repository::unique("full-disk"))?;
    if !can_mount(&folder)? {
        return Ok(());
    }
    let embedded = EmbeddedBroker::start(&folder.join("broker"), &[])?;
    let broker = embedded.by_address();
    topics::create(&broker, "flights", 1)?;
    topics::create(&broker, "totals", 1)?;
    let (manifest, state) = (repository::example("carrier-count").join("sandbar.toml"), folder.join("state"));
    let mut options = Options::new(&manifest, &broker, "full-disk", &state).set("statestore.flush.interval.ms", "500");
    options.wrapper = unshare().map(Into::into).to_vec();
    options.wrapper.extend(["sh".into(), "-c".into(), ON_A_SMALL_DISK.into(), state.clone().into()]);
    let mut host = Host::start_ready(&options)?;
    produce(&broker, RECORDS)?;
    wait_committed(&[&host], "flights", RECORDS as u64, LIMIT)?;

    let filler = fill(&host)?;
    // A store that nobody writes to has nothing to flush.
    wait_until(LIMIT, || {
        produce(&broker, 1)?;
        let (status, body) = host.get("/readyz")?;
        ensure!(status == 503 && body.to_string().to_lowercase().contains("no space left"), "{status} {body}");
        ensure!(metric(&host, "sandbar_out_of_space")? == 1.0, "the metric does not tell");
        Ok(())
    })?;
    // The commit whose store could not be written is on its way; nothing is committed on top of it.
    std::thread::sleep(Duration::from_secs(3));
    let before = host.application()?.committed("flights");
    produce(&broker, RECORDS)?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.application()?.committed("flights"), before, "committed ahead of the store");
    assert!(host.log().to_lowercase().contains("no space left"), "{}", host.log());
    assert!(host.log().lines().count() < 100, "told again and again:\n{}", host.log());

    fs::remove_file(filler)?;
    host.wait_ready(LIMIT)?;
    let all = topics::read(&broker, "flights", Values::Text)?.len();
    wait_committed(&[&host], "flights", all as u64, LIMIT)?;
    let counted = |host: &Host| -> Result<u64> {
        Ok(host.store("counts")?.values().map(|count| count.as_u64().unwrap_or(0)).sum())
    };
    assert_eq!(counted(&host)?, all as u64, "counted once each");
    assert_eq!(host.store("counts")?.len(), 5);
    assert_eq!(metric(&host, "sandbar_out_of_space")?, 0.0);
    let totals = topics::read(&broker, "totals", Values::I64)?;
    assert_eq!(totals.len(), all, "one output each");
    let last = totals.iter().rfind(|total| total.key == json!("c0")).context("a total of c0")?;
    assert_eq!(host.store("counts")?.get("c0"), Some(&last.value));
    assert!(host.terminate()?.success());
    Ok(())
}
