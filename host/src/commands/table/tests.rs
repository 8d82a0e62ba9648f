//! What a command line of `serve-topic` becomes: the same manifest as a file with tables.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn of(words: &str) -> Result<Manifest, String> {
    let line = Line::parse_from(std::iter::once("serve-topic").chain(words.split_whitespace()));
    let overrides = Overrides { pairs: line.arguments.set.clone(), ..Overrides::default() };
    manifest(&line.arguments, overrides).map_err(|error| format!("{error:#}"))
}

#[test]
fn a_command_line_is_a_manifest() {
    let line =
        "flights planes -b kafka:9092 --backend memory --value-format json --threads 3 --standbys 1 --listen [::1]:80";
    let manifest = of(line).expect("valid");
    let text = "application.id = \"table-flights-planes\"\nbootstrap.servers = \"kafka:9092\"\nnum.stream.threads = 3\n\
                num.standby.replicas = 1\napplication.server = \"[::1]:80\"\n\
                [table.flights]\nbackend = \"memory\"\nvalue.format = \"json\"\n\
                [table.planes]\nbackend = \"memory\"\nvalue.format = \"json\"\n";
    let file = Manifest::parse(Path::new("sandbar.toml"), text, &Overrides::default()).expect("valid");
    assert_eq!(manifest.tables, file.tables);
    assert_eq!(manifest.application_id(), file.application_id());
    assert_eq!(manifest.bootstrap_servers(), file.bootstrap_servers());
    for key in ["num.stream.threads", "num.standby.replicas"] {
        assert_eq!(manifest.integer(key), file.integer(key), "{key}");
    }
    assert_eq!(manifest.text("application.server"), "[::1]:80");
}

#[test]
fn the_application_id_can_be_given_in_every_way() {
    let id = |words: &str| of(words).expect("valid").application_id().to_owned();
    assert_eq!(id("flights"), "table-flights");
    assert_eq!(id("flights -X application.id=mine"), "mine");
    assert_eq!(id("flights -X application.id=mine --application-id yours"), "yours");
    assert!(id(&"x".repeat(249)).len() <= 200);
}

#[test]
fn a_topic_whose_name_cannot_be_a_store_gets_one() {
    let manifest = of(".hidden").expect("valid");
    assert_eq!(manifest.tables["hidden"].topic, ".hidden");
    let long = "x".repeat(249);
    assert_eq!(of(&long).expect("valid").tables[&"x".repeat(200)].topic, long);
}

#[test]
fn bad_lines_say_what_is_wrong() {
    for (words, expected) in [
        ("a/b", "topic \"a/b\": expected a name of letters"),
        ("flights flights", "topic flights is named twice"),
        (".flights flights", "topics .flights and flights would both be the store flights"),
        ("flights --backend disk", "--backend disk: table.flights.backend: expected one of \"rocksdb\", \"memory\""),
        (
            "flights --key-format avro",
            "--key-format avro: table.flights.key.format: expected one of \"utf8\", \"json\"",
        ),
        ("flights --value-format uft8", "table.flights.value.format: expected one of"),
        ("flights --threads none", "--threads none: num.stream.threads: expected a whole number"),
        ("flights -X module=a.wasm", "-X module=a.wasm: module: a manifest has a module or tables"),
        ("flights -X processing.guarantee=exactly_once_v2", "a table writes nothing that a transaction could hold"),
        ("flights -X table.flights.key.formt=json", "did you mean table.flights.key.format?"),
    ] {
        let error = of(words).map(|_| ()).expect_err(words);
        assert!(error.contains(expected), "{words}: {error}");
    }
}
