//! A changed file on its way to a running application: a deployment like any other, on a thread of its own, since a
//! compiler may take its time. Says what came of it; what becomes of the application then is not decided here.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::files::{Content, Source};
use crate::components;
use crate::config::Overrides;
use crate::runtime::deployments::{DeployError, DeployRequest, Deployments};
use crate::runtime::loader::module_max_bytes;
use crate::runtime::spawn::spawn;
use crate::versions::{ModuleDigest, VersionManifest, VersionState};

/// Deploying waits for the compiler and for the broker.
const STACK_BYTES: usize = 4 << 20;

/// Who deploys, as the versions topic tells it.
const WHO: &str = "apps directory";

/// What came of a deployment.
#[derive(Debug)]
pub enum Answer {
    /// What the file says is what the application runs, or is about to.
    Done,
    /// Nothing has changed, and nothing will unless the file does.
    Refused(String),
    /// It is to be tried again.
    Later(String),
}

/// A deployment on its way.
pub struct Deploying {
    pub content: Content,
    answer: Receiver<Answer>,
}

impl Deploying {
    /// Begins to deploy what was read of a manifest. `file` is for people.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn begin(
        deployments: Arc<Deployments>,
        source: &Source,
        overrides: &Overrides,
        file: &Path,
    ) -> std::io::Result<Self> {
        let (sender, answer) = channel();
        let content = source.content.clone();
        let (source, overrides, file) = (source.clone(), overrides.clone(), file.to_owned());
        spawn("deploy", STACK_BYTES, move || {
            // Nobody listens any more when the application has ended.
            let _ = sender.send(deploy(&deployments, &source, overrides, &file));
        })?;
        Ok(Self { content, answer })
    }

    /// What came of it, once that is known.
    pub fn answer(&self) -> Option<Answer> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Answer::Refused("deploying it panicked, which is a defect of the host".to_owned()))
            }
        }
    }
}

fn deploy(deployments: &Deployments, source: &Source, overrides: Overrides, file: &Path) -> Answer {
    let Source { manifest, content } = source;
    let module = match components::read(&manifest.path_of("module"), module_max_bytes(manifest)) {
        Ok(module) if content.module == Some(ModuleDigest::of(&module)) => module,
        Ok(_) => return Answer::Later("its module is being written".to_owned()),
        Err(error) => return Answer::Later(format!("{error:#}")),
    };
    if let Some(reason) = taken_back(deployments, &ModuleDigest::of(&module), &VersionManifest::of(manifest)) {
        return Answer::Refused(reason);
    }
    let request = DeployRequest {
        module: module.into(),
        manifest: Some(content.text.clone()),
        overrides,
        signature: content.signature.clone(),
        who: WHO.to_owned(),
        why: format!("{} has changed", file.display()),
        ..DeployRequest::default()
    };
    match deployments.deploy(&request) {
        Ok(_) => Answer::Done,
        Err(
            error @ (DeployError::NotRunning(_)
            | DeployError::Busy
            | DeployError::Conflict(_)
            | DeployError::Log(_)
            | DeployError::Append(_)),
        ) => Answer::Later(error.to_string()),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// Why it is not deployed again, if it was taken back. Files reach the hosts of an application at different times: the
/// last of them would bring back what all have just got rid of.
fn taken_back(deployments: &Deployments, module: &ModuleDigest, tables: &VersionManifest) -> Option<String> {
    let table = deployments.table();
    let active = table.active().map(|active| active.number);
    let version = table.find(module, tables).filter(|version| active != Some(version.number))?;
    (version.state() == VersionState::RolledBack).then(|| {
        let number = version.number;
        format!("it is version {number}, which was taken back; `sandbar deploy` has it run all the same")
    })
}
