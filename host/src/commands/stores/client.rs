//! A client of a host's REST interface for the command line: one connection, refusals as errors with their reason.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use ureq::http::Response;
use ureq::typestate::WithoutBody;
use ureq::{Body, RequestBuilder};

use super::At;
use crate::exit::{UnreachableError, UsageError};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries that one request of a scan asks for.
const PAGE_ENTRIES: u64 = 1000;

/// A host's REST interface.
pub struct Client {
    url: String,
    agent: ureq::Agent,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            // A refusal's body says why.
            .http_status_as_error(false)
            .build();
        Self { url: url.trim_end_matches('/').to_owned(), agent: config.new_agent() }
    }

    /// The application that was named, or the only one of the host.
    pub fn application(&self, at: &At) -> Result<String> {
        if let Some(application) = &at.app {
            return Ok(application.clone());
        }
        let answer = self.get("/v1/apps", &[])?;
        let names: Vec<&str> =
            answer["apps"].as_array().into_iter().flatten().filter_map(|a| a["id"].as_str()).collect();
        match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => bail!("the host at {} runs no application", self.url),
            several => bail!("the host at {} runs {}; name one with --app", self.url, several.join(", ")),
        }
    }

    /// Shows the entries of all pages.
    pub fn entries(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: Option<u64>,
        mut show: impl FnMut(&Value),
    ) -> Result<()> {
        let mut left = limit.unwrap_or(u64::MAX);
        let mut cursor: Option<String> = None;
        while left > 0 {
            let mut query = query.to_vec();
            query.push(("limit", left.min(PAGE_ENTRIES).to_string()));
            query.extend(cursor.iter().map(|cursor| ("cursor", cursor.clone())));
            let page = self.get(path, &query)?;
            let entries = page["entries"].as_array().context("the host's answer has no entries")?;
            entries.iter().for_each(&mut show);
            left -= (entries.len() as u64).min(left);
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
    }

    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        let mut response = self.call(self.agent.get(self.url_of(path)), query)?;
        let body = response.body_mut().read_json();
        body.with_context(|| format!("{} did not answer with JSON", self.url_of(path)))
    }

    /// The lines of an answer that goes on.
    pub fn lines(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
        let request = self.agent.get(self.url_of(path)).header("accept", "application/x-ndjson");
        let request = request.config().timeout_global(None).timeout_recv_response(Some(REQUEST_TIMEOUT)).build();
        let response = self.call(request, query)?;
        Ok(BufReader::new(response.into_body().into_reader()).lines())
    }

    fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn unanswered(&self, error: &ureq::Error) -> anyhow::Error {
        if matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_)) {
            let url = &self.url;
            return UsageError(format!("--url: expected an address as http://127.0.0.1:7070, found {url:?}")).into();
        }
        UnreachableError(format!("no answer from a host at {}: {error}; is it running there? (--url)", self.url)).into()
    }

    /// Asks; an answer that is no refusal.
    fn call(&self, request: RequestBuilder<WithoutBody>, query: &[(&str, String)]) -> Result<Response<Body>> {
        let pairs = query.iter().map(|(name, value)| (*name, value.as_str()));
        let mut response = request.query_pairs(pairs).call().map_err(|error| self.unanswered(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body: Value = response
            .body_mut()
            .read_json()
            .with_context(|| format!("the host refused the query ({}) without a reason", status.as_u16()))?;
        let detail = body["detail"].as_str().or_else(|| body["title"].as_str()).unwrap_or("no reason given");
        Err(anyhow!("{detail}").context(format!("the host refused the query ({})", status.as_u16())))
    }
}
