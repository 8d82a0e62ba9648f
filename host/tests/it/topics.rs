//! `sandbar topics` on the embedded broker: what goes in comes out, and mistakes are told by their line.

use serde_json::{Value, json};

use crate::support::Place;

#[test]
fn what_is_read_can_be_written_again() {
    let place = Place::new("roundtrip");
    for topic in ["first", "second"] {
        place.create_topic(topic, 2);
    }
    let lines = [
        json!({ "key": "ü", "value": "Tschüss", "timestamp": 7, "partition": 0, "headers": [["a", "1"], ["a", null]] }),
        json!({ "key": null, "value": "no key", "timestamp": 5, "partition": 1 }),
        json!({ "key": "tombstone", "value": null, "timestamp": 6, "partition": 1 }),
        json!({ "key_base64": "/wA=", "value_base64": "AAECAw==", "timestamp": 8, "partition": 1 }),
        json!({ "key": "", "value": "", "timestamp": 9, "partition": 1 }),
    ];
    place.produce("first", &lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"));
    let read = place.sandbar(&["topics", "read", "first", "--embedded", "broker"]).succeeded().stdout;
    place.produce("second", &read);
    let without_topic = |records: Vec<Value>| -> Vec<Value> {
        records
            .into_iter()
            .map(|mut record| {
                record["topic"].take();
                record
            })
            .collect()
    };
    let sorted = |topic: &str| {
        let mut records = without_topic(place.read(topic, &[]));
        records.sort_by_key(|record| (record["partition"].as_i64(), record["offset"].as_i64()));
        records
    };
    assert_eq!(sorted("first"), sorted("second"));
    assert_eq!(sorted("first").len(), lines.len());
}

#[test]
fn a_part_of_a_topic() {
    let place = Place::new("part");
    place.create_topic("t", 2);
    let lines: Vec<String> =
        (0..10).map(|n| json!({ "value": n.to_string(), "partition": n % 2, "timestamp": 1 }).to_string()).collect();
    place.produce("t", &lines.join("\n"));
    let values = |arguments: &[&str]| -> Vec<String> {
        place.read("t", arguments).iter().filter_map(|record| record["value"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(values(&["--partition", "1"]), ["1", "3", "5", "7", "9"]);
    assert_eq!(values(&["--partition", "1", "--from", "3"]), ["7", "9"]);
    assert_eq!(values(&["-n", "3"]).len(), 3);
    assert_eq!(values(&["--from", "end"]).len(), 0);
    let read = |arguments: &[&str]| {
        let mut all = vec!["topics", "read", "t", "--embedded", "broker"];
        all.extend(arguments);
        place.sandbar(&all)
    };
    read(&["--from", "3"]).failed(2, &["an offset belongs to one partition"]);
    read(&["--from", "soon"]).failed(2, &["expected beginning, end or an offset"]);
    read(&["--partition", "7"]).failed(3, &["partitions 0 to 1"]);
    read(&["--partition", "0", "--from", "99"]).failed(3, &["offsets 0 to 5"]);
}

#[test]
fn formats_are_as_kafkas_serializers_write_them() {
    let place = Place::new("formats");
    place.create_topic("t", 1);
    let formats = ["--key-format", "i64", "--value-format", "json"];
    let mut produce = vec!["topics", "produce", "t", "--embedded", "broker"];
    produce.extend(formats);
    place.sandbar_with(&produce, r#"{"key":258,"value":{"b":1.50,"a":[]},"timestamp":1}"#).succeeded();
    assert_eq!(place.read("t", &["--key-format", "hex"])[0]["key"], json!("0000000000000102"));
    assert_eq!(place.read("t", &["--key-format", "hex"])[0]["value"], json!(r#"{"b":1.50,"a":[]}"#));
    assert_eq!(place.read("t", &formats)[0]["key"], json!(258));
}

#[test]
fn mistakes_are_told_by_their_line() {
    let place = Place::new("mistakes");
    place.create_topic("t", 1);
    let refused = |topic: &str, input: &str, words: &[&str]| {
        place.sandbar_with(&["topics", "produce", topic, "--embedded", "broker"], input).failed(1, words);
    };
    refused(
        "t",
        "{\"value\":\"good\"}\n\nnot json\n",
        &["line 3:", "stopped after 1 records, which are all in topic t"],
    );
    refused("t", r#"{"value":"a","timestamp":-5}"#, &["line 1: timestamp", "0 or more, found -5"]);
    refused("t", r#"{"value":{"a":1}}"#, &["line 1: value: expected utf8", "--value-format json"]);
    refused("t", r#"{"valu":"a"}"#, &["line 1: unknown field `valu`"]);
    assert_eq!(place.read("t", &[]).len(), 1, "what went before a bad line is there, nothing else");
    let code =
        |input: &str, topic: &str| place.sandbar_with(&["topics", "produce", topic, "--embedded", "broker"], input);
    code("{}", "nowhere").failed(3, &["topic nowhere does not exist", "sandbar topics create nowhere"]);
    code(r#"{"value":"a","partition":7}"#, "t").failed(3, &["line 1", "partitions 0 to 0"]);
    let large = json!({ "value": "x".repeat(2 << 20) }).to_string();
    code(&large, "t").failed(3, &["line 1"]);
    place.sandbar(&["topics", "read", "nowhere", "--embedded", "broker"]).failed(3, &["cannot read topic nowhere"]);
    place
        .sandbar(&["topics", "produce", "t", "absent.ndjson", "--embedded", "broker"])
        .failed(1, &["cannot open absent.ndjson"]);
}

#[test]
fn topics_are_created_once() {
    let place = Place::new("create");
    place.create_topic("t", 3);
    let create = |arguments: &[&str]| {
        let mut all = vec!["topics", "create", "--embedded", "broker"];
        all.extend(arguments);
        place.sandbar(&all)
    };
    create(&["t"]).failed(3, &["topic t exists already"]);
    create(&["t", "--partitions", "3", "--if-not-exists"]).succeeded();
    create(&["t", "--partitions", "5", "--if-not-exists"]).failed(1, &["exists with 3 partitions where 5"]);
    create(&["no good"]).failed(2, &["topic \"no good\""]);
    create(&["u", "--config", "cleanup.policy=compact"]).succeeded();
    create(&["v", "--config", "cleanup.policy"]).failed(2, &["expected key=value"]);
    let listed = place.sandbar(&["topics", "list", "-o", "json", "--embedded", "broker"]).succeeded().stdout;
    let topics: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(topics[0], json!({ "topic": "t", "partitions": 3, "records": 0 }));
    assert_eq!(topics.len(), 2);
}
