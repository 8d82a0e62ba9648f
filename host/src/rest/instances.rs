//! The hosts of the application, and who has a key: for clients that ask the right one by themselves.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use engine::routing::{Instance, Route, Routes};
use engine::topology::TaskId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::stores::{Formats, home_of, spec, wired};
use super::{Problem, application_of, json_response};
use crate::runtime::status::{Applications, Wired};

/// Which key's owner is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerQuery {
    key: String,
    key_format: Option<String>,
}

/// `GET /v1/apps/{app}/instances`
pub async fn list(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(application) = path?;
    let status = application_of(&applications, &application)?;
    let wired = wired(&status)?;
    let (routes, here) = routes(&wired).await?;
    let names = |tasks: &std::collections::BTreeSet<TaskId>| tasks.iter().map(TaskId::to_string).collect::<Vec<_>>();
    let instance = |(id, instance): (&String, &Instance)| {
        json!({
            "host_id": id,
            "endpoint": instance.endpoint,
            "this_host": *id == here,
            "active_tasks": names(&instance.active),
            "standby_tasks": names(&instance.standby),
        })
    };
    let instances: Vec<Value> = routes.instances.iter().map(instance).collect();
    Ok(json_response(&json!({ "instances": instances })))
}

/// `GET /v1/apps/{app}/stores/{store}/owner?key=…`
pub async fn owner(
    State(applications): State<Arc<Applications>>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<OwnerQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path((application, store)) = path?;
    let Query(query) = query?;
    let status = application_of(&applications, &application)?;
    let wired = wired(&status)?;
    let formats = Formats::of(&wired, &store, query.key_format.as_deref(), None)?;
    let key = formats.key.read(&query.key).map_err(|error| Problem::bad_request(format!("key: {error}")))?;
    let sub_topology = spec(&wired, &store).map_or(0, |(index, _)| index as u32);
    let partition = home_of(&wired, &store, &key);
    let (routes, _) = routes(&wired).await?;
    let task = TaskId { sub_topology, partition };
    let route = |route: Route| json!({ "host_id": route.host_id, "endpoint": route.endpoint });
    Ok(json_response(&json!({
        "store": store,
        "partition": partition,
        "active": routes.active(task).map(route),
        "standbys": routes.standbys(task).map(route).collect::<Vec<_>>(),
    })))
}

async fn routes(wired: &Wired) -> Result<(Arc<Routes>, String), Problem> {
    let unknown = |why: String| Problem::unavailable("no-routes", "the hosts of the application are not known", why);
    let routing = wired.routing.as_ref().ok_or_else(|| unknown("this host does not route queries".to_owned()))?;
    let routes = routing.finder.routes().await.map_err(unknown)?;
    Ok((routes, routing.finder.host_id.clone()))
}
