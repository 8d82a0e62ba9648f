//! `/v1/apps/{app}/versions` and what changes them: deployments, rollbacks, pauses. Whoever may do that may run code,
//! and there are no tokens yet: only clients on this machine may, and no page of a browser. Changes nothing itself; all
//! of it goes through the application's `Deployments`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::multipart::Multipart;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Problem, application_of, json_response, json_text};
use crate::config::Overrides;
use crate::runtime::deployments::{DeployError, DeployRequest, Deployed, Deployments, RollbackRequest};
use crate::runtime::status::{Applications, Status};
use crate::versions::{Version, VersionTable};

/// The client's address, as the server puts it beside a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Characters of a reason or a name at most.
const TEXT_MAX_CHARACTERS: usize = 500;

/// What a deployment may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    no_probation: bool,
    /// Names joined by commas.
    drop_stores: Option<String>,
    why: Option<String>,
    who: Option<String>,
}

/// What a rollback may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackQuery {
    to: Option<u64>,
    /// Names joined by commas.
    drop_stores: Option<String>,
    why: Option<String>,
    who: Option<String>,
}

/// Whether a request may change what runs.
pub fn is_allowed(peer: Option<&Peer>, headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |detail: &str| {
        let title = "the request may not change what runs";
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", title, detail))
    };
    if !peer.is_some_and(|Peer(address)| address.ip().to_canonical().is_loopback()) {
        return refuse("while there are no tokens, only clients on the host's own machine may");
    }
    // Whoever stands behind a proxy of this machine is not on it.
    if let Some(name) = ["forwarded", "x-forwarded-for", "via"].iter().find(|name| headers.contains_key(**name)) {
        return refuse(&format!("what a proxy passes on may not (the request has the header {name})"));
    }
    // A browser sends it with whatever a page of somebody else asks for; no other client does.
    if headers.contains_key(header::ORIGIN) {
        return refuse("pages of browsers may not (the request has an Origin)");
    }
    Ok(())
}

/// `GET /v1/apps/{app}/versions`
pub async fn list(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(application) = path?;
    let status = application_of(&applications, &application)?;
    let deployments = deployments_of(&status)?;
    let table = deployments.table();
    let versions: Vec<Value> = table.versions().values().rev().map(document).collect();
    Ok(json_response(&json!({
        "active": table.active().map(|active| active.number),
        "confirmed": table.active().is_some_and(|active| active.is_confirmed),
        "previous": table.active().and_then(|active| active.previous),
        "running": deployments.target_number(),
        "on_probation": deployments.is_on_probation(),
        "paused": deployments.is_paused(),
        "problems": table.problems().map(ToString::to_string).collect::<Vec<_>>(),
        "versions": versions,
    })))
}

/// `GET /v1/apps/{app}/versions/{number}`
pub async fn show(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<(String, u64)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((application, number)) = path?;
    let status = application_of(&applications, &application)?;
    let deployments = deployments_of(&status)?;
    let table = deployments.table();
    let mut version = document(version_of(&table, number)?);
    version["tasks"] = tasks(&status);
    Ok(json_response(&version))
}

/// `POST /v1/apps/{app}/versions`
pub async fn deploy(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<DeployQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (_, deployments) = to_be_changed(&applications, path, &request)?;
    let Query(query) = query?;
    let parts = Parts::of(request).await?;
    let request = DeployRequest {
        module: parts.module,
        manifest: parts.manifest,
        overrides: Overrides::default(),
        signature: parts.signature,
        who: short(query.who),
        why: short(query.why),
        dry_run: query.dry_run,
        dropped_stores: names(query.drop_stores.as_deref()),
        without_probation: query.no_probation,
    };
    let dry_run = request.dry_run;
    let deployed = blocking(move || deployments.deploy(&request)).await?;
    Ok(answer(&deployed, dry_run))
}

/// `POST /v1/apps/{app}/rollback`
pub async fn rollback(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<RollbackQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (_, deployments) = to_be_changed(&applications, path, &request)?;
    let Query(query) = query?;
    let request = RollbackRequest {
        to: query.to,
        who: short(query.who),
        why: short(query.why),
        dropped_stores: names(query.drop_stores.as_deref()),
    };
    let deployed = blocking(move || deployments.roll_back(&request)).await?;
    Ok(answer(&deployed, false))
}

/// `POST /v1/apps/{app}/pause`
pub async fn pause(
    applications: State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    set_paused(applications, path, request, true)
}

/// `POST /v1/apps/{app}/resume`
pub async fn resume(
    applications: State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    set_paused(applications, path, request, false)
}

fn set_paused(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
    paused: bool,
) -> Result<Response, Problem> {
    let (application, deployments) = to_be_changed(&applications, path, &request)?;
    if !deployments.pause(paused) {
        return Err(Problem::unavailable("not-ready", "not ready", "the application is starting"));
    }
    Ok(json_response(&json!({ "id": application, "paused": paused })))
}

/// `POST /v1/apps/{app}/stop`
pub async fn stop(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (application, deployments) = to_be_changed(&applications, path, &request)?;
    deployments.stop();
    Ok(json_response(&json!({ "id": application, "stopping": true })))
}

/// The parts of a deployment's body.
#[derive(Default)]
struct Parts {
    module: Bytes,
    manifest: Option<String>,
    signature: Option<String>,
}

impl Parts {
    /// A module alone, or a form with a module, a manifest and a signature.
    async fn of(request: Request<Body>) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("multipart/form-data") {
            return Self::of_form(request).await;
        }
        if !matches!(kind, "application/wasm" | "application/octet-stream") {
            let detail = format!("expected Content-Type application/wasm or multipart/form-data, found {kind:?}");
            let title = "the body is of another kind";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", title, detail));
        }
        let module = Bytes::from_request(request, &()).await.map_err(Problem::from)?;
        Ok(Self { module, ..Self::default() })
    }

    async fn of_form(request: Request<Body>) -> Result<Self, Problem> {
        let unreadable =
            |error: &dyn std::fmt::Display| Problem::bad_request(format!("the form cannot be read: {error}"));
        let mut form = Multipart::from_request(request, &()).await.map_err(|error| unreadable(&error.body_text()))?;
        let (mut parts, mut seen) = (Self::default(), Vec::new());
        while let Some(field) = form.next_field().await.map_err(|error| unreadable(&error.body_text()))? {
            let name = field.name().unwrap_or_default().to_owned();
            if seen.contains(&name) {
                return Err(unreadable(&format!("it has the part {name:?} twice")));
            }
            seen.push(name.clone());
            let bytes = field.bytes().await.map_err(|error| unreadable(&error.body_text()))?;
            let text = || String::from_utf8(bytes.to_vec()).map_err(|_| unreadable(&format!("{name} is no UTF-8")));
            match name.as_str() {
                "module" => parts.module = bytes,
                "manifest" => parts.manifest = Some(text()?),
                "signature" => parts.signature = Some(text()?.trim().to_owned()),
                _ => {
                    return Err(unreadable(&format!(
                        "expected the parts module, manifest and signature, found {name:?}"
                    )));
                }
            }
        }
        if !seen.iter().any(|name| name == "module") {
            return Err(unreadable(&"it has no part module"));
        }
        Ok(parts)
    }
}

/// Names with commas between.
fn names(text: Option<&str>) -> Vec<String> {
    text.into_iter().flat_map(|names| names.split(',')).map(str::to_owned).collect()
}

/// What a user typed, cut.
fn short(text: Option<String>) -> String {
    text.map(|text| text.chars().take(TEXT_MAX_CHARACTERS).collect()).unwrap_or_default()
}

async fn blocking(work: impl FnOnce() -> Result<Deployed, DeployError> + Send + 'static) -> Result<Deployed, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::internal(error.to_string()))?.map_err(Problem::from)
}

fn answer(deployed: &Deployed, dry_run: bool) -> Response {
    let mut version = document(&deployed.version);
    if dry_run && !deployed.is_known {
        version["number"] = Value::Null;
    }
    let change = |(what, effect): &(String, &str)| json!({ "what": what, "effect": effect });
    version["changes"] = deployed.changes.iter().map(change).collect();
    version["notes"] = json!(deployed.notes);
    let status = if deployed.is_known || dry_run { StatusCode::OK } else { StatusCode::CREATED };
    (status, json_text(version.to_string())).into_response()
}

fn document(version: &Version) -> Value {
    let moves = version.moves().iter().map(|one| {
        let reason = (!one.reason.is_empty()).then_some(&one.reason);
        json!({ "state": one.state.as_str(), "when_ms": one.when_ms, "reason": reason })
    });
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "number": version.number,
        "module": version.module.to_string(),
        "manifest": version.manifest,
        "state": version.state().as_str(),
        "kind": version.kind.as_str(),
        "who": given(&version.who),
        "when_ms": version.when_ms,
        "why": given(&version.why),
        "signed": version.signature.is_some(),
        "moves": moves.collect::<Vec<_>>(),
    })
}

/// The tasks of this host, each with the version that it runs.
fn tasks(status: &Status) -> Value {
    let reports = status.reports();
    let tasks = reports.iter().flat_map(|report| &report.tasks).map(|task| {
        let partitions = task.partitions.iter().map(|partition| {
            json!({
                "topic": &*partition.partition.topic,
                "partition": partition.partition.partition,
                "since": partition.version_since.unwrap_or(0),
                "next_offset": partition.next_offset,
            })
        });
        json!({
            "task": task.task.to_string(),
            "version": task.version,
            "partitions": partitions.collect::<Vec<_>>(),
        })
    });
    tasks.collect()
}

fn deployments_of(status: &Status) -> Result<Arc<Deployments>, Problem> {
    let wired = status.wired().ok_or_else(|| {
        Problem::unavailable("not-ready", "not ready", "the application is starting and does not know its versions yet")
    })?;
    wired.deployments.clone().ok_or_else(|| match (status.failure(), wired.module_digest.is_none()) {
        (_, true) => {
            let detail = format!("{} serves topics as tables, which have no versions", status.application_id);
            Problem::not_found("no-versions", "the application has no versions", detail)
        }
        (reason, false) => {
            let reason = reason.map_or_else(|| "it was stopped".to_owned(), |reason| format!("it has failed: {reason}"));
            let detail = format!(
                "{} does not run: {reason}; start it again, with `sandbar run --deploy` or a changed file where another \
                 version is to run",
                status.application_id
            );
            Problem::unavailable("not-ready", "the application does not run", detail)
        }
    })
}

/// The application of a request that changes what runs, if it may.
fn to_be_changed(
    applications: &Applications,
    path: Result<Path<String>, PathRejection>,
    request: &Request,
) -> Result<(String, Arc<Deployments>), Problem> {
    is_allowed(request.extensions().get(), request.headers())?;
    let Path(application) = path?;
    let status = application_of(applications, &application)?;
    let deployments = deployments_of(&status)?;
    Ok((application, deployments))
}

fn version_of(table: &VersionTable, number: u64) -> Result<&Version, Problem> {
    table.version(number).ok_or_else(|| no_version(number))
}

fn no_version(number: u64) -> Problem {
    Problem::not_found("version-not-found", "no such version", format!("there is no version {number}"))
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        let detail = error.to_string();
        let refused = |detail: String| {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "version-refused", "the version was refused", detail)
        };
        match error {
            DeployError::NotRunning(_) => Problem::unavailable("not-ready", "not ready", detail),
            DeployError::Busy | DeployError::Conflict(_) => {
                Problem::new(StatusCode::CONFLICT, "deployment-conflict", "another deployment is on its way", detail)
            }
            DeployError::NoVersion(number) => no_version(number),
            DeployError::Incompatible { running, points } => Self {
                points: Some(points.into()),
                ..refused(format!("it does not fit version {running}, which runs"))
            },
            DeployError::Manifest(_)
            | DeployError::Signature(_)
            | DeployError::Module(_)
            | DeployError::WarmUp(_)
            | DeployError::NothingToReturnTo(_) => refused(detail),
            DeployError::Log(_) | DeployError::Append(_) => {
                Problem::unavailable("versions-unavailable", "the versions topic cannot be used", detail)
            }
            DeployError::Host(_) => Self::internal(detail),
        }
    }
}

#[cfg(test)]
mod tests;
