//! Starts that fail: the module, the names it declares, the broker, the topics, the port, the state directory.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{Place, guest};

/// A component with nothing in it.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
/// A core module with nothing in it.
const EMPTY_CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

#[track_caller]
fn module_refused(name: &str, bytes: &[u8], words: &[&str]) {
    let place = Place::new(name);
    place.write("a.wasm", bytes);
    place.write("sandbar.toml", "application.id = \"a\"\nmodule = \"a.wasm\"\n");
    place.run_until_idle(&[]).failed(4, &[&["the module ./a.wasm was refused"], words].concat());
}

#[test]
fn a_module_that_is_not_there() {
    let place = Place::new("no-module");
    place.write("sandbar.toml", "application.id = \"a\"\nmodule = \"built/a.wasm\"\n");
    place.run_until_idle(&[]).failed(4, &["there is no module at ./built/a.wasm", "sandbar build"]);
}

#[test]
fn modules_that_are_none() {
    module_refused("garbage", b"no wasm at all", &["not a WebAssembly component"]);
    module_refused("empty", b"", &["not a WebAssembly component"]);
    module_refused("core", EMPTY_CORE_MODULE, &["is a core WebAssembly module, not a component", "sandbar build"]);
    let mut cut = std::fs::read(guest("count")).expect("the guest");
    cut.truncate(cut.len() / 2);
    module_refused("cut", &cut, &["is not a valid component"]);
}

#[test]
fn a_module_of_another_world() {
    module_refused("wrong-world", EMPTY_COMPONENT, &["is not a processor", "sandbar:processor"]);
}

#[test]
fn a_module_above_the_limit() {
    let place = Place::counting("too-big");
    let words = ["more than the limit of 1024 bytes", "module.max.bytes"];
    place.run_until_idle(&["-X", "module.max.bytes=1024"]).failed(4, &words);
}

#[test]
fn a_module_that_no_trusted_key_has_signed() {
    let place = Place::new("unsigned");
    let module = std::fs::read(guest("count")).expect("the guest");
    place.write("count.wasm", &module);
    let release = SigningKey::from_bytes(&[1; 32]);
    let key = STANDARD.encode(release.verifying_key().to_bytes());
    let manifest =
        format!("application.id = \"count\"\nmodule = \"count.wasm\"\n\"module.trusted.keys\" = [\"{key}\"]\n");
    place.write("sandbar.toml", manifest);
    let refused = "the module ./count.wasm was refused";
    place.run_until_idle(&[]).failed(4, &[refused, "has no signature", ".sig at the end of the name"]);
    let sign = |key: &SigningKey, bytes: &[u8]| key.sign(&Sha256::digest(bytes)).to_bytes();
    place.write("count.wasm.sig", sign(&SigningKey::from_bytes(&[2; 32]), &module));
    place.run_until_idle(&[]).failed(4, &[refused, "is of none of the 1 keys in module.trusted.keys"]);
    place.write("count.wasm.sig", "no signature");
    place.run_until_idle(&[]).failed(4, &[refused, "expected 64 bytes, or their base64, found 12 other bytes"]);
    place.write("count.wasm.sig", sign(&release, &module));
    place.run_until_idle(&[]).succeeded();
    // What was compiled before does not let another module through.
    place.write("count.wasm", EMPTY_COMPONENT);
    place.run_until_idle(&[]).failed(4, &[refused, "is of none of the 1 keys"]);
    place
        .run_until_idle(&["-X", "module.trusted.keys=missing.pem"])
        .failed(2, &["cannot read the public key missing.pem"]);
}

/// `sandbar deploy` hands over the signature that lies beside the module, and the host asks for it.
#[test]
fn a_deployment_that_no_trusted_key_has_signed() {
    let place = Place::new("unsigned-deployment");
    let module = std::fs::read(guest("count")).expect("the guest");
    let release = SigningKey::from_bytes(&[1; 32]);
    let key = STANDARD.encode(release.verifying_key().to_bytes());
    let manifest =
        format!("application.id = \"count\"\nmodule = \"count.wasm\"\n\"module.trusted.keys\" = [\"{key}\"]\n");
    let sign = |key: &SigningKey, bytes: &[u8]| key.sign(&Sha256::digest(bytes)).to_bytes();
    place.write("sandbar.toml", manifest);
    place.write("count.wasm", &module);
    place.write("count.wasm.sig", sign(&release, &module));
    let host = place.start_ready(&[]);
    // The same code with an empty custom section behind it: another version.
    let other = [&module[..], &[0, 2, 1, b'v']].concat();
    place.write("count.wasm", &other);
    std::fs::remove_file(place.folder.join("count.wasm.sig")).expect("removed");
    let deploy = || place.sandbar(&["deploy", "--wait", "--url", &host.url]);
    deploy().failed(4, &["has no signature"]);
    place.write("count.wasm.sig", "no signature");
    deploy().failed(4, &["expected 64 bytes, or their base64, found 12 other bytes"]);
    place.write("count.wasm.sig", sign(&SigningKey::from_bytes(&[2; 32]), &other));
    deploy().failed(4, &["is of none of the 1 keys in module.trusted.keys"]);
    place.write("count.wasm.sig", sign(&release, &other));
    deploy().succeeded();
    let (_, versions) = host.get("/v1/apps/count/versions").expect("an answer");
    assert_eq!((&versions["active"], &versions["versions"][0]["signed"]), (&json!(2), &json!(true)), "{versions}");
}

/// A host that trusts certain keys only does not run what others have deployed without a signature.
#[test]
fn a_version_of_the_topic_that_no_trusted_key_has_signed() {
    let place = Place::new("unsigned-version");
    let module = std::fs::read(guest("count")).expect("the guest");
    place.write("sandbar.toml", "application.id = \"count\"\nmodule = \"count.wasm\"\n");
    place.write("count.wasm", &module);
    place.write("unsigned.wasm", &module);
    let release = SigningKey::from_bytes(&[1; 32]);
    let key = STANDARD.encode(release.verifying_key().to_bytes());
    place.write("count.wasm.sig", release.sign(&Sha256::digest(&module)).to_bytes());
    place.run_until_idle(&[]).succeeded();
    place.run_until_idle(&["-X", "module=unsigned.wasm", "-X", "processor.deadline.ms=5000"]).succeeded();
    let trusting = format!("module.trusted.keys={key}");
    place.run_until_idle(&["-X", &trusting]).failed(4, &["the module of version 2 was refused", "has no signature"]);
}

#[test]
fn names_that_the_module_does_not_declare() {
    let place = Place::counting("undeclared");
    let refuse = |setting: &str, words: &[&str]| {
        place.run_until_idle(&["-X", setting]).failed(2, words);
    };
    refuse("stores.count.backend=memory", &["stores.count: the module does not declare it; it declares counts"]);
    refuse("sources.input.topic=x", &["sources.input: the module does not declare it; it declares in"]);
    refuse("sinks.output.topic=x", &["sinks.output: the module does not declare it; it declares out"]);
}

#[test]
fn a_topic_that_is_not_there() {
    let (place, other) = (Place::counting("unknown-topic"), Place::counting("unknown-topic-other"));
    let host = other.start_ready(&[]);
    let brokers = embedded_address(&host.log());
    // Under its own id, as the other one would refuse a version that reads another topic beside the state that it has.
    let settings = ["-X", "application.id=fresh", "-X", "sources.in.topic=nowhere"];
    let arguments = ["run", "-b", &brokers, "--listen", "127.0.0.1:0"];
    place
        .sandbar(&[&arguments[..], &settings].concat())
        .failed(1, &["topics do not exist: nowhere; create them first"]);
}

/// The address in `embedded broker of … at ADDRESS`.
fn embedded_address(log: &str) -> String {
    let after = log.split(" at 127.0.0.1:").nth(1).unwrap_or_else(|| panic!("no address in {log}"));
    let port: String = after.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}")
}

#[test]
fn a_broker_that_does_not_answer() {
    let place = Place::counting("unreachable");
    let arguments = ["run", "-b", "127.0.0.1:1", "--listen", "127.0.0.1:0", "-X", "default.api.timeout.ms=2500"];
    let started = Instant::now();
    place.sandbar(&arguments).failed(3, &["waiting for a broker", "refused", "bootstrap.servers 127.0.0.1:1"]);
    assert!(started.elapsed() > Duration::from_secs(2), "it gave up after {:?}", started.elapsed());
    place.sandbar(&["topics", "list", "-b", "127.0.0.1:1", "--timeout", "1s"]).failed(3, &["127.0.0.1:1"]);
}

#[test]
fn a_signal_ends_the_wait_for_a_broker() {
    let place = Place::counting("signal-connecting");
    let mut host = place.start(&["-b", "127.0.0.1:1"]);
    host.wait_until("it waits", |host| host.log().contains("waiting for a broker"));
    let (code, body) = host.get("/readyz").expect("an answer");
    assert_eq!((code, body["detail"].as_str()), (503, Some("starting: connecting to the broker")));
    let asked = Instant::now();
    host.terminate();
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let words = [&format!("cannot listen on {address}: the port is in use"), "application.server"];
    Place::counting("port")
        .sandbar(&["run", "--embedded", "broker", "--listen", &address])
        .failed(6, &words.map(|w| w as &str));
}

#[test]
fn a_state_directory_in_use() {
    let place = Place::counting("state-in-use");
    let mut first = place.start_ready(&["--state-dir", "state"]);
    place.run_until_idle(&["--state-dir", "state"]).failed(5, &["state/count", "locked by another process"]);
    assert_eq!(first.get("/readyz").map(|(code, _)| code), Some(200), "the first is unharmed");
    first.terminate();
}

#[test]
fn a_state_directory_in_use_is_told_within_a_second_and_before_any_broker_is_asked() {
    let place = Place::counting("state-locked");
    std::fs::create_dir_all(place.folder.join("state/count")).expect("a folder");
    let lock = std::fs::File::create(place.folder.join("state/count/.lock")).expect("a file");
    lock.lock().expect("the lock");
    for _ in 0..20 {
        let started = Instant::now();
        let run = ["run", "-b", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--state-dir", "state"];
        place.sandbar(&run).failed(5, &["state/count", "locked by another process"]);
        assert!(started.elapsed() < Duration::from_millis(2_000), "{:?} on a shared machine", started.elapsed());
    }
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let place = Place::counting("state-read-only");
    place.write("state", "a file where a folder should be");
    let run = ["run", "-b", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--state-dir", "state"];
    place.sandbar(&run).failed(5, &["cannot create", "state/count", "see state.dir"]);

    // The administrator may write everywhere but to a disk that is mounted for reading.
    let script = r#"mkdir disk && mount -t tmpfs -o ro tmpfs disk && exec "$0" "$@""#;
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_sandbar")]);
    command.args(["run", "-b", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--state-dir", "disk"]);
    let output = command.current_dir(&place.folder).output().expect("unshare of util-linux is there");
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("unshare") || errors.contains("mount:") {
        eprintln!("not checked, no private mount here: {errors}");
        return;
    }
    assert_eq!(output.status.code(), Some(5), "{errors}");
    assert!(errors.contains("disk/count") && errors.contains("Read-only file system"), "{errors}");
}

#[test]
fn a_state_directory_of_something_else() {
    let place = Place::counting("state-foreign");
    place.run_until_idle(&["--state-dir", "state"]).succeeded();
    let directory = place.folder.join("state");

    std::fs::rename(directory.join("count"), directory.join("other")).expect("renamed");
    let renamed = place.run_until_idle(&["--state-dir", "state", "-X", "application.id=other"]);
    renamed.failed(5, &["state/other", "belongs to application count, not to other"]);
    std::fs::rename(directory.join("other"), directory.join("count")).expect("renamed back");

    let identity = directory.join("count/.identity");
    let text = std::fs::read_to_string(&identity).expect("the identity");
    let newer = text.replacen('1', "99", 1);
    assert_ne!(newer, text, "the format version stands in the identity");
    std::fs::write(&identity, newer).expect("written");
    place.run_until_idle(&["--state-dir", "state"]).failed(5, &["has format version 99", "newer version"]);
    std::fs::write(&identity, text).expect("written back");

    place.sandbar(&["topics", "create", "in", "--embedded", "elsewhere"]).succeeded();
    let other_cluster =
        ["run", "--embedded", "elsewhere", "--until-idle", "1s", "--listen", "127.0.0.1:0", "--state-dir", "state"];
    place.sandbar(&other_cluster).failed(5, &["follows the changelogs of cluster"]);
    place.run_until_idle(&["--state-dir", "state"]).succeeded();
}

#[test]
fn an_internal_topic_that_cannot_hold_the_state() {
    let place = Place::counting("bad-changelog");
    place.create_topic("in", 4);
    place.create_topic("count-counts-changelog", 2);
    let words =
        ["internal topic count-counts-changelog cannot be used", "2 partitions where 4 are needed", "cleanup.policy"];
    place.run_until_idle(&[]).failed(1, &words);
}

#[test]
fn a_log_filter_that_cannot_be_read() {
    Place::new("filter").sandbar(&["topics", "list", "--log", "==="]).failed(1, &["cannot read the log filter"]);
}
