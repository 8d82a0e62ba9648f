//! WASI: everything that reaches out of the sandbox is denied, everything that differs from run to run is not (D5, S9).

use engine::processor::ProcessorError;
use sandbox::Limits;
use tracing::Level;

use crate::log::recorded;
use crate::support::{Task, batch, module};

fn probe() -> Task {
    Task::start("wasi-probe", Limits::default())
}

#[test]
fn the_module_asks_for_wasi_and_is_loaded() {
    let module = module("wasi-probe");
    assert!(module.facts().imports_wasi());
    assert!(module.facts().imports.iter().any(|name| name.starts_with("wasi:keyvalue/store")));
}

#[test]
fn environment_files_and_network_do_not_exist() {
    let mut task = probe();
    assert_eq!(task.ask("environment", ""), "[] [] None");
    assert_eq!(task.ask("files", ""), "0 folders");
    let network = task.ask("network", "");
    assert!(network.contains("access-denied") && network.contains("permanent-resolver-failure"), "{network}");
}

/// Everything by which a module may try to reach out of the sandbox or to be different from run to run (D5): what it
/// gets is nothing, a refusal, a trap, or the same in two runs.
#[test]
fn no_probe_gets_out() {
    let nothing = [
        ("variables", "", "[]"),
        ("arguments", "", "[]"),
        ("working-folder", "", "None"),
        ("standard-input", "", "false"),
        ("terminals", "", "false false false"),
        ("files", "", "0 folders"),
        ("tcp-4", "", "Some(ErrorCode { code: 1, name: \"access-denied\", message: \"\" })"),
        ("tcp-6", "", "access-denied"),
        ("udp-4", "", "access-denied"),
        ("udp-6", "", "access-denied"),
        ("resolve", "localhost", "permanent-resolver-failure"),
        ("resolve", "169.254.169.254", "permanent-resolver-failure"),
    ];
    let mut listed = Vec::new();
    for (command, argument, part) in nothing {
        let answer = probe().ask(command, argument);
        assert!(answer.contains(part), "{command} {argument}: {answer}");
        listed.push(command);
    }
    for (command, argument, part) in [
        (
            "http",
            "http://169.254.169.254/",
            "called wasi:http/outgoing-handler@0.2.0#handle, which this host does not offer",
        ),
        ("not-offered", "", "called wasi:keyvalue/store@0.2.0#open, which this host does not offer"),
        ("exit", "", "the module called exit(1)"),
    ] {
        let Err(ProcessorError::Trap { message, .. }) = probe().call(command, argument) else {
            panic!("{command} passed")
        };
        assert!(message.contains(part), "{command}: {message}");
        listed.push(command);
    }
    for command in ["random", "insecure", "seed", "wall-clock", "monotonic", "sleep"] {
        let first = probe().ask(command, "");
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert_eq!(probe().ask(command, ""), first, "{command} differs from run to run");
        listed.push(command);
    }
    println!("hostile: D5 {} probes, 0 succeeded: {}", listed.len(), listed.join(", "));
}

#[test]
fn time_is_the_time_of_the_call() {
    let mut task = probe();
    assert_eq!(task.ask("wall-clock", ""), "1700000000.123000000 true");
    let start = std::time::Instant::now();
    assert_eq!(task.ask("sleep", ""), "slept 3600 s");
    assert!(start.elapsed().as_secs() < 5, "the guest slept in real time");
}

#[test]
fn randomness_repeats_with_the_call() {
    let first = probe().ask("random", "");
    assert_eq!(probe().ask("random", ""), first);
    let mut later = batch(&[("random", "")]);
    later.base_offset += 1;
    let mut task = probe();
    let outcome = task.process(later).unwrap();
    let value = String::from_utf8(outcome.outputs.values.get(0).unwrap().to_vec()).unwrap();
    assert_ne!(value, first, "another record has the same randomness");
}

#[test]
fn standard_output_goes_to_the_log() {
    let mut task = probe();
    let lines = recorded(|| assert_eq!(task.ask("print", "one\ntwo\u{7}\nthree"), "truetrue"));
    let lines: Vec<(Level, &str)> =
        lines.iter().map(|(level, line)| (*level, line.split(" application_id=").next().unwrap_or(line))).collect();
    let expected = [
        (Level::INFO, "message=one"),
        (Level::INFO, "message=two\\u{7}"),
        (Level::INFO, "message=three"),
        (Level::WARN, "message=to stderr"),
    ];
    for line in expected {
        assert!(lines.contains(&line), "{line:?} is not in {lines:?}");
    }
}

#[test]
fn what_asks_for_too_much_is_stopped() {
    let limits = Limits { deadline_ms: 500, ..Limits::default() };
    for (command, part) in [
        ("random-huge", "the module asked for 1073741824 random bytes at once"),
        ("keep-streams", "table"),
        ("exit", "the module called exit(1)"),
        ("not-offered", "the module called wasi:keyvalue/store@0.2.0#open, which this host does not offer"),
    ] {
        let mut task = Task::start("wasi-probe", limits.clone());
        let Err(ProcessorError::Trap { message, .. }) = task.call(command, "") else { panic!("{command} passed") };
        assert!(message.contains(part), "{command}: {message}");
    }
    let mut task = Task::start("wasi-probe", limits);
    match task.call("print-for-ever", "") {
        Err(ProcessorError::Deadline { .. } | ProcessorError::Limit { .. }) => {}
        other => panic!("{other:?}"),
    }
}
