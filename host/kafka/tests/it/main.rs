//! The adapter against brokers.
