//! What a client accepts (RFC 9110, `Accept`): media types and ranges of them, in its order. Weights are not compared,
//! but a weight of 0 says that a type is not accepted, and what is named more exactly goes before what is named less
//! so.

use std::fmt;

use axum::http::{HeaderMap, header};

/// The list of a request.
pub struct Accepted(Vec<Range>);

/// A media type, or many of them: `text/*`, `*/*`.
struct Range {
    /// As the client wrote it, for messages.
    text: String,
    /// In small letters, without its parameters.
    name: String,
    is_accepted: bool,
}

impl Range {
    fn read(text: &str) -> Self {
        let mut parts = text.split(';');
        let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_nothing = |parameter: &str| {
            let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            weight.and_then(|(_, weight)| weight.trim().parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
        };
        Self { text: text.trim().to_owned(), name, is_accepted: !parts.any(is_nothing) }
    }

    /// How exactly it names a media type; `None` where it does not.
    fn exactness(&self, media_type: &str) -> Option<u8> {
        let is_of_kind = |kind: &str| media_type.split('/').next() == Some(kind);
        match self.name.strip_suffix("/*") {
            None => (self.name == media_type).then_some(2),
            Some("*") => Some(0),
            Some(kind) => is_of_kind(kind).then_some(1),
        }
    }
}

impl Accepted {
    pub fn of(headers: &HeaderMap) -> Self {
        let lists = headers.get_all(header::ACCEPT).iter().filter_map(|list| list.to_str().ok());
        let ranges = lists.flat_map(|list| list.split(',')).map(Range::read);
        Self(ranges.filter(|range| !range.name.is_empty()).collect())
    }

    /// Whether the client says nothing, and so takes anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a media type is accepted; `None` where nothing is said of it.
    pub fn takes(&self, media_type: &str) -> Option<bool> {
        let named = self.0.iter().filter_map(|range| Some((range.exactness(media_type)?, range.is_accepted)));
        // Where it is named twice, as with other parameters, one that accepts it is enough.
        named.max().map(|(_, is_accepted)| is_accepted)
    }

    /// Whether a media type is accepted by its name, and not just as one of many.
    pub fn names(&self, media_type: &str) -> bool {
        self.0.iter().any(|range| range.is_accepted && range.name == media_type)
    }

    /// The accepted one of these that the client names first, by itself or as one of many. Of many, the first of these.
    pub fn first_of<'a>(&self, media_types: &[&'a str]) -> Option<&'a str> {
        let of_range = |range: &Range| {
            let mut covered = media_types.iter().filter(|name| range.exactness(name).is_some());
            covered.find(|name| self.takes(name) == Some(true)).copied()
        };
        self.0.iter().filter(|range| range.is_accepted).find_map(of_range)
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|range| range.text.as_str()).collect();
        formatter.write_str(&texts.join(", "))
    }
}
