//! Hostile records on a whole host: each of them costs itself. It becomes a dead letter that says why, the records
//! around it are answered, in order, and the host ends when there is nothing left to do.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Place, guest};

/// Commands of the guest `probe`, each with the reason that its dead letter gives and a part of its message.
const ATTACKS: [(&str, &str, &str, &str); 24] = [
    ("error", "no", "refused", "no"),
    ("panic", "x", "trap", "a panic with"),
    ("recurse", "", "trap", "stack overflow"),
    ("recurse-small", "1", "trap", "call stack exhausted"),
    ("loop", "", "deadline", "ran longer than 200 ms; raise it with the key processor.deadline.ms"),
    ("grow", "", "memory", "raise it with the key processor.memory.max.bytes"),
    ("host-calls", "", "limit", "raise it with the key processor.host.max.calls"),
    ("log-huge", "5000000", "limit", "raise it with the key processor.output.max.bytes"),
    ("output-bytes", "5000000", "limit", "raise it with the key processor.output.max.bytes"),
    ("output-records", "1001", "limit", "raise it with the key processor.output.max.records"),
    ("put-megabytes", "5", "limit", "raise it with the key processor.state.max.write.bytes"),
    ("put-entries", "9000", "limit", "raise it with the key processor.state.max.operations"),
    ("get-same-many", "20", "limit", "raise it with the key processor.state.max.read.bytes"),
    ("schedules", "11", "limit", "raise it with the key processor.schedule.max.count"),
    ("ends-descending", "", "output", "malformed output: end offset 2 of item 1 is below the end 4"),
    ("ends-huge", "", "output", "malformed output: the end offsets stop at"),
    ("refused-beyond", "", "output", "malformed output: record "),
    ("sink-undeclared", "", "output", "malformed output: output 1 goes to sink 7, but the sinks are 0 to 0: answers"),
    ("partition-beyond", "", "output", "malformed output: output 0 goes to partition 99"),
    ("partition-negative", "", "output", "malformed output: output 1 goes to partition -2"),
    ("timestamp-negative", "", "output", "malformed output: output 1 has the timestamp -5"),
    ("unopened", "7", "trap", "which `open` never returned"),
    ("put-and-panic", "half", "trap", "after a put"),
    ("put-and-fail", "half", "refused", "after a put"),
];

/// The guest looks at the first record of a call only.
const MANIFEST: &str = "\
application.id = \"hostile\"
batch.max.records = 1
errors.dead.letter.queue.topic.name = \"dlq\"
processor.deadline.ms = 200
processor.memory.max.bytes = 8388608
processor.host.max.calls = 1000
processor.output.max.bytes = 4194304
processor.output.max.records = 1000
processor.state.max.write.bytes = 4194304
processor.state.max.operations = 8999
processor.state.max.read.bytes = 8388608
processor.schedule.max.count = 10
";

#[test]
fn a_hostile_record_costs_itself_and_nothing_else() {
    let place = Place::new("hostile");
    place.write("sandbar.toml", format!("module = {:?}\n{MANIFEST}", guest("probe")));
    ["commands", "answers", "dlq"].into_iter().for_each(|topic| place.create_topic(topic, 1));
    let mut lines = Vec::new();
    for (command, argument, ..) in ATTACKS {
        lines.push(json!({ "key": command, "value": argument }).to_string());
        // The store has nothing of what failed.
        lines.push(json!({ "key": "get", "value": "half" }).to_string());
    }
    place.produce("commands", &lines.join("\n"));
    place.run_until_idle(&[]).succeeded();

    let header = |letter: &Value, name: &str| -> String {
        let headers = letter["headers"].as_array().expect("headers");
        let found = headers.iter().find(|header| header[0] == name).unwrap_or_else(|| panic!("no {name} in {letter}"));
        found[1].as_str().expect("text").to_owned()
    };
    let letters = place.read("dlq", &[]);
    for (letter, (command, _, reason, part)) in letters.iter().zip(ATTACKS) {
        assert_eq!((letter["key"].as_str(), &*header(letter, "__sandbar.reason")), (Some(command), reason));
        let message = header(letter, "__streams.errors.message");
        assert!(message.contains(part), "{command}: {message}");
    }
    assert_eq!(letters.len(), ATTACKS.len());
    let answers: Vec<String> =
        place.read("answers", &[]).iter().map(|answer| answer["value"].as_str().expect("text").to_owned()).collect();
    assert_eq!(answers, vec!["None"; ATTACKS.len()]);
    println!(
        "hostile: host {} hostile records, {} dead letters, {} innocent records answered",
        ATTACKS.len(),
        letters.len(),
        answers.len()
    );
}

/// Two applications of one process: the second is given the first one's changelog for its outputs.
#[test]
fn the_state_of_another_application_is_out_of_reach() {
    let place = Place::new("hostile-state");
    let manifest = |id: &str, lines: &str| {
        place
            .write(&format!("{id}.toml"), format!("application.id = \"{id}\"\nmodule = {:?}\n{lines}", guest("count")));
    };
    let run = |manifests: &[&str]| {
        let mut all = vec!["run", "--embedded", "broker", "--until-idle", "1s", "--listen", "127.0.0.1:0"];
        manifests.iter().for_each(|path| all.extend(["-f", path]));
        place.sandbar(&all)
    };
    let lines: String =
        (0..10).map(|n| json!({ "key": format!("k{}", n % 2), "value": "x" }).to_string() + "\n").collect();
    ["in", "out", "mine"].into_iter().for_each(|topic| place.create_topic(topic, 1));
    place.produce("in", &lines);
    place.produce("mine", &lines);
    manifest("victim", "");
    run(&["victim.toml"]).succeeded();
    let changelog = || place.read("victim-counts-changelog", &["--value-format", "i64"]);
    let before = changelog();
    assert!(!before.is_empty());

    manifest("attacker", "sources.in.topic = \"mine\"\nsinks.out.topic = \"victim-counts-changelog\"\n");
    let words = [
        "attacker.toml:4:1: sinks.out.topic: the module",
        "would write into the topic victim-counts-changelog by its sink out",
        "[victim] stopped (idle)",
    ];
    run(&["victim.toml", "attacker.toml"]).failed(2, &words);
    assert_eq!(changelog(), before);
    let topics = place.sandbar(&["topics", "list", "--embedded", "broker"]).succeeded().stdout;
    assert!(!topics.contains("attacker"), "it was refused before any topic was made: {topics}");

    // What it wrote would have been the victim's state: with its folder gone, the victim has what the topic says.
    fs::remove_dir_all(place.folder.join(".sandbar/state/victim")).expect("the victim's stores");
    run(&["victim.toml"]).succeeded();
    assert_eq!(changelog(), before);

    // Reading it is for the operator to allow.
    manifest("reader", "sources.in.topic = \"victim-counts-changelog\"\nsinks.out.topic = \"out\"\n");
    run(&["reader.toml"]).succeeded();
}

/// A module whose outputs pass for dead letters would have a redrive send them wherever they say.
#[test]
fn a_sink_that_is_the_topic_of_the_dead_letters_is_refused() {
    let place = Place::counting("hostile-letters");
    let words = ["errors.dead.letter.queue.topic.name is letters, which is the topic of the sink \"out\""];
    let set = ["-X", "sinks.out.topic=letters", "-X", "errors.dead.letter.queue.topic.name=letters"];
    place.run_until_idle(&set).failed(1, &words);
}

#[test]
fn more_stores_than_allowed_are_refused_before_any_topic_is_made() {
    let place = Place::counting("hostile-stores");
    place.sandbar(&["topics", "create", "other", "--embedded", "broker"]).succeeded();
    let words = ["declares 1 stores, more than the limit of 0; raise it with the key processor.stores.max.count"];
    place.run_until_idle(&["-X", "processor.stores.max.count=0"]).failed(2, &words);
    let topics = place.sandbar(&["topics", "list", "--embedded", "broker"]).succeeded().stdout;
    assert_eq!(topics.lines().count(), 2, "the heading and the other: {topics}");
}
