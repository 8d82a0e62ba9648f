//! That the OpenAPI document says what the routes are: neither more nor less, with every kind of problem.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

#[test]
fn the_document_is_served() {
    let (code, body) = ask(&running_host(), "/v1/openapi.json");
    assert_eq!((code, &body["openapi"]), (200, &json!("3.1.0")));
}

#[test]
fn it_has_every_route_and_no_other() {
    let document = document();
    let described: BTreeMap<&str, BTreeSet<&str>> = { document["paths"].as_object().expect("paths").iter() }
        .map(|(path, item)| {
            let methods = item.as_object().expect("methods").keys().map(String::as_str);
            (path.as_str(), methods.filter(|name| *name != "parameters").collect())
        })
        .collect();
    let routed: BTreeMap<&str, BTreeSet<&str>> =
        ROUTES.iter().map(|route| (route.path, route.methods.iter().copied().collect())).collect();
    assert_eq!(described, routed);
}

#[test]
fn a_route_answers_the_methods_that_it_names() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for route in ROUTES {
        let path = route.path.replace("{app}", "none").replace("{store}", "none").replace("{key}", "none");
        for method in ["get", "put", "post", "delete", "patch"] {
            let request = Request::builder().method(method.to_uppercase().as_str()).uri(&path).body(Body::empty());
            let answer = routes(running_host()).oneshot(request.expect("a request"));
            let status = runtime.block_on(answer).expect("infallible").status();
            let expected = route.methods.contains(&method);
            assert_eq!(status != StatusCode::METHOD_NOT_ALLOWED, expected, "{method} {path}: {status}");
        }
    }
}

#[test]
fn every_path_has_its_parameters() {
    let document = document();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let parameters = item["parameters"].as_array().cloned().unwrap_or_default();
        let named: BTreeSet<String> = parameters
            .iter()
            .filter_map(|parameter| resolved(&document, parameter)["name"].as_str().map(str::to_owned))
            .collect();
        let expected: BTreeSet<String> = { path.split('/') }
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(str::to_owned)
            .collect();
        assert_eq!(named, expected, "{path}");
    }
}

/// The thing itself, where there is a reference to it.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let found = document.pointer(reference.trim_start_matches('#'));
            found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => value,
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, value: &Value) {
        resolved(document, value);
        match value {
            Value::Object(fields) => fields.values().for_each(|value| walk(document, value)),
            Value::Array(items) => items.iter().for_each(|value| walk(document, value)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}

/// The query parameters of a route, as the document has them.
fn described(document: &Value, path: &str, method: &str) -> BTreeSet<String> {
    let parameters = document["paths"][path][method]["parameters"].as_array().cloned().unwrap_or_default();
    let query = parameters.iter().map(|parameter| resolved(document, parameter));
    let query = query.filter(|parameter| parameter["in"] == "query");
    query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_parameters_are_those_that_a_route_takes() {
    let document = document();
    for (path, question) in [
        ("/v1/apps/{app}/stores/{store}/owner", "/v1/apps/vote/stores/votes/owner"),
        ("/v1/apps/{app}/stores/{store}/keys/{key}", "/v1/apps/vote/stores/votes/keys/b"),
        ("/v1/apps/{app}/stores/{store}/entries", "/v1/apps/vote/stores/votes/entries"),
        ("/v1/apps/{app}/stores/{store}/changes", "/v1/apps/vote/stores/votes/changes"),
        ("/readyz", "/readyz"),
    ] {
        // A refusal of an unknown parameter lists the known ones.
        let (code, body) = ask(&running_host(), &format!("{question}?not_a_parameter=1"));
        let detail = body["detail"].as_str().unwrap_or_default();
        let (_, list) = detail.split_once("expected ").unwrap_or_else(|| panic!("{code}: {body}"));
        let taken: BTreeSet<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(described(&document, path, "get"), taken, "{path}: {detail}");
    }
}

#[test]
fn a_write_takes_the_parameters_that_are_described() {
    let document = document();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let takes_a_body = ["put", "post", "delete"].contains(&method.as_str());
            assert_eq!(operation["responses"].get("408").is_some(), takes_a_body, "{method} {path}");
        }
    }
    let path = "/v1/apps/{app}/stores/{store}/keys/{key}";
    let of_put = described(&document, path, "put");
    let of_delete = described(&document, path, "delete");
    // A delete has no value that could have a format.
    assert_eq!(of_put.difference(&of_delete).collect::<Vec<_>>(), ["value_format"]);
}

/// The kinds of problems that the code makes: the first text in lower case after each constructor.
fn kinds() -> BTreeSet<String> {
    let mut kinds = BTreeSet::from(["bad-request".to_owned(), "internal".to_owned()]);
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.ends_with("problem.rs")) {
        for constructor in ["Problem::new(", "Problem::not_found(", "Problem::unavailable("] {
            for (at, _) in text.match_indices(constructor) {
                let literal = text[at..].split('"').nth(1).unwrap_or_default();
                let is_kind = !literal.is_empty() && literal.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
                assert!(is_kind, "{path}: {constructor} has no kind at hand: {literal}");
                kinds.insert(literal.to_owned());
            }
        }
    }
    kinds
}

#[test]
fn every_kind_of_problem_is_listed() {
    let document = document();
    let listed = document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().expect("kinds");
    let listed: BTreeSet<String> = listed.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let made: BTreeSet<String> = kinds().into_iter().map(|kind| format!("urn:sandbar:problem:{kind}")).collect();
    assert_eq!(listed, made);
    let told = document["components"]["schemas"]["Problem"]["properties"]["type"]["description"].as_str();
    for kind in kinds() {
        assert!(told.is_some_and(|told| told.contains(&format!("`{kind}`"))), "{kind} is not explained");
    }
}
