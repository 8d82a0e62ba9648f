//! What went wrong in a guest, in the engine's words: one match from wasmtime's errors to `ProcessorError`.

use engine::processor::ProcessorError;
use wasmtime::{Error, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::guest_log::escape;
use crate::limits::Limits;

/// Frames of a backtrace that are worth a reader's time.
const FRAMES_MAX: usize = 20;
/// A name of a guest's function in a backtrace.
const NAME_MAX_BYTES: usize = 120;
/// Guest text within an error message.
const MESSAGE_MAX_BYTES: usize = 2_048;
/// wasmtime has no public type for this error; its text is the only sign. A test breaks if it changes.
const TOO_MUCH_DATA: &str = "fuel allocated for hostcalls has been exhausted";

/// Classifies the error of a call. `complaint` is the guest's last warning, which explains most traps.
pub(crate) fn classify(error: &Error, limits: &Limits, complaint: Option<&str>) -> ProcessorError {
    // Our own imports and limits say exactly what happened.
    if let Some(own) = error.downcast_ref::<ProcessorError>() {
        return match own {
            ProcessorError::Trap { message, .. } => {
                ProcessorError::Trap { message: message.clone(), backtrace: backtrace(error) }
            }
            other => other.clone(),
        };
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return trap(format!("the module called exit({})", exit.0), complaint, error);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => return ProcessorError::Deadline { limit_ms: limits.deadline_ms },
        Some(Trap::UnreachableCodeReached) if complaint.is_some() => {
            return trap("panic or abort".to_owned(), complaint, error);
        }
        Some(Trap::MemoryOutOfBounds) => {
            // Compilers put a guest's own stack at the start of its memory, so that it overflows this way.
            return trap("out of bounds memory access, or stack overflow".to_owned(), complaint, error);
        }
        Some(other) => return trap(other.to_string(), complaint, error),
        None => {}
    }
    let message = root_cause(error);
    if message.contains(TOO_MUCH_DATA) {
        return ProcessorError::Limit {
            name: "bytes handed to the host at once",
            key: "processor.output.max.bytes",
            limit: limits.output_max_bytes,
            found: limits.output_max_bytes.saturating_add(1),
        };
    }
    trap(escape(&message, MESSAGE_MAX_BYTES), complaint, error)
}

/// A panic of the host itself while it served a guest (S16): the task stops, the host goes on.
pub(crate) fn host_panic(payload: &(dyn std::any::Any + Send)) -> ProcessorError {
    let said = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let said = said.or_else(|| payload.downcast_ref::<String>().cloned());
    let said = said.unwrap_or_else(|| "without a message".to_owned());
    ProcessorError::HostPanic(escape(&said, MESSAGE_MAX_BYTES))
}

fn trap(message: String, complaint: Option<&str>, error: &Error) -> ProcessorError {
    let message = match complaint {
        Some(complaint) => format!("{message}: {}", cut(complaint)),
        None => message,
    };
    ProcessorError::Trap { message, backtrace: backtrace(error) }
}

/// The complaint is escaped already.
fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(MESSAGE_MAX_BYTES);
    &text[..end]
}

fn root_cause(error: &Error) -> String {
    error.chain().last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// One line per guest frame: its function, or the place in the module where it has no name.
pub(crate) fn backtrace(error: &Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let frames = backtrace.frames();
    let mut lines: Vec<String> = Vec::new();
    for frame in frames.iter().take(FRAMES_MAX) {
        let place = frame.module_offset().map_or_else(|| "?".to_owned(), |offset| format!("{offset:#x}"));
        let name = frame.func_name().unwrap_or("<unnamed>");
        lines.push(format!("{place} {}", escape(name, NAME_MAX_BYTES)));
    }
    if frames.len() > FRAMES_MAX {
        lines.push(format!("… {} more", frames.len() - FRAMES_MAX));
    }
    lines.join("\n")
}
