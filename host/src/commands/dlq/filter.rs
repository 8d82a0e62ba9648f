//! Which dead letters a command takes. Several filters must all hold. Pure.

use engine::record::Timestamp;

use super::letter::{DeadLetter, reasons};
use super::moment;
use super::position::SourceRange;

#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Filter {
    /// Only of this reason; may be given several times
    #[arg(long, value_parser = reasons())]
    pub reason: Vec<String>,
    /// Only of this source, `TOPIC`, `TOPIC@PARTITION` or `TOPIC@PARTITION:FROM-TO`; may be given several times
    #[arg(long, value_name = "SOURCE")]
    pub source: Vec<SourceRange>,
    /// Only of the module whose SHA-256 begins so
    #[arg(long, value_name = "DIGEST", value_parser = parse_digest)]
    pub module: Option<String>,
    /// Only what failed from then on: `10m` ago, or a time such as 2026-11-27T17:30:00Z
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub since: Option<Timestamp>,
    /// Only what failed before then
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub until: Option<Timestamp>,
    /// Only where the message has this text
    #[arg(long, value_name = "TEXT")]
    pub contains: Option<String>,
}

fn parse_digest(text: &str) -> Result<String, String> {
    let is_digest = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(text.to_ascii_lowercase()) } else { Err("expected 1 to 64 hexadecimal digits".to_owned()) }
}

impl Filter {
    /// Whether nothing is filtered.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a dead letter is wanted. What it does not tell, no filter finds.
    pub fn wants(&self, letter: &DeadLetter) -> bool {
        let reason = || self.reason.iter().any(|reason| letter.reason.as_deref() == Some(reason.as_str()));
        let source = || letter.source().is_some_and(|source| self.source.iter().any(|range| range.contains(source)));
        let module = |prefix: &String| letter.module.as_deref().is_some_and(|module| module.starts_with(prefix));
        (self.reason.is_empty() || reason())
            && (self.source.is_empty() || source())
            && self.module.as_ref().is_none_or(module)
            && self.since.is_none_or(|since| letter.time() >= since)
            && self.until.is_none_or(|until| letter.time() < until)
            && self.contains.as_ref().is_none_or(|text| letter.told().contains(text))
    }
}

#[cfg(test)]
mod tests;
