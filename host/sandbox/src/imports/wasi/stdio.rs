//! Standard output and error of a guest: lines of the guest log. What has no newline yet waits in a bounded buffer.

use bytes::Bytes;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::cli::{stderr, stdout};
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamResult};

use crate::guest_log::{GuestLog, LINE_MAX_BYTES, Level};
use crate::task_state::TaskState;

/// What a guest may write at once.
const WRITE_MAX_BYTES: usize = 64 << 10;

impl TaskState {
    fn line_stream(&mut self, level: Level) -> Result<Resource<DynOutputStream>> {
        self.count_host_call()?;
        let stream: DynOutputStream = Box::new(LineStream { log: self.log.clone(), level, pending: Vec::new() });
        Ok(self.table().push(stream)?)
    }
}

impl stdout::Host for TaskState {
    fn get_stdout(&mut self) -> Result<Resource<DynOutputStream>> {
        self.line_stream(Level::Info)
    }
}

impl stderr::Host for TaskState {
    fn get_stderr(&mut self) -> Result<Resource<DynOutputStream>> {
        self.line_stream(Level::Warn)
    }
}

struct LineStream {
    log: GuestLog,
    level: Level,
    /// The start of a line whose end has not come yet; at most `LINE_MAX_BYTES`.
    pending: Vec<u8>,
}

impl LineStream {
    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.pending);
        self.log.line(self.level, &line);
        self.pending.clear();
    }

    fn take(&mut self, bytes: &[u8]) {
        for (index, part) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if index > 0 {
                self.end_line();
            }
            for piece in part.chunks(LINE_MAX_BYTES) {
                if self.pending.len() + piece.len() > LINE_MAX_BYTES {
                    self.end_line();
                }
                self.pending.extend_from_slice(piece);
            }
        }
    }
}

impl OutputStream for LineStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX_BYTES)
    }
}

#[async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

impl Drop for LineStream {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            self.end_line();
        }
    }
}
