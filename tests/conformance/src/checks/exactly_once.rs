//! The exactly-once loop while the broker, or the client, is killed five times by SIGKILL.

use crate::Victim;
use crate::broker::Broker;
use crate::check::{Context, Outcome};
use crate::eos_loop;

pub fn broker_killed(check: &Context, broker: &Broker) -> Outcome {
    eos_loop::run(check.clients, broker, &check.name("loop"), Victim::Broker)
}

pub fn client_killed(check: &Context, broker: &Broker) -> Outcome {
    eos_loop::run(check.clients, broker, &check.name("loop"), Victim::Client)
}
