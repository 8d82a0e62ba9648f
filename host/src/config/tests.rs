//! The manifest's rules: what is read, what is refused and in which words, and which layer wins.

use std::path::Path;

use super::options::{OPTIONS, find};
use super::*;

const MINIMAL: &str = "application.id = \"vote\"\nmodule = \"vote.wasm\"\n";

fn parse(text: &str) -> Result<Manifest, String> {
    Manifest::parse(Path::new("app/sandbar.toml"), text, &Overrides::default()).map_err(|error| error.to_string())
}

fn refused(lines: &str) -> String {
    parse(&format!("{MINIMAL}{lines}")).map(|_| ()).expect_err("the manifest is refused")
}

#[test]
fn every_default_passes_its_own_check() {
    for option in OPTIONS.iter() {
        if let Some(checked) = checked_default(option) {
            assert!(checked.is_ok(), "{}: {checked:?}", option.name);
        }
    }
}

#[test]
fn option_names_are_found_under_a_users_names() {
    assert_eq!(find("stores.votes.logging.enabled").map(|option| option.name), Some("stores.*.logging.enabled"));
    assert_eq!(find("sources.a.b.topic").map(|option| option.name), Some("sources.*.topic"));
    assert!(find("sources.topic").is_none());
}

#[test]
fn a_minimal_manifest_gets_the_defaults() {
    let manifest = parse(MINIMAL).expect("valid");
    assert_eq!(manifest.application_id(), "vote");
    assert_eq!(manifest.integer("commit.interval.ms"), 100);
    assert_eq!(manifest.text("processing.guarantee"), "exactly_once_v2");
    assert_eq!(manifest.path_of("module"), Path::new("app/vote.wasm"));
    assert_eq!(manifest.bootstrap_servers(), None);
}

#[test]
fn dotted_keys_tables_and_quoted_keys_are_the_same() {
    let dotted = parse(&format!("{MINIMAL}commit.interval.ms = 5\nsources.in.topic = \"a\"\n")).expect("valid");
    let tables = parse(&format!("{MINIMAL}\"commit.interval.ms\" = 5\n[sources.in]\ntopic = \"a\"\n")).expect("valid");
    assert_eq!(dotted.integer("commit.interval.ms"), tables.integer("commit.interval.ms"));
    assert_eq!(dotted.sources, tables.sources);
    assert_eq!(dotted.sources.get("in").map(String::as_str), Some("a"));
}

#[test]
fn free_tables_pass_dotted_keys_on_as_text() {
    let text =
        "[kafka]\nconsumer.fetch.min.bytes = 1\nsecurity.protocol = \"ssl\"\n[config]\nagents = 3\nratio = 0.5\n";
    let manifest = parse(&format!("{MINIMAL}{text}")).expect("valid");
    assert_eq!(manifest.kafka.get("consumer.fetch.min.bytes").map(String::as_str), Some("1"));
    assert_eq!(manifest.kafka.get("security.protocol").map(String::as_str), Some("ssl"));
    assert_eq!(manifest.config.get("agents").map(String::as_str), Some("3"));
    assert_eq!(manifest.config.get("ratio").map(String::as_str), Some("0.5"));
}

#[test]
fn stores_have_a_backend_and_a_changelog_switch() {
    let text = "[stores.votes]\nbackend = \"memory\"\n[stores.meta]\nlogging.enabled = false\n";
    let manifest = parse(&format!("{MINIMAL}{text}")).expect("valid");
    assert_eq!(manifest.stores["votes"], StoreSettings { in_memory: true, ..StoreSettings::default() });
    assert_eq!(manifest.stores["meta"], StoreSettings { logging_enabled: false, ..StoreSettings::default() });
}

#[test]
fn an_unknown_key_is_refused_with_place_and_nearest_name() {
    let message = refused("  commit.intervall.ms = 5\n");
    assert_eq!(
        message,
        "app/sandbar.toml:3:3: unknown key commit.intervall.ms; did you mean commit.interval.ms?\n  \
         3 |   commit.intervall.ms = 5\n    |   ^"
    );
    assert!(refused("[stores.votes]\nbackent = \"memory\"\n").contains("did you mean stores.votes.backend?"));
    assert!(refused("fetch.min.bytes = 1\n").contains("librdkafka's own go below [kafka]"));
}

#[test]
fn a_key_below_a_table_is_told_its_place() {
    for (lines, key) in [
        ("[sinks.out]\ntopic = \"b\"\nprocessor.deadline.ms = 5\n", "processor.deadline.ms"),
        ("[sinks.out]\ntopic = \"b\"\n  \"processor.deadline.ms\" = 5\n", "processor.deadline.ms"),
        ("[sources.in]\ntopic = \"b\"\n[stores.s]\nmodule=\"b.wasm\"\n", "module"),
        ("[stores.s]\ncommit.interval.ms = 5\n", "commit.interval.ms"),
    ] {
        let message = refused(lines);
        assert!(message.contains(&format!("; {key} is a key of the manifest itself")), "{message}");
        assert!(message.contains("put it above the first [table]"), "{message}");
    }
    // The key as it is written is no key: it is one that is spelt wrong, or means another.
    for lines in ["sinks.out.processor.deadline.ms = 5\n", "[stores.votes]\nbackent = \"memory\"\n"] {
        assert!(!refused(lines).contains("[table]"), "{lines}");
    }
}

#[test]
fn a_key_below_the_module_is_written_in_quotes() {
    let message = refused("module.max.bytes = 2048\n");
    assert!(message.contains("; write the key in quotes: \"module.max.bytes\" = …"), "{message}");
    let manifest = parse(&format!("{MINIMAL}\"module.max.bytes\" = 2048\n")).expect("valid");
    assert_eq!(manifest.integer("module.max.bytes"), 2048);
}

#[test]
fn wrong_types_and_ranges_name_expected_and_found() {
    for (lines, expected) in [
        ("commit.interval.ms = \"soon\"\n", "a whole number from 1 to 86400000 (ms), found the text \"soon\""),
        ("commit.interval.ms = 0\n", "from 1 to 86400000 (ms), found the number 0"),
        ("commit.interval.ms = 1.5\n", "found float 1.5"),
        ("num.stream.threads = 99999999999999999999\n", "found the number 99999999999999999999"),
        ("processing.guarantee = \"exactly_once\"\n", "one of \"exactly_once_v2\", \"at_least_once\""),
        ("[sources.in]\ntopic = \"no spaces\"\n", "found the text \"no spaces\""),
        ("bootstrap.servers = \"localhost\"\n", "expected host:port, several joined by commas"),
        ("application.server = \"7070\"\n", "expected host:port, found the text \"7070\""),
        ("processor.memory.max.bytes = 5\n", "processor.memory.max.bytes must be at least 65536, not 5"),
        ("[num.stream.threads]\nx = 1\n", "found a table"),
        (
            "[stores.votes]\nlogging.enabled = \"yes\"\n",
            "stores.votes.logging.enabled: expected true or false, found the text \"yes\"",
        ),
    ] {
        let message = refused(lines);
        assert!(message.contains(expected), "{lines}: {message}");
        assert!(message.starts_with("app/sandbar.toml:"), "{message}");
    }
}

#[test]
fn every_fault_is_told_at_once() {
    let message = refused("commit.interval.ms = 0\nfoo = 1\n");
    assert!(message.contains("sandbar.toml:3:1:") && message.contains("sandbar.toml:4:1:"), "{message}");
}

#[test]
fn broken_toml_is_told_with_its_place() {
    let message = refused("commit.interval.ms = \n");
    assert!(message.contains("sandbar.toml:3:"), "{message}");
    assert!(message.contains("not valid TOML"), "{message}");
}

#[test]
fn required_keys_are_asked_for() {
    let message = parse("commit.interval.ms = 5\n").map(|_| ()).expect_err("incomplete");
    assert!(message.contains("the key application.id is missing"), "{message}");
    assert!(message.contains("the key module is missing"), "{message}");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mut overrides = Overrides {
        environment: vec![("SANDBAR__COMMIT_INTERVAL_MS".to_owned(), "20".to_owned()), ("HOME".into(), "/".into())],
        ..Overrides::default()
    };
    let text = format!("{MINIMAL}commit.interval.ms = 10\n");
    let load = |overrides: &Overrides| Manifest::parse(Path::new("sandbar.toml"), &text, overrides).expect("valid");
    assert_eq!(load(&overrides).integer("commit.interval.ms"), 20);
    overrides.pairs.push("commit.interval.ms=30".to_owned());
    assert_eq!(load(&overrides).integer("commit.interval.ms"), 30);
    overrides.flag("--state-dir", "state.dir", "here");
    assert_eq!(load(&overrides).path_of("state.dir"), Path::new("here"));
}

#[test]
fn faults_of_flags_and_environment_name_them() {
    let overrides = Overrides {
        environment: vec![("SANDBAR__COMIT_INTERVAL_MS".to_owned(), "20".to_owned())],
        pairs: vec!["poll.ms=fast".to_owned(), "nothing".to_owned()],
        ..Overrides::default()
    };
    let error = Manifest::parse(Path::new("sandbar.toml"), MINIMAL, &overrides).expect_err("refused").to_string();
    assert!(error.contains("environment variable SANDBAR__COMIT_INTERVAL_MS: unknown key"), "{error}");
    assert!(error.contains("did you mean commit.interval.ms?"), "{error}");
    assert!(error.contains("-X poll.ms=fast: poll.ms: expected a whole number"), "{error}");
    assert!(error.contains("-X nothing: expected key=value"), "{error}");
}

#[test]
fn the_reference_has_every_key() {
    let page = manifest_reference();
    for option in OPTIONS.iter() {
        assert!(page.contains(&format!("### `{}`", option.name.replace('*', "<name>"))), "{}", option.name);
    }
}

fn with_tables(lines: &str) -> Result<Manifest, String> {
    parse(&format!("application.id = \"tables\"\n{lines}"))
}

#[test]
fn tables_need_no_module_and_have_defaults() {
    let text = "[table.flights]\n[table.a]\ntopic = \"b\"\nbackend = \"memory\"\nkey.format = \"i64\"\nvalue.format = \"json\"\n";
    let manifest = with_tables(text).expect("valid");
    let text = |text: &str| text.to_owned();
    let flights = TableSettings {
        topic: text("flights"),
        in_memory: false,
        key_format: text("utf8"),
        value_format: text("utf8"),
    };
    let other =
        TableSettings { topic: text("b"), in_memory: true, key_format: text("i64"), value_format: text("json") };
    assert_eq!(manifest.tables, [(text("flights"), flights), (text("a"), other)].into());
    assert!(parse(MINIMAL).expect("valid").tables.is_empty());
}

#[test]
fn what_means_nothing_to_a_table_is_refused_beside_one() {
    for (lines, expected) in [
        ("module = \"a.wasm\"\n[table.t]\n", "sandbar.toml:2:1: module: a manifest has a module or tables"),
        ("[table.t]\n[stores.t]\nbackend = \"memory\"\n", "stores.t.backend: only a module has that"),
        ("[table.t]\n[sources.t]\ntopic = \"x\"\n", "sources.t.topic: only a module has that"),
        ("[table.t]\n[config]\na = 1\n", "config.a: only a module has that"),
        (
            "processing.guarantee = \"exactly_once_v2\"\n[table.t]\n",
            "a table writes nothing that a transaction could hold",
        ),
        ("auto.offset.reset = \"latest\"\n[table.t]\n", "begins with \"earliest\""),
        ("[table.t]\n[table.u]\ntopic = \"t\"\n", "table.u: the topic t is served by table.t already"),
        ("[table.t]\n[table.t]\n", "not valid TOML"),
        ("[table.t]\nbackend = \"disk\"\n", "table.t.backend: expected one of \"rocksdb\", \"memory\""),
        ("[table.t]\nvalue.format = \"avro\"\n", "table.t.value.format: expected one of \"utf8\""),
        ("[table.t]\nkey.formt = \"json\"\n", "unknown key table.t.key.formt; did you mean table.t.key.format?"),
        ("[table.\".t\"]\ntopic = \"t\"\n", "table..t: expected a name"),
        ("[table.\"a b\"]\n", "table.a b.topic: expected a name"),
    ] {
        let message = with_tables(lines).map(|_| ()).expect_err(lines);
        assert!(message.contains(expected), "{lines}: {message}");
        assert!(message.starts_with("app/sandbar.toml:"), "{message}");
    }
    let at_least_once = "processing.guarantee = \"at_least_once\"\nauto.offset.reset = \"earliest\"\n[table.t]\n";
    assert!(with_tables(at_least_once).is_ok(), "what a table does may be said");
}

#[test]
fn networks_are_a_list_or_joined_by_commas() {
    for written in ["\"10.0.0.0/8, fd00::/8\"", "[\"10.0.0.0/8\", \"fd00::/8\"]"] {
        let manifest = parse(&format!("{MINIMAL}advertised.networks = {written}\n")).expect("valid");
        let networks = manifest.peer_networks();
        for (address, allowed) in [("10.1.2.3", true), ("fd00::1", true), ("192.168.0.1", false)] {
            assert_eq!(networks.check(address.parse().expect("an address")).is_ok(), allowed, "{written}: {address}");
        }
    }
    assert_eq!(parse(MINIMAL).expect("valid").peer_networks(), PeerNetworks::default());
    for written in ["\"\"", "[]", "\"10.0.0.0/40\"", "\"10.0.0.0/8,\"", "7"] {
        let message = refused(&format!("advertised.networks = {written}\n"));
        assert!(message.contains("networks such as 10.0.0.0/8"), "{written}: {message}");
    }
}
