//! WASI's randomness, from the seed of the running call.

use engine::processor::ProcessorError;
use wasmtime::Result;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::task_state::TaskState;

/// Bytes that a guest gets at once.
const REQUEST_MAX_BYTES: u64 = 1 << 20;

impl TaskState {
    fn random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.count_host_call()?;
        if length > REQUEST_MAX_BYTES {
            let message = format!("the module asked for {length} random bytes at once, at most {REQUEST_MAX_BYTES}");
            return Err(ProcessorError::Trap { message, backtrace: String::new() }.into());
        }
        Ok(self.random.bytes(length as usize))
    }

    fn random_number(&mut self) -> Result<u64> {
        self.count_host_call()?;
        Ok(self.random.next_u64())
    }
}

impl random::Host for TaskState {
    fn get_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        self.random_number()
    }
}

impl insecure::Host for TaskState {
    fn get_insecure_random_bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        self.random_number()
    }
}

impl insecure_seed::Host for TaskState {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.random_number()?, self.random_number()?))
    }
}
