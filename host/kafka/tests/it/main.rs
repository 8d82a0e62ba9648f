//! The adapter against brokers: one contract, run on the embedded broker and, when `SANDBAR_KAFKA_BOOTSTRAP` names one,
//! on real Kafka. A case asks for topics of its own, so cases and runs do not disturb each other.

mod admin;
mod cluster;
mod consumer;
mod membership;
mod mocked;
mod producer;
mod rates;
mod restart;
mod restore;
mod topics;
mod transactions;
mod unreachable;
