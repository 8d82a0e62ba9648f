//! How a process ends when its applications do.

use std::path::Path;

use super::super::deployments::OwnModule;
use super::super::status::Status;
use super::*;
use crate::config::Overrides;
use crate::terminal::Format;

/// Applications without a broker, which fail at their start; in this order of ids.
fn applications(ids: &[&str]) -> Vec<Arc<Application>> {
    let statuses = Applications::new(ids.iter().copied());
    let manifest = |id: &str| {
        let folder = std::env::temp_dir().join(format!("sandbar-host-tests-{}", std::process::id()));
        let text = format!(
            "application.id = \"{id}\"\nstate.dir = \"{}\"\n[table.topic]\nbackend = \"memory\"\n",
            folder.display()
        );
        Manifest::parse(Path::new(&format!("{id}.toml")), &text, &Overrides::default()).expect("a manifest")
    };
    let options = RunOptions { embedded: None, until_idle: None, own_module: OwnModule::New };
    let terminal = Terminal::new(Format::Text);
    let shared = Arc::new(Shared::new(&manifest("shared"), options, terminal));
    let stop = Stop::default();
    let application = |id: &&str| {
        Arc::new(Application {
            manifest: manifest(id),
            endpoint: "127.0.0.1:1".to_owned(),
            place: shared.idle.enter(),
            status: statuses.find(id).expect("it is one of them"),
            stop: stop.below(),
            terminal,
            shared: Arc::clone(&shared),
            own_module: OwnModule::New,
        })
    };
    ids.iter().map(application).collect()
}

fn state(status: &Status) -> (Option<String>, &'static str, bool) {
    (status.failure(), status.failed_word(), status.is_released())
}

#[test]
fn one_alone_ends_with_its_own_error() {
    let one = applications(&["alone"]);
    let error = outcome(run_all(one.clone()), 1).expect_err("it has no broker");
    assert!(error.downcast_ref::<UsageError>().is_some(), "{error:?}");
    let (reason, word, is_released) = state(&one[0].status);
    assert!(reason.is_some_and(|reason| reason.starts_with("no broker")) && word == "failed" && !is_released);
}

#[test]
fn several_that_failed_are_named_with_their_reasons() {
    let both = applications(&["first", "second"]);
    let error = outcome(run_all(both.clone()), 2).expect_err("they have no broker");
    let text = error.to_string();
    assert!(text.starts_with("2 of 2 applications failed\n  first (first.toml): no broker"), "{text}");
    assert!(text.contains("\n  second (second.toml): no broker"), "{text}");
    assert_eq!(exit::number_of(&error), 2, "the code that each would have ended with");
    for application in &both {
        let (reason, word, is_released) = state(&application.status);
        assert!(reason.is_some() && word == "ERRORED" && is_released);
        assert!(application.stop.is_raised());
    }
    let idle = &both[0].shared.idle;
    assert!(idle.vote(idle.enter(), true), "nobody waits for them");
}

#[test]
fn different_reasons_are_a_failure_like_any() {
    let failed = |code| FailedApplication {
        application: "a".to_owned(),
        manifest: "a.toml".into(),
        reason: "why".to_owned(),
        code,
    };
    let error = FailedApplications { applications: 3, failed: vec![failed(3), failed(4)] };
    assert_eq!(exit::number_of(&error.into()), 1);
}
