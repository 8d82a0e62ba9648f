//! File handles: a connection takes one, and so does each log that is open. Connections never take the last ones, else
//! idle clients would keep the broker from writing.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for logs, for the broker's other files and for the rest of the process.
const HANDLES_KEPT: usize = 640;
/// Served whatever the limit is.
const CONNECTIONS_MIN: usize = 16;

/// Lets the process open as many files as it may, and says how many; `None` when there is no limit.
pub fn raise_limit() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let current = match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.map(|current| usize::try_from(current).unwrap_or(usize::MAX))
}

/// How many connections there is room for.
pub fn connections_allowed(wanted: usize, handles: Option<usize>) -> usize {
    let room = handles.map_or(usize::MAX, |handles| handles.saturating_sub(HANDLES_KEPT));
    wanted.min(room.max(CONNECTIONS_MIN))
}

#[cfg(test)]
mod tests;
