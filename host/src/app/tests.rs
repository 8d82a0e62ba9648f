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
    let text = format!("application.id = \"vote\"\nmodule = \"vote.wasm\"\n{lines}");
    let manifest = Manifest::parse(Path::new("sandbar.toml"), &text, &Overrides::default()).expect("valid");
    bind(&manifest, &declaration()).map_err(|error| error.to_string())
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
