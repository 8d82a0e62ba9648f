//! Log lines of a processor. They go to the host's log, with the task's name beside them; natively, to standard error,
//! where `cargo test` keeps them for failing tests. The host escapes and cuts them.

use std::fmt;

pub use crate::bindings::sandbar::processor::log::Level;

/// Writes one line; use the macros.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let owned;
    let text = match message.as_str() {
        Some(text) => text,
        None => {
            owned = message.to_string();
            &owned
        }
    };
    #[cfg(target_arch = "wasm32")]
    crate::bindings::sandbar::processor::log::log(level, text);
    #[cfg(not(target_arch = "wasm32"))]
    eprintln!("{level:?} {text}");
}

/// Logs at level trace.
#[macro_export]
macro_rules! trace { ($($message:tt)*) => { $crate::log::write($crate::log::Level::Trace, ::core::format_args!($($message)*)) }; }
/// Logs at level debug.
#[macro_export]
macro_rules! debug { ($($message:tt)*) => { $crate::log::write($crate::log::Level::Debug, ::core::format_args!($($message)*)) }; }
/// Logs at level info.
#[macro_export]
macro_rules! info { ($($message:tt)*) => { $crate::log::write($crate::log::Level::Info, ::core::format_args!($($message)*)) }; }
/// Logs at level warn.
#[macro_export]
macro_rules! warn { ($($message:tt)*) => { $crate::log::write($crate::log::Level::Warn, ::core::format_args!($($message)*)) }; }
/// Logs at level error.
#[macro_export]
macro_rules! error { ($($message:tt)*) => { $crate::log::write($crate::log::Level::Error, ::core::format_args!($($message)*)) }; }
