//! Each fault of a declaration has a message of its own; a right one passes unchanged.

use super::*;

fn source(name: &str) -> types::Source {
    types::Source { name: name.to_owned(), options: Vec::new() }
}

fn sink(name: &str) -> types::Sink {
    types::Sink { name: name.to_owned(), options: Vec::new() }
}

fn store(name: &str) -> types::StoreDeclaration {
    types::StoreDeclaration {
        name: name.to_owned(),
        kind: "key-value".to_owned(),
        key_format: "utf8".to_owned(),
        value_format: "json".to_owned(),
        version: 1,
        options: Vec::new(),
    }
}

fn topology(sub_topologies: Vec<types::SubTopology>) -> types::Topology {
    types::Topology { sub_topologies, options: Vec::new() }
}

fn faults(topology: types::Topology) -> String {
    Declaration::from_guest(topology).unwrap_err().join("; ")
}

#[test]
fn a_right_declaration_passes() {
    let declaration = Declaration::from_guest(topology(vec![types::SubTopology {
        sources: vec![source("reports")],
        stores: vec![store("votes")],
        sinks: vec![sink("majority"), sink("late.reports_2")],
    }]))
    .unwrap();
    let part = &declaration.sub_topologies[0];
    assert_eq!(part.sources, [TopicDeclaration { name: "reports".to_owned() }]);
    assert_eq!(part.stores[0].name, "votes");
    assert_eq!((part.stores[0].key_format.as_str(), part.stores[0].value_format.as_str()), ("utf8", "json"));
    assert_eq!(part.sinks.len(), 2);
}

#[test]
fn an_empty_declaration_is_refused() {
    assert_eq!(faults(topology(Vec::new())), "it has no sub-topology");
    let empty = types::SubTopology { sources: Vec::new(), stores: Vec::new(), sinks: Vec::new() };
    assert_eq!(faults(topology(vec![empty])), "sub-topology 0 has no source");
}

#[test]
fn names_follow_kafkas_rule() {
    for (name, part) in [
        ("", "has an empty name"),
        ("a/b", "other characters"),
        ("..", "other characters"),
        ("Größe", "other characters"),
        ("a\nb", "source of sub-topology 0 \"a\\nb\" has a name with other characters"),
    ] {
        let sub_topology = types::SubTopology { sources: vec![source(name)], stores: Vec::new(), sinks: Vec::new() };
        let found = faults(topology(vec![sub_topology]));
        assert!(found.contains(part), "{name:?}: {found}");
    }
    let long = "x".repeat(101);
    let sub_topology = types::SubTopology { sources: vec![source("a")], stores: vec![store(&long)], sinks: Vec::new() };
    assert!(faults(topology(vec![sub_topology])).contains("has a name of 101 bytes, at most 100 are allowed"));
}

#[test]
fn all_faults_are_named_at_once() {
    let odd = types::StoreDeclaration {
        kind: "window".to_owned(),
        key_format: "xml".to_owned(),
        options: vec![("retention".to_owned(), "1".to_owned())],
        ..store("s")
    };
    let sub_topology = types::SubTopology {
        sources: vec![source("a"), source("a")],
        stores: vec![odd, store("s")],
        sinks: Vec::new(),
    };
    let found = faults(topology(vec![sub_topology]));
    for part in [
        "source of sub-topology 0 \"a\" is declared twice",
        "store \"s\" of sub-topology 0 has the option \"retention\"",
        "has the kind \"window\", known are key-value",
        "has the key format \"xml\", known are bytes, utf8, json, i32, i64, f64",
        "store \"s\" of sub-topology 0 is declared twice",
    ] {
        assert!(found.contains(part), "{part} is not in {found}");
    }
}

#[test]
fn a_flood_of_faults_is_bounded() {
    let sub_topology = types::SubTopology {
        sources: (0..100_000).map(|_| source("")).collect(),
        stores: Vec::new(),
        sinks: Vec::new(),
    };
    let found = Declaration::from_guest(topology(vec![sub_topology])).unwrap_err();
    assert_eq!(found.len(), FAULTS_MAX + 1);
    assert!(found[0].contains("100000 sources"));
}
