//! G1 of the hostile suite: damaged modules, compiled as a host does it: in a process of its own that the system
//! bounds. Prints one line that begins with `hostile: `. `SANDBAR_HOSTILE=long` makes the row as long as `make hostile`
//! reports it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::processor::{ProcessorContext, ProcessorSupplier};
use engine::record::InputBatch;
use engine::testing::{Seed, topology};
use engine::topology::TaskId;
use sandbox::{ChildCompiler, CompileLimits, Compiler, Limits, LoadError, Module, Runtime, RuntimeConfig, check};

use crate::support::guest;

const MIB: u64 = 1 << 20;
/// The goal, which the system holds each process to: one that needs more ends, and its module is refused with that
/// reason.
const GOAL: CompileLimits = CompileLimits { cpu_max_seconds: 10, memory_max_bytes: 512 * MIB };

/// The most that any process that compiles for this one was seen to take.
#[derive(Debug, Default)]
struct Most {
    processes: u64,
    cpu: Duration,
    resident_bytes: u64,
}

impl Most {
    /// Looks at the processes that compile for this one until it is told to stop.
    fn watch(stop: &AtomicBool) -> Self {
        let (mut most, mut last) = (Self::default(), None);
        let own = format!("--parent-process-id\0{}\0", std::process::id());
        let is_ours = |line: &[u8]| String::from_utf8_lossy(line).contains(&own);
        let mut known: Option<PathBuf> = None;
        while !stop.load(Ordering::Relaxed) {
            // One at a time compiles: look for the next one only where the last one has gone.
            let found = known.take().filter(|folder| fs::read(folder.join("cmdline")).is_ok_and(|line| is_ours(&line)));
            known = found.or_else(|| {
                let folders = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
                folders.filter(|folder| fs::read(folder.join("cmdline")).is_ok_and(|line| is_ours(&line))).last()
            });
            if let Some(folder) = &known {
                if last.as_ref() != Some(folder) {
                    most.processes += 1;
                    last = Some(folder.clone());
                }
                // It may end between two of these reads; what was read before it did stands.
                if let Ok(status) = fs::read_to_string(folder.join("status")) {
                    most.resident_bytes = most.resident_bytes.max(resident_peak(&status).unwrap_or(0));
                }
                if let Ok(stat) = fs::read_to_string(folder.join("stat")) {
                    most.cpu = most.cpu.max(cpu(&stat).unwrap_or_default());
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        most
    }
}

fn resident_peak(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}

/// User and system time, in the hundredths of a second that Linux counts here.
fn cpu(stat: &str) -> Option<Duration> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

fn tight() -> Limits {
    Limits { deadline_ms: 100, memory_max_bytes: 8 * MIB, ..Limits::default() }
}

/// Damaged code runs in the sandbox as any other: whatever comes back, it comes back.
fn run(module: &Module) {
    const TASK: TaskId = TaskId { sub_topology: 0, partition: 3 };
    let Some(declared) = module.declaration().sub_topologies.first().filter(|part| part.stores.is_empty()) else {
        return;
    };
    let sources: Vec<&str> = declared.sources.iter().map(|source| source.name.as_str()).collect();
    let sinks: Vec<&str> = declared.sinks.iter().map(|sink| sink.name.as_str()).collect();
    let supplier = module.supplier(Arc::new(topology(&sources, &[], &sinks)), tight());
    let Ok(mut processor) = supplier.create(TASK) else { return };
    let config = Arc::new(BTreeMap::new());
    let mut context = ProcessorContext::new(TASK, "damaged".into(), config, Vec::new());
    context.begin_call(None, 0, 0);
    let (context, _) = processor.init(context);
    let mut batch = InputBatch { topic: "in".into(), partition: 3, ..InputBatch::default() };
    batch.offset_deltas.push(0);
    batch.timestamps.push(0);
    batch.keys.push(Some(b"key"));
    batch.values.push(Some(b"value"));
    let _ = processor.process(context, batch);
}

/// Damaged modules are refused or load; none stops the host, or has a process take more than the goal.
#[test]
fn g1_hostile_modules_that_are_damaged() {
    let is_long = std::env::var_os("SANDBAR_HOSTILE").is_some_and(|form| form == "long");
    let files = if is_long { 2_000 } else { 150 };
    let whole = fs::read(guest("passthrough")).expect("the guest");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_sandbar"));
    let (arguments, given_up) = (vec!["compile-module".to_owned()], Arc::default());
    let compiler = ChildCompiler { program, arguments, limits: GOAL, given_up };
    let config = RuntimeConfig { compiler: Compiler::Child(compiler), ..RuntimeConfig::default() };
    let runtime = Runtime::new(config).expect("a runtime");
    let stop = AtomicBool::new(false);
    let (mut refused, mut fault) = (0, None);
    let most = std::thread::scope(|scope| {
        let watch = scope.spawn(|| Most::watch(&stop));
        let mut random = Seed::new(11);
        for round in 0..files {
            let bytes = damaged(&whole, round, &mut random);
            match runtime.load_with(&bytes, &tight(), &mut |_| {}) {
                Ok(module) => run(&module),
                Err(error) => {
                    refused += 1;
                    // A damaged module may crash in its own `describe`; what compiles it may not.
                    let is_fault = match &error {
                        LoadError::CompileLimit { .. } | LoadError::Compiler { .. } => true,
                        LoadError::Compile { detail, .. } => detail.contains("crashed"),
                        _ => false,
                    };
                    // No panic here: the watch would be waited for without end.
                    if is_fault {
                        fault = Some(format!("module {round}: {error}"));
                        break;
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        watch.join().expect("the watch ends")
    });
    assert_eq!(fault, None);
    assert!(check(&whole).is_ok() && refused > files / 4, "{refused} of {files} refused");
    assert!(most.processes > files as u64 / 4, "{most:?}: they were not compiled in processes of their own");
    println!(
        "hostile: G1 {files} damaged modules, 0 crashes; {refused} refused, {} ran; the process that compiles took {} ms of \
         CPU and {} MiB at most",
        files - refused,
        most.cpu.as_millis(),
        most.resident_bytes / MIB
    );
    assert!(most.cpu <= Duration::from_secs(GOAL.cpu_max_seconds), "{most:?}");
    assert!((MIB..GOAL.memory_max_bytes).contains(&most.resident_bytes), "{most:?}");
}

fn damaged(whole: &[u8], round: usize, random: &mut Seed) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let anywhere = |random: &mut Seed| random.below(whole.len() as u64) as usize;
    match round % 4 {
        0 => bytes.truncate(anywhere(random)),
        1 => bytes[random.below(400) as usize] ^= 1 << random.below(8),
        2 => bytes[anywhere(random)] = random.below(256) as u8,
        // Some at once.
        _ => (0..8).for_each(|_| bytes[anywhere(random)] ^= 1 << random.below(8)),
    }
    bytes
}
