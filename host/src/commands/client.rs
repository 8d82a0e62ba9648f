//! A client of a host's REST interface for the command line: one connection, refusals as errors with their reason.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Body, RequestBuilder};

use crate::exit::{RefusedError, UnreachableError, UsageError};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries that one request of a scan asks for.
const PAGE_ENTRIES: u64 = 1000;

/// Which host to ask.
#[derive(Debug, Clone, clap::Args)]
pub struct HostArguments {
    /// REST address of the host
    #[arg(long, env = "SANDBAR_URL", default_value = DEFAULT_URL)]
    pub url: String,
}

/// Where a host listens that was not told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7070";

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
    pub fn application(&self, named: Option<&str>) -> Result<String> {
        if let Some(application) = named {
            return Ok(application.to_owned());
        }
        let answer = self.get("/v1/apps", &[])?;
        let names: Vec<&str> =
            answer["apps"].as_array().into_iter().flatten().filter_map(|a| a["id"].as_str()).collect();
        match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => bail!("the host at {} runs no application", self.url),
            several => bail!("the host at {} runs {}; name one of them", self.url, several.join(", ")),
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
        let request = with_query(self.agent.get(self.url_of(path)), query);
        self.json(path, self.answer("query", request.call())?)
    }

    /// Posts a body of a type, or none; the host has as long as `timeout` for its answer.
    pub fn post(
        &self,
        path: &str,
        query: &[(&str, String)],
        body: Option<(&str, &[u8])>,
        timeout: Duration,
    ) -> Result<Value> {
        let request = with_query(self.agent.post(self.url_of(path)), query);
        let request = request.config().timeout_global(Some(timeout)).build();
        let response = match body {
            Some((content_type, bytes)) => request.header("content-type", content_type).send(bytes),
            None => request.send_empty(),
        };
        self.json(path, self.answer("request", response)?)
    }

    fn json(&self, path: &str, mut response: Response<Body>) -> Result<Value> {
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
        let response = self.answer("query", with_query(request, query).call())?;
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

    /// An answer that is no refusal of `what`.
    fn answer(&self, what: &str, response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>> {
        let mut response = response.map_err(|error| self.unanswered(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body: Value = response
            .body_mut()
            .read_json()
            .with_context(|| format!("the host refused the {what} ({status}) without a reason"))?;
        Err(anyhow::Error::new(RefusedError::of(status, &body))
            .context(format!("the host refused the {what} ({status})")))
    }
}

fn with_query<B>(request: RequestBuilder<B>, query: &[(&str, String)]) -> RequestBuilder<B> {
    request.query_pairs(query.iter().map(|(name, value)| (*name, value.as_str())))
}

#[cfg(test)]
pub mod testing;
