//! The host of a component: every function is one call of the contract's import. Compiled for wasm only; holds nothing.

use crate::bindings::sandbar::processor::context::PunctuationType;
use crate::bindings::sandbar::processor::state::{Bound, Page};
use crate::bindings::sandbar::processor::types::{Columns, NullableColumns, TaskId};
use crate::bindings::sandbar::processor::{context, state};
use crate::host::Host;
use crate::log::{Level, write};

/// The imports of the component.
pub struct WasmHost;

/// Sends the message of a panic to the host's log: the trap that follows carries none.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("with a value that is no text");
        match panic.location() {
            Some(location) => write(Level::Error, format_args!("panicked at {location}: {message}")),
            None => write(Level::Error, format_args!("panicked: {message}")),
        }
    }));
}

impl Host for WasmHost {
    fn open(&self, name: &str) -> Result<u32, String> {
        state::open(name)
    }

    fn get(&self, store: u32, key: &[u8]) -> Option<Vec<u8>> {
        state::get(store, key)
    }

    fn get_many(&self, store: u32, keys: &Columns) -> NullableColumns {
        state::get_many(store, keys)
    }

    fn put_many(&self, store: u32, keys: &Columns, values: &NullableColumns, timestamps: &[i64]) {
        state::put_many(store, keys, values, timestamps);
    }

    fn range(&self, store: u32, lower: &Bound, upper: &Bound, reverse: bool, limit: u32) -> Page {
        state::range(store, lower, upper, reverse, limit)
    }

    fn prefix(&self, store: u32, prefix: &[u8], after: Option<&[u8]>, reverse: bool, limit: u32) -> Page {
        state::prefix(store, prefix, after, reverse, limit)
    }

    fn approximate_entries(&self, store: u32) -> u64 {
        state::approximate_entries(store)
    }

    fn application_id(&self) -> String {
        context::application_id()
    }

    fn task(&self) -> TaskId {
        context::task()
    }

    fn stream_time(&self) -> Option<i64> {
        context::stream_time()
    }

    fn wall_clock_time(&self) -> i64 {
        context::wall_clock_time()
    }

    fn schedule(&self, interval_ms: u64, kind: PunctuationType) -> u32 {
        context::schedule(interval_ms, kind)
    }

    fn cancel(&self, schedule: u32) {
        context::cancel(schedule);
    }

    fn config(&self, key: &str) -> Option<String> {
        context::config(key)
    }
}

/// Exports a processor type from the component, with its migrations where it has some. Called by
/// `#[sandbar::processor]`; a component has exactly one.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    (@migration) => {};
    (@migration migrates) => {
        impl $crate::bindings::migration::exports::sandbar::processor::migration::Guest for Module {
            fn migrate(
                store: ::std::string::String,
                from_version: u32,
                keys: $crate::bindings::sandbar::processor::types::Columns,
                values: $crate::bindings::sandbar::processor::types::Columns,
            ) -> ::core::result::Result<
                $crate::bindings::sandbar::processor::types::NullableColumns,
                ::std::string::String,
            > {
                $crate::wasm::log_panics();
                with_instance(|instance| instance.migrate(&store, from_version, &keys, &values))
            }
        }

        $crate::bindings::migration::__export_migration!(Module with_types_in $crate::bindings::migration);
    };
    (@module $processor:ident $(, $migrates:ident)?) => {
        const _: () = {
            use $crate::bindings::exports::sandbar::processor::processor::{
                Guest, InputBatch, Outcome, ScheduleId, TaskId, Topology,
            };

            ::std::thread_local! {
                static INSTANCE: ::core::cell::RefCell<::core::option::Option<$crate::Instance<$processor>>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            fn with_instance<T>(run: impl FnOnce(&mut $crate::Instance<$processor>) -> T) -> T {
                INSTANCE.with_borrow_mut(|instance| {
                    run(instance
                        .get_or_insert_with(|| $crate::Instance::new(::std::rc::Rc::new($crate::wasm::WasmHost))))
                })
            }

            struct Module;

            impl Guest for Module {
                fn describe() -> Topology {
                    with_instance(|instance| instance.topology())
                }

                fn init(_task: TaskId) -> ::core::result::Result<(), ::std::string::String> {
                    $crate::wasm::log_panics();
                    with_instance(|instance| instance.init())
                }

                fn process(batch: InputBatch) -> ::core::result::Result<Outcome, ::std::string::String> {
                    with_instance(|instance| instance.process(batch))
                }

                fn punctuate(
                    schedule: ScheduleId,
                    time: i64,
                ) -> ::core::result::Result<Outcome, ::std::string::String> {
                    with_instance(|instance| instance.punctuate(schedule, time))
                }
            }

    $crate::bindings::__export_module!(Module with_types_in $crate::bindings);
            $crate::__export!(@migration $($migrates)?);
        };
    };
    ($processor:ty $(, $migrates:ident)?) => {
        // The processor may have any name, also one that is used below: it is named where nothing of that is in scope.
        const _: () = {
            type __SandbarProcessor = $processor;
            $crate::__export!(@module __SandbarProcessor $(, $migrates)?);
        };
    };
}
