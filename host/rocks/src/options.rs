//! How the databases of an application are set up: one block cache and one budget for write buffers for all of them,
//! and for those of the other applications of the process, so that their number does not decide how much memory they
//! take (R15).

use std::path::PathBuf;
use std::sync::Arc;

use crate::bulk::BulkBudget;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, LogLevel, Options, WriteBufferManager};

/// Settings of an application's stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// `state.dir`.
    pub state_dir: PathBuf,
    pub application_id: String,
    /// The cluster whose changelogs the stores follow; checked when it is known.
    pub cluster_id: Option<String>,
    /// Memory for blocks, indexes, filters and write buffers of all stores together. It and the next one count where
    /// the stores have a memory of their own, and not where they share one.
    pub block_cache_bytes: usize,
    /// Of it, how much the write buffers of all stores may take before one is written out.
    pub write_buffers_bytes: usize,
    /// The write buffer of a single store.
    pub write_buffer_bytes: usize,
    /// Open files of a single store.
    pub max_open_files: u16,
    /// Threads that write out and compact, for all stores together.
    pub background_jobs: u16,
}

impl RocksOptions {
    /// The defaults for an application.
    pub fn new(state_dir: impl Into<PathBuf>, application_id: impl Into<String>) -> Self {
        Self {
            state_dir: state_dir.into(),
            application_id: application_id.into(),
            cluster_id: None,
            block_cache_bytes: 128 << 20,
            write_buffers_bytes: 64 << 20,
            write_buffer_bytes: 16 << 20,
            max_open_files: 256,
            background_jobs: 2,
        }
    }
}

/// The memory of stores: a block cache, with a budget for write buffers that is charged to it, and one for loading. The
/// applications of a process share one; a clone is the same memory.
#[derive(Clone)]
pub struct RocksMemory {
    cache: Cache,
    buffers: WriteBufferManager,
    write_buffers_bytes: usize,
    bulk: Arc<BulkBudget>,
}

impl RocksMemory {
    /// As in `RocksOptions`: memory for everything, and how much of it the write buffers may take.
    pub fn new(block_cache_bytes: usize, write_buffers_bytes: usize) -> Self {
        // Write buffers are charged to the cache, so it must be able to hold them.
        let cache = Cache::new_lru_cache(block_cache_bytes.max(write_buffers_bytes));
        let buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(write_buffers_bytes, false, cache.clone());
        Self { cache, buffers, write_buffers_bytes, bulk: Arc::new(BulkBudget::new(write_buffers_bytes)) }
    }
}

/// What the databases of an application share.
pub(crate) struct SharedOptions {
    memory: RocksMemory,
    buffers_max_bytes: usize,
    database: Options,
    pub bulk: Arc<BulkBudget>,
}

impl SharedOptions {
    /// With a memory of their own.
    pub fn new(options: &RocksOptions) -> Self {
        Self::within(options, &RocksMemory::new(options.block_cache_bytes, options.write_buffers_bytes))
    }

    pub fn within(options: &RocksOptions, memory: &RocksMemory) -> Self {
        let memory = memory.clone();
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&memory.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        table.set_optimize_filters_for_memory(true);
        table.set_format_version(6);

        let mut database = Options::default();
        database.create_if_missing(true);
        database.set_paranoid_checks(true);
        database.set_block_based_table_factory(&table);
        database.set_write_buffer_manager(&memory.buffers);
        database.set_write_buffer_size(options.write_buffer_bytes);
        database.set_max_write_buffer_number(3);
        // RocksDB's 1 MiB at a time, for each store that has written anything, would be more than the budget where
        // there are many.
        database.set_arena_block_size(options.write_buffer_bytes.min(64 << 10));
        database.set_compression_type(DBCompressionType::Lz4);
        database.set_level_compaction_dynamic_level_bytes(true);
        database.set_max_open_files(i32::from(options.max_open_files));
        database.set_max_background_jobs(i32::from(options.background_jobs.max(2)));
        // One thread writes to a store, so the skip list needs no protection against others.
        database.set_allow_concurrent_memtable_write(false);
        database.set_log_level(LogLevel::Warn);
        database.set_keep_log_file_num(2);
        database.set_max_log_file_size(1 << 20);
        database.set_stats_dump_period_sec(0);
        // RocksDB begins to write out at the budget; a quarter more is its time to do so.
        let buffers_max_bytes = memory.write_buffers_bytes + memory.write_buffers_bytes / 4;
        let bulk = Arc::clone(&memory.bulk);
        Self { memory, buffers_max_bytes, database, bulk }
    }

    pub fn database(&self) -> &Options {
        &self.database
    }

    /// Whether the stores write faster than their buffers can be written out. RocksDB would let them, or else hold up
    /// every writer without a word, even on a full disk.
    pub fn is_over_budget(&self) -> bool {
        self.memory.buffers.get_usage() > self.buffers_max_bytes
    }

    pub fn memory_usage_bytes(&self) -> u64 {
        self.memory.cache.get_usage() as u64
    }
}
