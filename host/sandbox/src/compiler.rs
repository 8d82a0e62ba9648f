//! Where modules are compiled: in this process, or in a child process of this program, whose CPU time and memory are
//! bounded by the operating system (S10), so that a module which makes the validator or the compiler run wild costs
//! its own start and nothing else. The parent bounds how long it waits and how much it reads, and believes a child only
//! if it ended with success. It says which limit was hit, and never compiles in the host what a child failed to.

pub(crate) mod child;

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wasmtime::Engine;

use crate::check::validate;
use crate::error::LoadError;
use crate::failure;
use crate::guest_log::escape;

/// The manifest's key of `CompileLimits::cpu_max_seconds`.
pub const COMPILE_CPU_KEY: &str = "module.compile.cpu.max.seconds";
/// The manifest's key of `CompileLimits::memory_max_bytes`.
pub const COMPILE_MEMORY_KEY: &str = "module.compile.memory.max.bytes";

/// What a child may say on standard error before the rest is thrown away.
const SAID_MAX_BYTES: u64 = 16 << 10;
/// What of that goes into a message.
const SAID_SHOWN_BYTES: usize = 1_024;
/// Compiled code has two to four times the size of its module; a small module has some fixed parts.
const CODE_PER_MODULE: u64 = 32;
const CODE_FIXED_BYTES: u64 = 16 << 20;
/// On a busy machine a second of CPU takes longer than a second; this is the end of patience.
const WALL_PER_CPU: u32 = 10;
const WALL_FIXED: Duration = Duration::from_secs(10);
const WAIT_PIECE: Duration = Duration::from_millis(2);
/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// What compiling one module may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// CPU time of all threads together, in seconds.
    pub cpu_max_seconds: u64,
    /// Memory beyond what the program itself takes, in bytes of address space.
    pub memory_max_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { cpu_max_seconds: 10, memory_max_bytes: 1 << 30 }
    }
}

/// Where modules are compiled.
#[derive(Debug, Clone, Default)]
pub enum Compiler {
    /// Without limits: for tests, and for tools that compile their user's own modules.
    #[default]
    InProcess,
    Child(ChildCompiler),
}

/// A program that answers as [`crate::serve_compilation`] does.
#[derive(Debug, Clone)]
pub struct ChildCompiler {
    /// An absolute path.
    pub program: PathBuf,
    /// What comes first on its command line; `--cpu-max-seconds N --memory-max-bytes N --parent-process-id N` follow.
    pub arguments: Vec<String>,
    pub limits: CompileLimits,
    /// Once it is true nobody waits for the module any more: the child is killed, and loading ends with an error.
    pub given_up: Arc<AtomicBool>,
}

impl Compiler {
    /// Validates and compiles a component. The result is what `Engine::precompile_component` returned, here or in a
    /// child process, and nothing else.
    pub(crate) fn compile(&self, engine: &Engine, bytes: &[u8], digest: &str) -> Result<Vec<u8>, LoadError> {
        match self {
            Self::InProcess => in_process(engine, bytes, digest),
            Self::Child(child) => child.compile(bytes, digest),
        }
    }
}

fn in_process(engine: &Engine, bytes: &[u8], digest: &str) -> Result<Vec<u8>, LoadError> {
    // Our own validator first: its messages name the place in the file.
    validate(bytes, digest)?;
    let failed = |detail: String| LoadError::Compile { digest: digest.to_owned(), detail };
    // A compiler bug that panics must not take the host down.
    let compiled = catch_unwind(AssertUnwindSafe(|| engine.precompile_component(bytes)));
    compiled
        .map_err(|panic| failed(failure::host_panic(&*panic).to_string()))?
        .map_err(|error| failed(escape(&format!("{error:#}"), SAID_SHOWN_BYTES)))
}

/// How a child ended and what it left.
struct Ended {
    status: ExitStatus,
    /// It was killed since it took too long.
    late: bool,
    output: Vec<u8>,
    /// Escaped and cut.
    said: String,
}

impl ChildCompiler {
    fn compile(&self, bytes: &[u8], digest: &str) -> Result<Vec<u8>, LoadError> {
        let broken = |detail: String| LoadError::Compiler { digest: digest.to_owned(), detail };
        let ended = self.run(bytes).map_err(|error| {
            broken(format!("the process that compiles it cannot be run ({}): {error}", self.program.display()))
        })?;
        if let Some(error) = self.limit_of(&ended, digest) {
            return Err(error);
        }
        let Ended { status, mut output, said, .. } = ended;
        if !status.success() {
            if status.code() == Some(PANICKED) || matches!(status.signal(), Some(ABORTED | SEGMENT | BUS | ILLEGAL)) {
                return Err(LoadError::Compile {
                    digest: digest.to_owned(),
                    detail: format!("the compiler crashed ({status}): {said}"),
                });
            }
            return Err(broken(format!("the process that compiles it failed ({status}): {said}")));
        }
        let detail = |output: &[u8]| escape(&String::from_utf8_lossy(output), SAID_SHOWN_BYTES);
        match output.pop() {
            Some(child::CODE) => Ok(output),
            Some(child::MALFORMED) => Err(LoadError::Malformed { digest: digest.to_owned(), detail: detail(&output) }),
            Some(child::REFUSED) => Err(LoadError::Compile { digest: digest.to_owned(), detail: detail(&output) }),
            _ => {
                let length = output.len();
                Err(broken(format!(
                    "the process that compiles it answered with {length} bytes of another kind: {said}"
                )))
            }
        }
    }

    /// Feeds a child and waits until it has ended, by itself or not.
    fn run(&self, bytes: &[u8]) -> std::io::Result<Ended> {
        let CompileLimits { cpu_max_seconds, memory_max_bytes } = self.limits;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.args(["--cpu-max-seconds", &cpu_max_seconds.to_string()]);
        command.args(["--memory-max-bytes", &memory_max_bytes.to_string()]);
        command.args(["--parent-process-id", &std::process::id().to_string()]);
        // The allocator would set aside a gigabyte of addresses at once, which counts as memory (in KiB).
        command.env_clear().env("MIMALLOC_ARENA_RESERVE", "65536");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Running(command.spawn()?);
        let (stdin, stdout, stderr) = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
        let wall = WALL_PER_CPU * Duration::from_secs(cpu_max_seconds) + WALL_FIXED;
        let output_max_bytes = CODE_FIXED_BYTES + CODE_PER_MODULE * bytes.len() as u64;
        std::thread::scope(|scope| {
            // A child that ends early closes the pipe; how it ended says why.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(bytes)));
            let output = scope.spawn(move || stdout.map_or_else(Vec::new, |stdout| code_of(stdout, output_max_bytes)));
            let said = scope.spawn(move || stderr.map_or_else(String::new, said_of));
            // Where that fails the child ends here, before the scope waits for the ends of its pipes.
            let (status, late) = wait(child, wall, &self.given_up)?;
            // Neither reader panics, and each ends with its pipe.
            let (output, said) = (output.join().unwrap_or_default(), said.join().unwrap_or_default());
            Ok(Ended { status, late, output, said })
        })
    }

    /// The limit that ended a child, if one did.
    fn limit_of(&self, ended: &Ended, digest: &str) -> Option<LoadError> {
        let CompileLimits { cpu_max_seconds, memory_max_bytes } = self.limits;
        let hit = |what, limit, key| Some(LoadError::CompileLimit { digest: digest.to_owned(), what, limit, key });
        if ended.late {
            let limit = format!("{WALL_PER_CPU} times {cpu_max_seconds} s");
            return hit("wall-clock time", limit, COMPILE_CPU_KEY);
        }
        if ended.status.signal() == Some(Signal::XCPU.as_raw()) {
            return hit("CPU time", format!("{cpu_max_seconds} s"), COMPILE_CPU_KEY);
        }
        // A Rust program aborts with the first of these words, or panics with the others.
        let starved = ["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"];
        if !ended.status.success() && starved.iter().any(|words| ended.said.contains(words)) {
            return hit("memory", format!("{memory_max_bytes} bytes"), COMPILE_MEMORY_KEY);
        }
        None
    }
}

const ABORTED: i32 = Signal::ABORT.as_raw();
const SEGMENT: i32 = Signal::SEGV.as_raw();
const BUS: i32 = Signal::BUS.as_raw();
const ILLEGAL: i32 = Signal::ILL.as_raw();

/// A child that does not outlive this value, whatever ends the wait for it. Should this process end first, the child
/// ends by itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the end of a child, and makes it after `wall`, or when it is given up.
fn wait(mut child: Running, wall: Duration, given_up: &AtomicBool) -> std::io::Result<(ExitStatus, bool)> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.0.try_wait()? {
            return Ok((status, false));
        }
        if start.elapsed() >= wall {
            child.0.kill()?;
            return Ok((child.0.wait()?, true));
        }
        if given_up.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("loading it was given up"));
        }
        std::thread::sleep(WAIT_PIECE);
    }
}

/// What a child wrote, at most one byte more than the bound; then the pipe closes, which ends a child that goes on.
fn code_of(stdout: ChildStdout, max_bytes: u64) -> Vec<u8> {
    let mut output = Vec::new();
    match stdout.take(max_bytes.saturating_add(1)).read_to_end(&mut output) {
        Ok(read) if read as u64 <= max_bytes => output,
        // Nothing is better than a part of it.
        _ => Vec::new(),
    }
}

fn said_of(mut stderr: ChildStderr) -> String {
    let mut said = Vec::new();
    // What was read before an error is worth showing; the rest is read so that the child need not wait.
    let _ = stderr.by_ref().take(SAID_MAX_BYTES).read_to_end(&mut said);
    let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    escape(String::from_utf8_lossy(&said).trim(), SAID_SHOWN_BYTES)
}
