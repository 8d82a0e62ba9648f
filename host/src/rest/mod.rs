//! The REST interface: routes under `/v1`, health and metrics. Reads committed state through the query registry and
//! the host's status; writes go to source topics and nowhere else. Every refusal is a problem document.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use serde_json::{Value, json};

mod accept;
mod addresses;
mod apps;
mod batch;
mod body;
pub mod changes;
mod connections;
mod entries;
mod filter;
mod freshness;
mod idempotency;
mod instances;
mod json;
mod keys;
mod metrics;
mod parts;
pub mod peers;
mod problem;
mod routed;
mod server;
mod stall;
mod stores;
#[cfg(test)]
mod tests;
mod token;
pub mod versions;
pub mod writes;

pub use problem::Problem;
pub use server::{bind, serve};

use body::BodyLimits;

use crate::runtime::status::{Applications, Phase, Readiness, Status};

/// A route: its methods, and who answers.
struct Route {
    path: &'static str,
    /// As the OpenAPI document names them.
    #[cfg_attr(not(test), expect(dead_code, reason = "the document of the routes is compared with them"))]
    methods: &'static [&'static str],
    answers: fn() -> MethodRouter<Arc<Applications>>,
}

const fn route(
    path: &'static str,
    methods: &'static [&'static str],
    answers: fn() -> MethodRouter<Arc<Applications>>,
) -> Route {
    Route { path, methods, answers }
}

/// Every route. `openapi.json` describes the same ones, and a test compares them.
const ROUTES: &[Route] = &[
    route("/v1/openapi.json", &["get"], || get(openapi)),
    route("/v1/apps", &["get"], || get(apps::list)),
    route("/v1/apps/{app}", &["get"], || get(apps::show)),
    route("/v1/apps/{app}/instances", &["get"], || get(instances::list)),
    route("/v1/apps/{app}/stores", &["get"], || get(stores::list)),
    route("/v1/apps/{app}/stores/{store}/owner", &["get"], || get(instances::owner)),
    route("/v1/apps/{app}/stores/{store}/count", &["get"], || get(stores::count)),
    route("/v1/apps/{app}/stores/{store}/keys/{key}", &["get", "put", "delete"], a_key),
    route("/v1/apps/{app}/stores/{store}/keys/", &["get", "put", "delete"], a_key),
    route("/v1/apps/{app}/stores/{store}/batch-get", &["post"], || post(batch::get)),
    route("/v1/apps/{app}/stores/{store}/batch-write", &["post"], || post(writes::batch)),
    route("/v1/apps/{app}/stores/{store}/entries", &["get"], || get(entries::list)),
    route("/v1/apps/{app}/stores/{store}/changes", &["get"], || get(changes::subscribe)),
    route("/v1/apps/{app}/versions", &["get", "post"], || get(versions::list).post(versions::deploy)),
    route("/v1/apps/{app}/versions/{number}", &["get"], || get(versions::show)),
    route("/v1/apps/{app}/rollback", &["post"], || post(versions::rollback)),
    route("/v1/apps/{app}/pause", &["post"], || post(versions::pause)),
    route("/v1/apps/{app}/resume", &["post"], || post(versions::resume)),
    route("/v1/apps/{app}/stop", &["post"], || post(versions::stop)),
    route("/livez", &["get"], || get(livez)),
    route("/readyz", &["get"], || get(readyz)),
    route("/metrics", &["get"], || get(metrics::text)),
];

/// What every route may be asked, and how each of them answers and refuses.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes of a host.
pub fn router(applications: Arc<Applications>) -> Router {
    router_within(BodyLimits::default(), applications)
}

/// As `router`, with other limits of bodies.
fn router_within(limits: BodyLimits, applications: Arc<Applications>) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.answers)()));
    routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(server::within_request_timeout))
        .layer(middleware::from_fn(addresses::well_formed))
        // Bodies are bounded by our own limits alone, and outside of the time for the answer.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(limits, body::within_body_limits))
        .with_state(applications)
}

/// `GET /v1/openapi.json`
async fn openapi() -> Response {
    json_text(OPENAPI.to_owned())
}

fn a_key() -> MethodRouter<Arc<Applications>> {
    get(keys::get).put(writes::put).delete(writes::delete)
}

/// A host lives while one of its applications has not failed: to start it anew would end the others too.
async fn livez(State(applications): State<Arc<Applications>>) -> Response {
    let all = applications.all();
    let failures: Option<Vec<String>> =
        all.iter().map(|status| status.failure().map(|reason| named(status, &reason))).collect();
    match failures {
        // One that waits for applications lives.
        Some(failures) if !failures.is_empty() => {
            let title = "the application has failed";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "failed", title, failures.join("; ")).into_response()
        }
        _ => json_response(&json!({ "alive": true })),
    }
}

/// Which application is asked for; all of them where there is none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadinessQuery {
    app: Option<String>,
}

/// A host is ready when all of its applications are, so that a rollout stops where one of them failed; one that leaves
/// is not waited for. For traffic to one of them there is `app`.
async fn readyz(
    State(applications): State<Arc<Applications>>,
    query: Result<Query<ReadinessQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let asked = match &query.app {
        Some(application) => vec![application_of(&applications, application)?],
        None => applications.all().into_iter().filter(|status| is_waited_for(status)).collect(),
    };
    let mut reasons = Vec::new();
    for (status, readiness) in asked.iter().zip(apps::readiness_of_each(&asked).await) {
        if let Readiness::NotReady(reason) = readiness {
            reasons.push(named(status, &reason));
        }
    }
    if !reasons.is_empty() {
        return Err(Problem::unavailable("not-ready", "not ready", reasons.join("; ")));
    }
    let standby = |status: &Status| {
        let report = status.standby()?;
        Some((report.tasks.len(), report.lag()))
    };
    let standby = asked.iter().filter_map(|status| standby(status)).reduce(|a, b| (a.0 + b.0, a.1 + b.1));
    Ok(json_response(&match standby {
        Some((tasks, lag)) => json!({ "ready": true, "standby": { "tasks": tasks, "lag": lag } }),
        None => json!({ "ready": true }),
    }))
}

/// Whether a host is unready for want of it: not one whose file is gone, nor one that its operator has stopped.
fn is_waited_for(status: &Status) -> bool {
    !status.is_leaving() && (status.is_alone() || status.phase() != Phase::Stopped)
}

/// What is said of an application, with its id where the host may have several.
fn named(status: &Status, what: &str) -> String {
    if status.is_alone() { what.to_owned() } else { format!("{}: {what}", status.application_id) }
}

async fn unknown_route(uri: Uri) -> Problem {
    Problem::not_found("route-not-found", "no such route", format!("there is nothing at {}", uri.path()))
}

async fn method_not_allowed(uri: Uri) -> Problem {
    let detail = format!("{} does not answer this method", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "method not allowed", detail)
}

fn json_response(value: &Value) -> Response {
    json_text(value.to_string())
}

fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Only the host's own applications exist here.
fn application_of(applications: &Applications, application: &str) -> Result<Arc<Status>, Problem> {
    applications.find(application).ok_or_else(|| {
        let ids: Vec<String> = applications.all().iter().map(|status| status.application_id.clone()).collect();
        let running = if ids.is_empty() { "no application now".to_owned() } else { ids.join(", ") };
        let detail = format!("this host runs {running}, not {application}");
        Problem::not_found("app-not-found", "no such application", detail)
    })
}
