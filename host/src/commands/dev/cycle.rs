//! The developer's loop: notice, build, check, swap, tell. Nothing that fails ends it: the version before goes on, and
//! the next save is the next try.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use engine::record::Timestamp;
use serde_json::json;

use super::own_host::{HostStarter, OwnHost};
use super::watch::{Change, Watch};
use super::{Surroundings, told};
use crate::commands::build::Builder;
use crate::commands::client::Client;
use crate::commands::deploy::version::Version;
use crate::commands::deploy::{client, headline, who};
use crate::config::Manifest;
use crate::formats::percent_encode as encode;
use crate::runtime::stop::Stop;
use crate::runtime::wall_clock_ms;
use crate::terminal::{Terminal, report_error};
use crate::toolchain::{Component, Place};
use crate::versions::VersionState;

/// Between two looks at the sources.
const LOOK: Duration = Duration::from_millis(50);
/// Between two questions for the first record of a new version.
const ASK: Duration = Duration::from_millis(10);
/// Between two questions whether a version was rolled back, in milliseconds.
const FOLLOW_MS: i64 = 1_000;
/// How long the first record of a new version is waited for, in milliseconds.
const FIRST_RECORD_MAX_MS: i64 = 10_000;
const SWAP_TIMEOUT: Duration = Duration::from_secs(120);
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// What the history says of these versions.
const WHY: &str = "sandbar dev";

/// Where the application runs.
enum Host {
    /// Here, if it runs.
    Own {
        starter: HostStarter,
        running: Option<OwnHost>,
    },
    Other {
        url: String,
    },
}

/// The version that was deployed last: its first record is awaited, and then whether it stays.
struct Followed {
    application: String,
    number: u64,
    active_ms: Timestamp,
    /// Where it came of a save.
    saved_ms: Option<Timestamp>,
    awaits_record: bool,
    asked_ms: Timestamp,
}

pub struct Cycle<'a> {
    builder: Builder<'a>,
    manifest_path: PathBuf,
    surroundings: Surroundings,
    host: Host,
    /// Digest of the module and text of the manifest that the host has.
    deployed: Option<(String, String)>,
    watch: Watch,
    followed: Option<Followed>,
    stop: Stop,
    terminal: Terminal,
}

impl<'a> Cycle<'a> {
    /// With a host of its own, unless one is named.
    ///
    /// # Errors
    /// When the embedded broker does not start.
    pub fn new(
        builder: Builder<'a>,
        manifest_path: PathBuf,
        surroundings: Surroundings,
        url: Option<&str>,
        stop: Stop,
        terminal: Terminal,
    ) -> Result<Self> {
        // A mistake in it is told before anything is started.
        surroundings.manifest(&manifest_path)?;
        let host = match url {
            Some(url) => Host::Other { url: url.to_owned() },
            None => {
                let starter = HostStarter::new(surroundings.embedded.as_deref(), stop.clone(), terminal)?;
                Host::Own { starter, running: None }
            }
        };
        let (watch, deployed, followed) = (Watch::default(), None, None);
        Ok(Self { builder, manifest_path, surroundings, host, deployed, watch, followed, stop, terminal })
    }

    /// Works until the wish to stop.
    ///
    /// # Errors
    /// What the host failed of as it ended.
    pub fn run(mut self) -> Result<()> {
        let result = self.round(None);
        self.tell_failure(result);
        let mut change: Option<Change> = None;
        let mut looked_ms = 0;
        loop {
            if let Some(change) = change.take() {
                let result = self.round(Some(&change));
                self.tell_failure(result);
            }
            let is_quick = self.followed.as_ref().is_some_and(|followed| followed.awaits_record);
            if self.stop.wait(if is_quick { ASK } else { LOOK }) {
                break;
            }
            self.notice_end();
            self.follow();
            let now_ms = wall_clock_ms();
            // Also when the clock was set back.
            if (now_ms - looked_ms).unsigned_abs() >= LOOK.as_millis() as u64 {
                looked_ms = now_ms;
                change = self.watch.look(now_ms);
            }
        }
        match self.host {
            Host::Own { running: Some(host), .. } => host.wait(),
            Host::Own { running: None, .. } | Host::Other { .. } => Ok(()),
        }
    }

    /// What failed, unless it failed because all ends.
    fn tell_failure(&self, result: Result<()>) {
        let Err(error) = result else { return };
        if self.stop.is_raised() {
            return;
        }
        report_error(&error, self.terminal.format);
        let text = match (&self.host, &self.deployed) {
            (Host::Own { running: None, .. }, _) => "nothing runs; the next save is the next try",
            (_, None) => "the next save is the next try",
            (_, Some(_)) => "the version before goes on; the next save is the next try",
        };
        self.terminal.notice("waiting", text, json!({ "message": text }));
    }

    /// From the sources to a version that runs.
    fn round(&mut self, change: Option<&Change>) -> Result<()> {
        if let Some(change) = change {
            let text = told::saved(&change.files, self.builder.folder());
            let files: Vec<String> = change.files.iter().map(|file| file.display().to_string()).collect();
            self.terminal.notice("saved", &text, json!({ "files": files }));
        }
        self.settle()?;
        let manifest = self.surroundings.manifest(&self.manifest_path)?;
        let component = self.builder.build(Some(&manifest.path_of("module")), self.terminal)?;
        let text = read_text(&self.manifest_path)?;
        let is_running = matches!(&self.host, Host::Other { .. } | Host::Own { running: Some(_), .. });
        if is_running && self.deployed.as_ref() == Some(&(component.digest.clone(), text.clone())) {
            let text = "neither the module nor the manifest changed";
            self.terminal.notice("unchanged", text, json!({ "sha256": component.digest }));
            return Ok(());
        }
        if is_running {
            self.swap(&manifest, &component, text, change.map(|change| change.saved_ms))
        } else {
            self.start(manifest, &component, text)
        }
    }

    /// Watches what the module is made of now, as it is before the build.
    fn settle(&mut self) -> Result<()> {
        let found = self.builder.sources();
        // A Cargo.toml with a mistake in it is mended in the files that were watched before.
        let mut places = match &found {
            Ok(places) => places.clone(),
            Err(_) if self.watch.places().is_empty() => vec![
                Place::Folder(self.builder.folder().join("src")),
                Place::File(self.builder.folder().join("Cargo.toml")),
            ],
            Err(_) => self.watch.places().to_vec(),
        };
        let manifest = Place::File(self.manifest_path.clone());
        if !places.contains(&manifest) {
            places.push(manifest);
        }
        self.watch.settle(places);
        found.map(drop)
    }

    /// Starts the host, which may know this version, and another one that was active last.
    fn start(&mut self, manifest: Manifest, component: &Component, text: String) -> Result<()> {
        let application = manifest.application_id().to_owned();
        let Host::Own { starter, running } = &mut self.host else { return Ok(()) };
        *running = Some(starter.start(manifest.clone())?);
        let Some(runs) = self.wait_until_ready(&application)? else { return Ok(()) };
        if runs != component.digest {
            return self.swap(&manifest, component, text, None);
        }
        self.deployed = Some((component.digest.clone(), text));
        let text = format!("{application} runs; waiting for the next save");
        self.terminal.notice("running", &text, json!({ "application": application, "sha256": component.digest }));
        Ok(())
    }

    /// The digest of the module that runs then. `None` when the wish to stop came first.
    fn wait_until_ready(&mut self, application: &str) -> Result<Option<String>> {
        let started_ms = wall_clock_ms();
        while !self.stop.wait(LOOK) {
            if let Host::Own { running, .. } = &mut self.host
                && running.as_ref().is_some_and(OwnHost::has_ended)
                && let Some(ended) = running.take()
            {
                self.deployed = None;
                ended.wait()?;
                bail!("the host ended before it was ready");
            }
            let Some(client) = self.client() else { continue };
            // It may not answer yet.
            if let Ok(app) = client.get(&format!("/v1/apps/{}", encode(application)), &[])
                && app["state"] == "running"
                && app["not_ready"].is_null()
                && let Some(digest) = app["module"].as_str()
            {
                return Ok(Some(digest.to_owned()));
            }
            if (wall_clock_ms() - started_ms).unsigned_abs() > READY_TIMEOUT.as_millis() as u64 {
                bail!("the host is not ready after {} s", READY_TIMEOUT.as_secs());
            }
        }
        Ok(None)
    }

    /// Deploys, waits until it runs, and tells what became of the state.
    fn swap(
        &mut self,
        manifest: &Manifest,
        component: &Component,
        text: String,
        saved_ms: Option<Timestamp>,
    ) -> Result<()> {
        let Some(client) = self.client() else { bail!("the host does not listen yet") };
        let module = std::fs::read(&component.path);
        let module = module.with_context(|| format!("cannot read {}", component.path.display()))?;
        let application = manifest.application_id();
        // Where the tables did not change, those of the active version stay, with what was set by flags.
        let is_new = self.deployed.as_ref().is_none_or(|(_, deployed)| *deployed != text);
        let who = who();
        let deploy = client::Deploy {
            application,
            module: &module,
            manifest: is_new.then_some(text.as_str()),
            signature: None,
            why: Some(WHY),
            who: who.as_deref(),
            drop_stores: &[],
            dry_run: false,
            no_probation: false,
        };
        let version = client::deploy(&client, &deploy)?;
        let version = client::wait(&client, application, version, SWAP_TIMEOUT, &mut |_| {})?;
        self.deployed = Some((component.digest.clone(), text));
        self.tell_swap(&version, saved_ms);
        let active_ms = wall_clock_ms();
        let application = application.to_owned();
        self.followed = version.number.map(|number| Followed {
            application,
            number,
            active_ms,
            saved_ms,
            awaits_record: true,
            asked_ms: active_ms,
        });
        Ok(())
    }

    fn tell_swap(&self, version: &Version, saved_ms: Option<Timestamp>) {
        let took_ms = since(saved_ms, wall_clock_ms());
        let after = took_ms.map_or_else(String::new, |took_ms| format!(", {took_ms} ms after the save"));
        let effects = told::effects(version);
        let lines: String = effects.iter().map(|line| format!("\n  {line}")).collect();
        let text = format!("{}{after}{lines}", headline(version));
        let fields = json!({ "version": version.json, "effects": effects, "took_ms": took_ms });
        self.terminal.notice("deployed", &text, fields);
    }

    /// Tells how long it took from the save to the first record that the new version processed, and when it is rolled
    /// back.
    fn follow(&mut self) {
        let Some(mut followed) = self.followed.take() else { return };
        let now_ms = wall_clock_ms();
        if !followed.awaits_record && (now_ms - followed.asked_ms).abs() < FOLLOW_MS {
            self.followed = Some(followed);
            return;
        }
        followed.asked_ms = now_ms;
        let Some(client) = self.client() else { return };
        let number = followed.number;
        let version = match client::version(&client, &followed.application, number) {
            Ok(version) => version,
            Err(error) => return report_error(&error.context("cannot follow the version"), self.terminal.format),
        };
        match version.state {
            VersionState::RolledBack => {
                self.deployed = None;
                let text = format!("{}; the version before goes on", headline(&version));
                self.terminal.notice("rolled-back", &text, json!({ "version": version.json }));
                return;
            }
            // Somebody else deployed another one.
            VersionState::Superseded => return,
            _ => {}
        }
        if followed.awaits_record && version.has_processed() {
            let took_ms = since(followed.saved_ms, now_ms);
            let after = took_ms.map_or_else(String::new, |took_ms| format!(" {took_ms} ms after the save"));
            let text = format!("version {number}: first record{after}");
            self.terminal.notice("first-record", &text, json!({ "number": number, "took_ms": took_ms }));
            followed.awaits_record = false;
        } else if followed.awaits_record && (now_ms - followed.active_ms).abs() >= FIRST_RECORD_MAX_MS {
            let text = format!("version {number}: no record came yet");
            self.terminal.notice("no-record", &text, json!({ "number": number }));
            followed.awaits_record = false;
        }
        self.followed = Some(followed);
    }

    /// Tells that the host of this process ended by itself.
    fn notice_end(&mut self) {
        let Host::Own { running, .. } = &mut self.host else { return };
        if !running.as_ref().is_some_and(OwnHost::has_ended) {
            return;
        }
        if let Some(ended) = running.take() {
            self.deployed = None;
            self.followed = None;
            let result = ended.wait().and_then(|()| bail!("the application was stopped"));
            self.tell_failure(result);
        }
    }

    /// Of the host, once it listens.
    fn client(&mut self) -> Option<Client> {
        match &mut self.host {
            Host::Other { url } => Some(Client::new(url)),
            Host::Own { running, .. } => Some(Client::new(&format!("http://{}", running.as_mut()?.address()?))),
        }
    }
}

fn since(saved_ms: Option<Timestamp>, now_ms: Timestamp) -> Option<i64> {
    saved_ms.map(|saved_ms| (now_ms - saved_ms).max(0))
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
