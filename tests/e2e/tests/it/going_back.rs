//! What becomes of an application whose versions fail early, late, at a start or one after the other: it goes back step
//! by step while it may, says why where it does not, and its operator has a way out of each of these states.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::host::{Host, Options, get, wait_until};
use serde_json::Value;

use super::versions::Versions;

const LIMIT: Duration = Duration::from_secs(60);

/// It fails at records of the key `poison` only.
const LATE: &str = "behaviour = \"trap-one-key\"\nlabel = \"late\"\n";

fn deployed(answer: Result<Value, String>) -> Result<Value> {
    answer.map_err(|why| anyhow::anyhow!(why))
}

fn wait_state_of_app(host: &Host, id: &str, expected: &str) -> Result<Value> {
    wait_until(LIMIT, || {
        let (_, app) = host.get(&format!("/v1/apps/{id}"))?;
        ensure!(app["state"] == expected, "expected {expected}: {app}\n{}", host.log());
        Ok(app)
    })
}

/// The end of a host that ends by itself, with its log.
fn ends(host: &mut Host) -> Result<String> {
    let status = host.wait(LIMIT)?;
    ensure!(!status.success(), "it ended in good order\n{}", host.log());
    Ok(host.log())
}

#[test]
fn a_bad_version_goes_back_to_the_one_before_and_that_to_the_one_before_it() -> Result<()> {
    let mut versions = Versions::new(None)?;
    let host = versions.host("one", &versions.manifest("a", "versions", "")?)?;
    let b = versions.manifest("b", "versions-b", LATE)?;
    let bad = versions.manifest("bad", "versions", "behaviour = \"trap-every-record\"\nlabel = \"bad\"\n")?;
    versions.produce(2)?;
    deployed(versions.deploy(&host, &b, &[])?)?;
    versions.wait_running(&host, 2)?;
    versions.produce(1)?;
    versions.outputs()?;
    deployed(versions.deploy(&host, &bad, &[])?)?;
    versions.produce(1)?;
    versions.wait_state(&host, 3, "ROLLED_BACK")?;
    // The second one was fine so far, and is on probation still.
    versions.wait_running(&host, 2)?;
    let (_, body) = get(&format!("{}/v1/apps/{}/versions", host.url, versions.id))?;
    ensure!(body["previous"] == 1 && body["on_probation"] == true && body["confirmed"] == false, "{body}");
    versions.send_key("poison")?;
    versions.wait_state(&host, 2, "ROLLED_BACK")?;
    versions.wait_running(&host, 1)?;
    let (_, body) = get(&format!("{}/v1/apps/{}/versions", host.url, versions.id))?;
    ensure!(body["previous"].is_null() && body["confirmed"] == true, "{body}");
    Ok(())
}

/// One record makes both fail, faster than the host looks; also after a restart, which has to know both of those
/// before.
#[test]
fn two_versions_in_a_row_that_one_record_ends_go_back_to_the_first() -> Result<()> {
    for restarts in [false, true] {
        let versions = Versions::new(None)?;
        let a = versions.manifest("a", "versions", "")?;
        let mut host = versions.host("one", &a)?;
        for name in ["b", "c"] {
            let config = LATE.replace("late", name);
            deployed(versions.deploy(&host, &versions.manifest(name, "versions-b", &config)?, &[])?)?;
        }
        versions.wait_running(&host, 3)?;
        if restarts {
            host.terminate()?;
            host = versions.host("one", &a)?;
        }
        versions.send_key("poison")?;
        for number in [3, 2] {
            versions.wait_state(&host, number, "ROLLED_BACK").with_context(|| format!("restarts: {restarts}"))?;
        }
        versions.wait_running(&host, 1)?;
        wait_until(LIMIT, || {
            ensure!(host.store("counts")?.get("poison").is_some_and(|count| count == 1), "it is not processed");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_rollback_by_hand_goes_to_the_version_before() -> Result<()> {
    let mut versions = Versions::new(None)?;
    let host = versions.host("one", &versions.manifest("a", "versions", "")?)?;
    for (name, module) in [("b", "versions-b"), ("c", "versions")] {
        let config = format!("label = \"{name}\"\n");
        deployed(versions.deploy(&host, &versions.manifest(name, module, &config)?, &[])?)?;
    }
    versions.wait_running(&host, 3)?;
    for expected in [2, 1] {
        let back = versions.sandbar(&host, &["rollback"])?;
        ensure!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
        versions.wait_running(&host, expected)?;
    }
    let none = versions.sandbar(&host, &["rollback"])?;
    let why = String::from_utf8_lossy(&none.stderr).into_owned();
    ensure!(!none.status.success() && why.contains("came after none that could be returned to"), "{why}");
    versions.produce(1)?;
    versions.outputs()?;
    Ok(())
}

/// The version is confirmed when the record comes that it cannot take, and every start meets that record again.
#[test]
fn a_confirmed_version_that_ends_the_application_is_replaced_at_a_start() -> Result<()> {
    let mut versions = Versions::new(None)?;
    let a = versions.manifest("a", "versions", "")?;
    let mut host = versions.host("one", &a)?;
    versions.produce(1)?;
    versions.outputs()?;
    deployed(versions.deploy(&host, &versions.manifest("late", "versions-b", LATE)?, &["--no-probation"])?)?;
    versions.wait_running(&host, 2)?;
    versions.send_key("poison")?;
    ends(&mut host)?;
    let mut again = start(&versions, &a, &[])?;
    let log = ends(&mut again)?;
    ensure!(log.contains("version 2 is active and runs instead; `sandbar run --deploy`"), "{log}");
    let host = start(&versions, &a, &["--deploy"])?;
    versions.wait_running(&host, 3)?;
    versions.produce(1)?;
    wait_until(LIMIT, || {
        let rows = host.store("counts")?;
        ensure!(rows.len() == 21 && rows["poison"] == 1, "{rows:?}");
        Ok(())
    })
}

fn start(versions: &Versions, manifest: &Path, flags: &[&str]) -> Result<Host> {
    let state_dir = versions.folder.join("one");
    let options = Options::new(manifest, &versions.broker, &versions.id, &state_dir);
    Host::start(&flags.iter().fold(options, |options, flag| options.flag(flag)))
}

#[test]
fn other_settings_of_an_older_module_do_not_take_over_at_a_start() -> Result<()> {
    let mut versions = Versions::new(None)?;
    let a = versions.manifest("a", "versions", "")?;
    let one = versions.host("one", &a)?;
    deployed(versions.deploy(&one, &versions.manifest("b", "versions-b", "")?, &["--no-probation"])?)?;
    versions.wait_running(&one, 2)?;
    let state_dir = versions.folder.join("two");
    let options = Options::new(&a, &versions.broker, &versions.id, &state_dir).set("processor.deadline.ms", "3000");
    let two = Host::start_ready(&options)?;
    let log = two.log();
    ensure!(log.contains("has the module of version 1 of the application, with other settings"), "{log}");
    versions.produce(1)?;
    let outputs = versions.outputs()?;
    ensure!(outputs.values().all(|versions| versions == &["b"]), "{outputs:?}");
    Ok(())
}

#[test]
fn a_probation_outlives_a_restart_and_its_end_does_too() -> Result<()> {
    let versions = Versions::new(None)?;
    let a = versions.manifest("a", "versions", "")?;
    let mut host = versions.host("one", &a)?;
    deployed(versions.deploy(&host, &versions.manifest("late", "versions-b", LATE)?, &[])?)?;
    versions.wait_running(&host, 2)?;
    host.terminate()?;
    let mut host = versions.host("one", &a)?;
    let (_, body) = get(&format!("{}/v1/apps/{}/versions", host.url, versions.id))?;
    ensure!(body["on_probation"] == true, "{body}");
    // It fails after the restart, and goes back as it would have before.
    versions.send_key("poison")?;
    let back = versions.wait_state(&host, 2, "ROLLED_BACK")?;
    ensure!(!back["moves"].to_string().contains("could not be started"), "{back}");
    versions.wait_running(&host, 1)?;
    // Before the next one could meet it.
    wait_until(LIMIT, || {
        ensure!(host.store("counts")?.get("poison").is_some_and(|count| count == 1), "it is not processed");
        Ok(())
    })?;

    let late = versions.manifest("late", "versions-b", &LATE.replace("late", "later"))?;
    deployed(versions.deploy(&host, &late, &["--no-probation"])?)?;
    versions.wait_running(&host, 3)?;
    host.terminate()?;
    let mut host = versions.host("one", &a)?;
    let (_, body) = get(&format!("{}/v1/apps/{}/versions", host.url, versions.id))?;
    ensure!(body["on_probation"] == false && body["confirmed"] == true, "{body}");
    // Nobody asked for a way back.
    versions.send_key("poison")?;
    let log = ends(&mut host)?;
    ensure!(!log.contains("goes back"), "{log}");
    Ok(())
}

#[test]
fn what_stands_still_or_is_paused_says_so() -> Result<()> {
    let mut versions = Versions::new(None)?;
    let host = versions.host("one", &versions.manifest("a", "versions", "")?)?;
    versions.produce(1)?;
    versions.outputs()?;
    let order = |what: &str| -> Result<()> {
        let told = versions.sandbar(&host, &["apps", what])?;
        ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        Ok(())
    };
    order("pause")?;
    wait_state_of_app(&host, &versions.id, "paused")?;
    // Its threads start again, and it is paused still.
    deployed(versions.deploy(&host, &versions.manifest("b", "versions-migrates", LATE)?, &[])?)?;
    wait_until(LIMIT, || {
        let (_, app) = host.get(&format!("/v1/apps/{}", versions.id))?;
        ensure!(app["version"] == 2 && app["state"] == "paused", "{app}");
        Ok(())
    })?;
    order("resume")?;
    versions.wait_running(&host, 2)?;
    // The rows change, so that the first version cannot go on with its own.
    versions.produce(1)?;
    versions.outputs()?;
    versions.send_key("poison")?;
    let app = wait_state_of_app(&host, &versions.id, "given-up")?;
    ensure!(app["given_up"].as_str().is_some_and(|why| why.contains("version 2 was given up")), "{app}");
    let (status, ready) = host.get("/readyz")?;
    let detail = ready["detail"].as_str().context("a detail")?;
    ensure!(status == 503 && detail.contains("given up: version 2") && detail.contains("deploy another"), "{ready}");
    let mended = versions.manifest("c", "versions-migrates", "label = \"mended\"\n")?;
    deployed(versions.deploy(&host, &mended, &[])?)?;
    wait_state_of_app(&host, &versions.id, "running")?;
    wait_until(LIMIT, || {
        let rows = host.store("counts")?;
        ensure!(rows.len() == 21 && rows["poison"] == "1", "{rows:?}");
        Ok(())
    })
}

#[test]
fn one_that_was_stopped_among_several_says_so_and_holds_nobody_up() -> Result<()> {
    let mut one = Versions::new(None)?;
    let other = one.beside()?;
    let manifests = [one.manifest("a", "versions", "")?, other.manifest("other", "versions", "")?];
    let state_dir = one.folder.join("state");
    let host = Host::start_ready(&Options::several(&manifests, &one.broker, &state_dir))?;
    one.produce(1)?;
    one.outputs()?;
    let stopped = one.sandbar(&host, &["apps", "stop", &one.id])?;
    ensure!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    wait_state_of_app(&host, &one.id, "stopped")?;
    let (status, ready) = host.get("/readyz")?;
    ensure!(status == 200, "{ready}");
    let back = one.sandbar(&host, &["rollback", "--app", &one.id])?;
    let why = String::from_utf8_lossy(&back.stderr).into_owned();
    ensure!(!back.status.success() && why.contains("it was stopped"), "{why}");
    Ok(())
}
