//! Bounds memories and tables of one instance, all of them together, and the memory of all instances of an application.
//! Growth above a bound traps, so that the error names the limit and not what the guest's allocator made of it. What an
//! instance had taken is given back when it is dropped.

use std::sync::Arc;

use engine::processor::ProcessorError;
use wasmtime::{ResourceLimiter, Result};

use crate::limits::{Limits, MEMORY_TOTAL_KEY};
use crate::usage::Usage;

/// Core instances, memories and tables of one component. A compiled language has three instances, interpreters link a
/// dozen shared libraries. The host keeps memory for each instance that no other limit counts (see `check`).
const INSTANCES_MAX: usize = 20;
const MEMORIES_MAX: usize = 10;
const TABLES_MAX: usize = 100;

#[derive(Debug)]
pub(crate) struct Limiter {
    memory_max_bytes: u64,
    memory_total_max_bytes: u64,
    memory_bytes: u64,
    table_max_elements: u64,
    table_elements: u64,
    usage: Arc<Usage>,
}

impl Limiter {
    pub fn new(limits: &Limits, usage: Arc<Usage>) -> Self {
        Self {
            memory_max_bytes: limits.memory_max_bytes,
            memory_total_max_bytes: limits.memory_total_max_bytes,
            memory_bytes: 0,
            table_max_elements: limits.table_max_elements,
            table_elements: 0,
            usage,
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.usage.release_memory(self.memory_bytes);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let grown = self.memory_bytes.saturating_add(more);
        if grown > self.memory_max_bytes {
            return Err(ProcessorError::Memory { limit_bytes: self.memory_max_bytes }.into());
        }
        let limit = self.memory_total_max_bytes;
        if let Err(found) = self.usage.take_memory(more, limit) {
            let (name, key) = ("memory of all instances", MEMORY_TOTAL_KEY);
            return Err(ProcessorError::Limit { name, key, limit, found }.into());
        }
        self.memory_bytes = grown;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let grown = self.table_elements.saturating_add(desired.saturating_sub(current) as u64);
        if grown > self.table_max_elements {
            let (name, key) = ("table elements", "processor.table.max.elements");
            return Err(ProcessorError::Limit { name, key, limit: self.table_max_elements, found: grown }.into());
        }
        self.table_elements = grown;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
