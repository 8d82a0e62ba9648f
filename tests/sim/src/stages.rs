//! Listens to the engine's trace of commits, so that the simulation knows in which stage a host is without asking the
//! engine for it. Hands each move on to the world of the running thread.

use std::fmt;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::current;

/// Where the engine traces its commits.
const TARGET: &str = "engine::task::commit";

/// Begins to listen, for the whole process; once.
pub fn listen() {
    static ONCE: Once = Once::new();
    // A subscriber that was set before stays: then nobody hears of stages, and the test of the coverage fails.
    ONCE.call_once(|| drop(tracing::subscriber::set_global_default(StageListener)));
}

struct StageListener;

impl Subscriber for StageListener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == TARGET
    }

    fn event(&self, event: &Event<'_>) {
        let mut entered = Entered(None);
        event.record(&mut entered);
        if let Entered(Some(stage)) = entered {
            current::with(|world| world.stage_entered(&stage));
        }
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The stage that a commit has come to.
struct Entered(Option<String>);

impl Visit for Entered {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "to" {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}
