//! The folder of `sandbar run --apps`: its applications come, change and go with its files while the process runs. A
//! new file starts an application beside the others, a changed one is a deployment, and one that is gone ends its
//! application in good order. Never touches state or topics, and never ends what runs for the sake of a file that
//! says nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::json;

use super::application::Application;
use super::deployments::OwnModule;
use super::host::{Failure, Home};
use super::lives::{self, Ended};
use super::settings;
use super::status::{Phase, Status};
use crate::config::Manifest;
use crate::terminal::Terminal;

mod changing;
mod files;
mod plan;

pub use files::{Watch, manifests_in};

use changing::{Answer, Deploying};
use files::{Content, Source};
use plan::{Plan, Present};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long an end or the wish to stop may go unnoticed.
const GLANCE: Duration = Duration::from_millis(50);

/// See the module's head.
pub struct AppsDirectory {
    home: Home,
    /// With the keys that belong to the process, as it was started with them.
    process: Manifest,
    watch: Watch,
    /// By application id.
    entries: BTreeMap<String, Entry>,
    /// One for each id that there ever was.
    terminals: BTreeMap<String, Terminal>,
    /// What was told of files, and of the folder, and has not ended since.
    told: BTreeMap<PathBuf, String>,
    sender: Sender<Ended>,
    ended: Receiver<Ended>,
}

/// An application of the folder.
struct Entry {
    /// Whose file it is.
    file: PathBuf,
    application: Arc<Application>,
    life: Life,
    /// What it runs, as far as the folder has a say in it.
    applied: Content,
    /// What was refused, and is not tried again.
    refused: Option<Content>,
    deploying: Option<Deploying>,
    /// Why it could not be deployed yet, as it was told.
    delayed: Option<String>,
}

/// An application that is to be started.
struct Starting {
    file: PathBuf,
    manifest: Manifest,
    content: Content,
    /// The one that it has already.
    status: Option<Arc<Status>>,
    own_module: OwnModule,
}

/// Where an application of the folder stands.
enum Life {
    Running,
    /// It was told to stop, to start again if its file is still there.
    Leaving,
    /// With what it failed of.
    Over(Option<anyhow::Error>),
}

impl AppsDirectory {
    /// `process` has the keys that belong to the process.
    pub fn new(home: Home, process: Manifest, watch: Watch) -> Self {
        let (sender, ended) = channel();
        let (entries, terminals, told) = Default::default();
        Self { home, process, watch, entries, terminals, told, sender, ended }
    }

    /// Runs these and what comes after them, until the wish to stop, or until all that are there have ended by
    /// themselves. Returns what failed of those that are there then, and how many they are.
    pub fn run(mut self, first: Vec<Manifest>) -> (Vec<Failure>, usize) {
        for manifest in first {
            let file = manifest.path.clone();
            let found = self.watch.found().find(|(path, _)| **path == file);
            // One that could not be read is read again.
            let content = found.and_then(|(_, found)| found.as_ref().ok()).map(|source| source.content.clone());
            let status = self.home.applications.find(manifest.application_id());
            let own_module = self.home.shared.options.own_module;
            self.start(Starting { file, manifest, content: content.unwrap_or_default(), status, own_module });
        }
        let mut looked = Instant::now();
        while !self.is_over() {
            let mut has_changed = self.hear();
            if looked.elapsed() >= LOOK_INTERVAL && !self.home.stop.is_raised() {
                looked = Instant::now();
                has_changed |= self.look(looked) || self.entries.values().any(|entry| entry.delayed.is_some());
            }
            if has_changed && !self.home.stop.is_raised() {
                self.reconcile();
            }
            if self.home.stop.is_raised() {
                std::thread::sleep(GLANCE);
            } else {
                self.home.stop.wait(GLANCE);
            }
        }
        let count = self.entries.len();
        let over = self.entries.into_values().filter_map(|entry| match entry.life {
            Life::Over(Some(error)) => Some(Failure { application: entry.application, error }),
            _ => None,
        });
        (over.collect(), count)
    }

    /// Whether the process has nothing left to do. An empty folder is no reason to end, it waits for files.
    fn is_over(&self) -> bool {
        let have_ended = self.entries.values().all(|entry| matches!(entry.life, Life::Over(_)));
        let waits = self.entries.is_empty() || self.watch.is_moving();
        have_ended && (self.home.stop.is_raised() || !waits)
    }

    /// Hears of ends and of deployments. True when there was something.
    fn hear(&mut self) -> bool {
        let mut has_changed = false;
        while let Ok((application, result)) = self.ended.try_recv() {
            has_changed = true;
            let id = application.manifest.application_id();
            let Some(entry) = self.entries.get_mut(id) else { continue };
            match entry.life {
                Life::Leaving if entry.application.status.is_leaving() => {
                    self.home.applications.remove(id);
                    self.entries.remove(id);
                }
                Life::Leaving => _ = self.entries.remove(id),
                _ => entry.life = Life::Over(result.err()),
            }
        }
        for entry in self.entries.values_mut() {
            has_changed |= entry.hear();
        }
        has_changed
    }

    /// Looks at the folder. True when something in it is new.
    fn look(&mut self, now: Instant) -> bool {
        let folder = self.watch.folder().to_owned();
        match self.watch.look(now) {
            Ok(has_changed) => {
                self.told.remove(&folder);
                has_changed
            }
            Err(error) => {
                let text = format!("--apps {}: cannot read the folder: {error}", folder.display());
                self.tell_once(folder, text);
                false
            }
        }
    }

    /// Does what the files ask for.
    fn reconcile(&mut self) {
        let of_entry =
            |entry: &'_ Entry| (entry.application.manifest.application_id().to_owned(), entry.application.clone());
        let applications: BTreeMap<String, Arc<Application>> = self.entries.values().map(of_entry).collect();
        let present = { applications.iter() }.map(|(id, application)| {
            let file = self.entries.get(id).map_or(Path::new(""), |entry| entry.file.as_path());
            (id.as_str(), Present { manifest: &application.manifest, file })
        });
        let plan = plan::plan(self.watch.found(), &present.collect(), &self.process);
        let Plan { wanted, kept, troubles } = plan;
        self.told.retain(|path, _| troubles.contains_key(path) || path == self.watch.folder());
        for (path, text) in troubles {
            self.tell_once(path, text);
        }
        for (id, entry) in &mut self.entries {
            if !wanted.contains_key(id) && !kept.contains(id) {
                entry.leave();
            }
        }
        // One that is over has no end to wait for.
        let applications = &self.home.applications;
        self.entries.retain(|id, entry| {
            let is_gone = matches!(entry.life, Life::Over(_)) && entry.application.status.is_leaving();
            if is_gone {
                applications.remove(id);
            }
            !is_gone
        });
        for (id, source) in wanted {
            self.follow(&id, source);
        }
    }

    /// Does what a file asks for.
    fn follow(&mut self, id: &str, source: Source) {
        let file = source.manifest.path.clone();
        let Some(entry) = self.entries.get_mut(id) else {
            self.terminal_of(id).notice("started-by-file", &format!("{} is new: starting", file.display()), json!({}));
            let Source { manifest, content } = source;
            return self.start(Starting { file, manifest, content, status: None, own_module: OwnModule::New });
        };
        entry.file.clone_from(&file);
        match entry.life {
            Life::Leaving => {}
            Life::Over(_) if entry.applied == source.content => {}
            Life::Over(_) => {
                entry.restart_notice("it has changed");
                let Source { manifest, content } = source;
                self.start(Starting { file, manifest, content, status: None, own_module: OwnModule::Changed });
            }
            Life::Running => entry.change(&source, &self.watch),
        }
    }

    /// Starts an application, with the status that it has already or a new one.
    fn start(&mut self, starting: Starting) {
        let Starting { file, manifest, content, status, own_module } = starting;
        let Home { applications, port, stop, shared, .. } = &self.home;
        let id = manifest.application_id().to_owned();
        let application = Arc::new(Application {
            endpoint: settings::endpoint(&manifest, *port),
            place: shared.idle.enter(),
            status: status.unwrap_or_else(|| applications.enter(&id)),
            stop: stop.below(),
            shared: Arc::clone(shared),
            terminal: self.terminal_of(&id),
            own_module,
            manifest,
        });
        lives::begin(Arc::clone(&application), false, &self.sender);
        let (life, applied) = (Life::Running, content);
        let entry = Entry { file, application, life, applied, refused: None, deploying: None, delayed: None };
        self.entries.insert(id, entry);
    }

    fn terminal_of(&mut self, id: &str) -> Terminal {
        let terminal = self.home.terminal;
        *self.terminals.entry(id.to_owned()).or_insert_with(|| terminal.of_application(id))
    }

    /// Tells what is wrong with a file or the folder, unless that was told and has not ended since.
    fn tell_once(&mut self, path: PathBuf, text: String) {
        if self.told.get(&path) == Some(&text) {
            return;
        }
        let fields = json!({ "file": path.display().to_string(), "reason": text });
        self.home.terminal.notice("file-refused", &format!("refused, and what runs goes on: {text}"), fields);
        self.told.insert(path, text);
    }
}

impl Entry {
    /// Its file is gone: it ends in good order.
    fn leave(&mut self) {
        if self.application.status.is_leaving() {
            return;
        }
        let text = format!("{} is gone: stopping; its state and its topics stay", self.file.display());
        self.application.terminal.notice("stopped-by-file", &text, json!({}));
        self.application.status.leave();
        self.stop();
    }

    fn stop(&mut self) {
        if matches!(self.life, Life::Running) {
            self.life = Life::Leaving;
        }
        self.application.stop.raise();
    }

    fn restart_notice(&self, why: &str) {
        let text = format!("{}: {why}: starting again", self.file.display());
        self.application.terminal.notice("restarted-by-file", &text, json!({ "reason": why }));
    }

    /// Brings a running application to what its file says.
    fn change(&mut self, source: &Source, watch: &Watch) {
        let terminal = self.application.terminal;
        if self.deploying.is_some() {
            return;
        }
        if self.applied == source.content {
            (self.refused, self.delayed) = (None, None);
            return self.restart_for_host_keys(source);
        }
        // Its end is on its way by itself.
        let is_ending = matches!(self.application.status.phase(), Phase::Stopping | Phase::Stopped | Phase::Failed(_));
        if self.refused.as_ref() == Some(&source.content) || is_ending {
            return;
        }
        let (wired, own) = (self.application.status.wired(), &self.application.manifest);
        if source.content.module.is_none() && own.is_same_as(&source.manifest) {
            self.applied = source.content.clone();
            return;
        }
        let has_tables = !source.manifest.tables.is_empty();
        let deployments = wired.and_then(|wired| wired.deployments.clone()).filter(|_| !has_tables);
        let Some(deployments) = deployments else {
            // It is starting, or has no versions.
            self.restart_notice("it has changed");
            return self.stop();
        };
        match Deploying::begin(deployments, source, &watch.overrides, &self.file) {
            Ok(deploying) => self.deploying = Some(deploying),
            Err(error) => {
                let text = format!("{}: not deployed yet: no thread for it: {error}", self.file.display());
                terminal.notice("deployment-delayed", &text, json!({}));
                self.delayed = Some(error.to_string());
            }
        }
    }

    /// What belongs to no version is read at a start only.
    fn restart_for_host_keys(&mut self, source: &Source) {
        let keys = self.application.manifest.host_differences(&source.manifest).join(", ");
        if !keys.is_empty() {
            self.restart_notice(&format!("{keys} of this host changed"));
            self.stop();
        }
    }

    /// Hears what came of a deployment. True when there is something.
    fn hear(&mut self) -> bool {
        let Some(answer) = self.deploying.as_ref().and_then(Deploying::answer) else { return false };
        let Some(Deploying { content, .. }) = self.deploying.take() else { return false };
        let (file, terminal) = (self.file.display(), self.application.terminal);
        let was_delayed = self.delayed.take();
        // It could not be, since the application ends.
        if self.application.stop.is_raised() {
            return true;
        }
        match answer {
            Answer::Done => (self.applied, self.refused) = (content, None),
            Answer::Refused(reason) => {
                let text = format!("{file}: not deployed, and what runs goes on: {reason}");
                terminal.notice("deployment-refused", &text, json!({ "reason": reason }));
                self.refused = Some(content);
            }
            Answer::Later(reason) => {
                if was_delayed.as_ref() != Some(&reason) {
                    let text = format!("{file}: not deployed yet, trying again: {reason}");
                    terminal.notice("deployment-delayed", &text, json!({ "reason": reason }));
                }
                self.delayed = Some(reason);
                // Not at once.
                return false;
            }
        }
        true
    }
}
