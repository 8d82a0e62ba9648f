//! Binding: defaults, bindings, and names that nobody declared.

use std::path::Path;

use sandbox::SubTopologyDeclaration;

use super::*;
use crate::config::Overrides;

fn declaration() -> Declaration {
    let topic = |name: &str| TopicDeclaration { name: name.to_owned() };
    Declaration {
        sub_topologies: vec![SubTopologyDeclaration {
            sources: vec![topic("reports")],
            stores: vec![StoreDeclaration {
                name: "votes".to_owned(),
                key_format: "utf8".to_owned(),
                value_format: "json".to_owned(),
                version: 2,
            }],
            sinks: vec![topic("decisions")],
        }],
    }
}

fn bound(lines: &str) -> Result<Topology, String> {
    bound_of(&declaration(), lines)
}

fn bound_of(declaration: &Declaration, lines: &str) -> Result<Topology, String> {
    let text = format!("application.id = \"vote\"\nmodule = \"vote.wasm\"\n{lines}");
    let manifest = Manifest::parse(Path::new("sandbar.toml"), &text, &Overrides::default()).expect("valid");
    bind(&manifest, declaration).map_err(|error| error.to_string())
}

#[test]
fn without_bindings_topics_have_the_modules_names() {
    let topology = bound("").expect("bound");
    let part = &topology.sub_topologies[0];
    assert_eq!((&*part.sources[0].topic, &*part.sinks[0].topic), ("reports", "decisions"));
    assert_eq!((part.stores[0].backend, part.stores[0].version), (StoreBackend::Persistent, 2));
    assert!(part.stores[0].is_logged());
}

#[test]
fn the_manifest_binds_topics_and_backends() {
    let topology =
        bound("sources.reports.topic = \"in\"\nsinks.decisions.topic = \"out\"\nstores.votes.backend = \"memory\"\n")
            .expect("bound");
    let part = &topology.sub_topologies[0];
    assert_eq!((&*part.sources[0].name, &*part.sources[0].topic), ("reports", "in"));
    assert_eq!(&*part.sinks[0].topic, "out");
    assert_eq!(part.stores[0].backend, StoreBackend::InMemory);
}

#[test]
fn a_name_that_nobody_declared_is_refused_with_its_place() {
    let message = bound("sources.report.topic = \"in\"\n").expect_err("refused");
    assert!(message.starts_with("sandbar.toml:3:1: sources.report: the module does not declare it"), "{message}");
    assert!(message.contains("did you mean sources.reports?"), "{message}");
    let message = bound("[stores.counts]\nbackend = \"memory\"\n").expect_err("refused");
    assert!(message.contains("stores.counts: the module does not declare it; it declares votes"), "{message}");
}

const RESERVED: [&str; 4] =
    ["victim-counts-changelog", "victim-by-key-repartition", "victim-sandbar-versions", "__transaction_state"];

#[test]
fn no_sink_reaches_the_state_of_another_application() {
    for topic in RESERVED {
        let mut declaration = declaration();
        let message = bound_of(&declaration, &format!("sinks.decisions.topic = {topic:?}\n")).expect_err("refused");
        assert!(
            message.starts_with("sandbar.toml:3:1: sinks.decisions.topic: the module vote.wasm would"),
            "{message}"
        );
        assert!(message.contains(&format!("the topic {topic} by its sink decisions")), "{message}");
        // The module's own name for it does not do either.
        declaration.sub_topologies[0].sinks[0].name = topic.to_owned();
        let message = bound_of(&declaration, "").expect_err("refused");
        assert!(message.contains(&format!("the module vote.wasm would write into the topic {topic}")), "{message}");
        bound_of(&declaration, &format!("sinks.{topic}.topic = \"out\"\n")).expect("bound to another");
    }
}

#[test]
fn a_source_reads_the_state_of_another_application_only_where_the_manifest_names_it() {
    for topic in RESERVED {
        let mut declaration = declaration();
        bound_of(&declaration, &format!("sources.reports.topic = {topic:?}\n")).expect("the operator says so");
        let writes = format!("sources.reports.topic = {topic:?}\nstores.votes.write.source = \"reports\"\n");
        let message = bound_of(&declaration, &writes).expect_err("refused");
        assert!(message.contains(&format!("stores.votes.write.source: the topic of the source reports is {topic}")));
        declaration.sub_topologies[0].sources[0].name = topic.to_owned();
        let message = bound_of(&declaration, "").expect_err("refused");
        assert!(message.contains(&format!("sources.{topic}.topic: the module vote.wasm would read")), "{message}");
        bound_of(&declaration, &format!("sources.{topic}.topic = {topic:?}\n")).expect("the operator says so");
    }
}

#[test]
fn the_number_of_stores_has_a_limit() {
    let mut declaration = declaration();
    let stores = &mut declaration.sub_topologies[0].stores;
    *stores = (0..21).map(|n| StoreDeclaration { name: format!("s{n}"), ..stores[0].clone() }).collect();
    let message = bound_of(&declaration, "").expect_err("refused");
    let words = "the module vote.wasm declares 21 stores, more than the limit of 20; raise it with the key \
                 processor.stores.max.count";
    assert!(message.contains(words), "{message}");
    bound_of(&declaration, "processor.stores.max.count = 21\n").expect("raised");
    // Those of all sub-topologies count together.
    let more = declaration.sub_topologies[0].clone();
    declaration.sub_topologies.push(more);
    let message = bound_of(&declaration, "processor.stores.max.count = 21\n").expect_err("refused");
    assert!(message.starts_with("sandbar.toml:3:1") && message.contains("42 stores"), "{message}");
}
