//! Durations as people write them, and what hangs on the guarantee.

use super::*;

#[test]
fn durations_have_a_unit() {
    assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
    assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
    for text in ["5", "s", "", "-1s", "5 s", "99999999999999999999s"] {
        assert!(parse_duration(text).is_err_and(|error| error.contains("for example 5s")), "{text}");
    }
}

fn config_of(keys: &str) -> StreamsConfig {
    let text = format!("application.id = \"count\"\nmodule = \"count.wasm\"\n{keys}");
    let manifest = Manifest::parse(Path::new("sandbar.toml"), &text, &Default::default()).expect("a manifest");
    streams_config(&manifest)
}

#[test]
fn the_commit_interval_hangs_on_the_guarantee_unless_it_is_set() {
    let at_least_once = "processing.guarantee = \"at_least_once\"\n";
    assert_eq!(config_of("").commit_interval_ms, 100);
    assert_eq!(config_of("").processing_guarantee, ProcessingGuarantee::ExactlyOnceV2);
    assert_eq!(config_of(at_least_once).commit_interval_ms, 1_000);
    assert_eq!(config_of(&format!("{at_least_once}commit.interval.ms = 100\n")).commit_interval_ms, 100);
}

#[test]
fn others_find_the_host_where_it_listens_or_where_it_says() {
    let at = |server: &str| {
        let text = format!("application.id = \"count\"\nmodule = \"count.wasm\"\napplication.server = \"{server}\"\n");
        let manifest = Manifest::parse(Path::new("sandbar.toml"), &text, &Default::default()).expect("a manifest");
        endpoint(&manifest, 41234)
    };
    assert_eq!(at("127.0.0.1:0"), "127.0.0.1:41234");
    assert_eq!(at("[::1]:0"), "[::1]:41234");
    let advertised = |listener: &str| at(&format!("0.0.0.0:0\"\nadvertised.listener = \"{listener}"));
    assert_eq!(advertised("votes-1.svc:8080"), "votes-1.svc:8080");
    assert_eq!(advertised("votes-1.svc:0"), "votes-1.svc:41234");
}

#[test]
fn every_thread_of_every_host_has_a_transactional_id() {
    assert_eq!(transactional_id("count", "00ff", 3), "count-00ff-3");
}

#[test]
fn sources_that_meet_in_a_task_are_assigned_together_unless_somebody_knows_better() {
    let strategy = |sources: &[&str], keys: &str| {
        let text = format!("application.id = \"count\"\nmodule = \"count.wasm\"\n{keys}");
        let manifest = Manifest::parse(Path::new("sandbar.toml"), &text, &Default::default()).expect("a manifest");
        let topology = engine::testing::topology(sources, &[], &[]);
        let properties = clients_config(&manifest, &topology, "127.0.0.1:9092").properties;
        let mut set = properties.into_iter().filter(|(key, _)| key.ends_with("partition.assignment.strategy"));
        (set.next(), set.next())
    };
    let set = |key: &str, value: &str| (Some((key.to_owned(), value.to_owned())), None);
    assert_eq!(strategy(&["in"], ""), (None, None));
    assert_eq!(strategy(&["in", "table"], ""), set("main.consumer.partition.assignment.strategy", "range"));
    let own = "kafka.\"partition.assignment.strategy\" = \"roundrobin\"\n";
    assert_eq!(strategy(&["in", "table"], own), set("partition.assignment.strategy", "roundrobin"));
}
