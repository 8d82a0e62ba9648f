//! The routes of versions: a deploy, a rollback, the history, one version. Blocking; reads no file and prints nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::version::Version;
use crate::commands::client::Client;
use crate::exit::VersionError;
use crate::formats::percent_encode as encode;
use crate::versions::VersionState;

/// A host compiles the module and starts it before it answers.
const DEPLOY_TIMEOUT: Duration = Duration::from_secs(300);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two questions how far a version is.
const PAUSE: Duration = Duration::from_millis(20);

/// What a deploy hands over.
#[derive(Debug, Clone, Copy)]
pub struct Deploy<'a> {
    pub application: &'a str,
    /// The component.
    pub module: &'a [u8],
    /// The text of the manifest; without it the tables stay those of the active version.
    pub manifest: Option<&'a str>,
    /// Of the module, where the host asks for one.
    pub signature: Option<&'a str>,
    pub why: Option<&'a str>,
    pub who: Option<&'a str>,
    /// Stores that may go with all that is in them.
    pub drop_stores: &'a [String],
    /// Find out what would become of it, and change nothing.
    pub dry_run: bool,
    /// Do not compare its failures with those of the version before.
    pub no_probation: bool,
}

/// Gives a host a new version and returns what became of it so far.
///
/// # Errors
/// `RefusedError` with all incompatible points, or that the host cannot be reached.
pub fn deploy(client: &Client, deploy: &Deploy<'_>) -> Result<Version> {
    let path = path(deploy.application, "versions");
    let mut query: Vec<(&str, String)> = Vec::new();
    query.extend(deploy.why.map(|why| ("why", why.to_owned())));
    query.extend(deploy.who.map(|who| ("who", who.to_owned())));
    query.extend((!deploy.drop_stores.is_empty()).then(|| ("drop_stores", deploy.drop_stores.join(","))));
    for (flag, is_set) in [("dry_run", deploy.dry_run), ("no_probation", deploy.no_probation)] {
        query.extend(is_set.then(|| (flag, "true".to_owned())));
    }
    let mut parts = vec![Part { name: "module", file: "module.wasm", kind: "application/wasm", bytes: deploy.module }];
    parts.extend(deploy.manifest.map(|manifest| Part {
        name: "manifest",
        file: "sandbar.toml",
        kind: "application/toml",
        bytes: manifest.as_bytes(),
    }));
    parts.extend(deploy.signature.map(|signature| Part {
        name: "signature",
        file: "module.wasm.sig",
        kind: "text/plain",
        bytes: signature.as_bytes(),
    }));
    let (form, kind, body);
    (kind, body) = if let [module] = &parts[..] {
        (module.kind, module.bytes)
    } else {
        form = Form::of(&parts);
        (&*form.content_type, &*form.body)
    };
    Version::of(client.post(&path, &query, Some((kind, body)), DEPLOY_TIMEOUT)?)
}

/// Gives an application an earlier version back, by default the one before.
///
/// # Errors
/// As `deploy`.
pub fn roll_back(
    client: &Client,
    application: &str,
    to: Option<u64>,
    drop_stores: &[String],
    (why, who): (Option<&str>, Option<&str>),
) -> Result<Version> {
    let mut query: Vec<(&str, String)> = Vec::new();
    query.extend(to.map(|number| ("to", number.to_string())));
    query.extend((!drop_stores.is_empty()).then(|| ("drop_stores", drop_stores.join(","))));
    query.extend(why.map(|why| ("why", why.to_owned())));
    query.extend(who.map(|who| ("who", who.to_owned())));
    Version::of(client.post(&path(application, "rollback"), &query, None, DEPLOY_TIMEOUT)?)
}

/// One version, with the tasks.
///
/// # Errors
/// That there is none of that number, or that the host cannot be reached.
pub fn version(client: &Client, application: &str, number: u64) -> Result<Version> {
    Version::of(client.get(&path(application, &format!("versions/{number}")), &[])?)
}

/// All versions as the host lists them, and its whole answer.
///
/// # Errors
/// As `version`.
pub fn versions(client: &Client, application: &str) -> Result<(Vec<Version>, Value)> {
    let answer = client.get(&path(application, "versions"), &[])?;
    let versions = answer["versions"].as_array().context("the host's answer has no versions")?;
    let versions = versions.iter().cloned().map(Version::of).collect::<Result<_>>()?;
    Ok((versions, answer))
}

/// Pauses, resumes or stops an application; `what` is the last part of the route.
///
/// # Errors
/// As `version`.
pub fn order(client: &Client, application: &str, what: &str) -> Result<Value> {
    client.post(&path(application, what), &[], None, REQUEST_TIMEOUT)
}

/// Waits until the version is active, and tells each state that it is in on its way.
///
/// # Errors
/// `VersionError` when it ended elsewhere, or that it took longer than `timeout`.
pub fn wait(
    client: &Client,
    application: &str,
    mut found: Version,
    timeout: Duration,
    tell: &mut dyn FnMut(&Version),
) -> Result<Version> {
    let started = Instant::now();
    loop {
        let (name, state) = (found.name(), found.state);
        match (state, found.number) {
            (VersionState::Active, _) | (_, None) => return Ok(found),
            (state, _) if !state.is_on_its_way() => {
                let reason = found.reason().map_or_else(String::new, |reason| format!(": {reason}"));
                return Err(VersionError(format!("{name} is {}{reason}", state.as_str())).into());
            }
            (_, Some(_)) if started.elapsed() > timeout => {
                let seconds = timeout.as_secs();
                anyhow::bail!("{name} is {} after {seconds} s; see `sandbar apps history`", state.as_str());
            }
            (_, Some(number)) => {
                std::thread::sleep(PAUSE);
                found = version(client, application, number)?.of_deploy(&found);
                if found.state != state {
                    tell(&found);
                }
            }
        }
    }
}

fn path(application: &str, what: &str) -> String {
    format!("/v1/apps/{}/{what}", encode(application))
}

/// A part of a form.
struct Part<'a> {
    name: &'a str,
    file: &'a str,
    kind: &'a str,
    bytes: &'a [u8],
}

/// A body of `multipart/form-data` (RFC 7578).
struct Form {
    content_type: String,
    body: Vec<u8>,
}

impl Form {
    fn of(parts: &[Part<'_>]) -> Self {
        let mut boundary = "sandbar-form".to_owned();
        // It may be anything that no part has in it.
        while parts.iter().any(|part| part.bytes.windows(boundary.len()).any(|window| window == boundary.as_bytes())) {
            boundary.push('-');
        }
        let mut body = Vec::new();
        for Part { name, file, kind, bytes } in parts {
            let head = format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{file}\"\r\n\
                 content-type: {kind}\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        Self { content_type: format!("multipart/form-data; boundary={boundary}"), body }
    }
}

#[cfg(test)]
mod tests;
