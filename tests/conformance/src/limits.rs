//! What the embedded broker is known not to do as Kafka does, at most three lines. A check that fails and stands here
//! is a documented limit; one that passes and stands here fails the run, so that this list and the documentation made
//! from it stay true.

/// What names of checks begin with, and why it is so.
pub const LIMITS: &[(&str, &str)] = &[(
    "consumer-protocol/",
    "the group protocol of KIP-848 (`group.protocol=consumer`) is not served: ConsumerGroupHeartbeat is not advertised, \
     and clients use the classic protocol unless they ask for it",
)];

/// The limit that a check stands under.
pub fn of(check: &str) -> Option<&'static str> {
    LIMITS.iter().find(|(begin, _)| check.starts_with(begin)).map(|(_, reason)| *reason)
}
