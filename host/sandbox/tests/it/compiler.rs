//! Compiling in a child process, seen from the parent: what it makes of a child that misbehaves (S10). The real child
//! is the host's binary, whose tests run it.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandbox::{ChildCompiler, CompileLimits, Compiler, LoadError, Runtime, RuntimeConfig};

use crate::support::{TempDir, guest};

/// What loading a guest says with a shell script as its compiler.
fn refused_by(name: &str, script: &str) -> LoadError {
    let dir = TempDir::new(name);
    let program = dir.0.join("compiler.sh");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let limits = CompileLimits { cpu_max_seconds: 1, memory_max_bytes: 64 << 20 };
    let (arguments, given_up) = (vec!["go".to_owned()], Arc::default());
    let compiler = Compiler::Child(ChildCompiler { program, arguments, limits, given_up });
    let runtime = Runtime::new(RuntimeConfig { compiler, ..RuntimeConfig::default() }).unwrap();
    runtime.load(&guest("passthrough")).unwrap_err()
}

#[test]
fn a_program_that_cannot_be_run_is_named() {
    let limits = CompileLimits::default();
    let compiler =
        ChildCompiler { program: "/nowhere/sandbar".into(), arguments: Vec::new(), limits, given_up: Arc::default() };
    let config = RuntimeConfig { compiler: Compiler::Child(compiler), ..RuntimeConfig::default() };
    let message = Runtime::new(config).unwrap().load(&guest("passthrough")).unwrap_err().to_string();
    assert!(message.contains("was not compiled, because the process that compiles it cannot be run"), "{message}");
    assert!(message.contains("(/nowhere/sandbar): No such file or directory"), "{message}");
}

#[test]
fn a_child_that_fails_is_quoted_and_nothing_it_wrote_is_taken() {
    let error = refused_by("fails", "echo code; printf 'no\\033[31m luck' >&2; exit 3");
    assert!(matches!(error, LoadError::Compiler { .. }), "{error}");
    assert!(error.to_string().contains("failed (exit status: 3): no\\u{1b}[31m luck"), "{error}");
    let error = refused_by("crashes", "echo boom >&2; exit 101");
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
    assert!(error.to_string().contains("the compiler crashed (exit status: 101): boom"), "{error}");
    let error = refused_by("aborts", "kill -SEGV $$");
    assert!(error.to_string().contains("the compiler crashed (signal: 11"), "{error}");
    let error = refused_by("loud", "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3");
    assert!(error.to_string().len() < 1_500, "{}", error.to_string().len());
}

#[test]
fn an_answer_that_is_none_is_refused() {
    for (name, script) in [("nothing", "exit 0"), ("other", "cat >/dev/null; echo hello"), ("endless", "cat /dev/zero")]
    {
        let error = refused_by(name, script);
        assert!(matches!(error, LoadError::Compiler { .. }), "{name}: {error}");
    }
    // The mark of compiled code, and before it nothing that wasmtime takes.
    let error = refused_by("marked", "cat >/dev/null; printf 'hello\\001'");
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
    let error = refused_by("malformed", "cat >/dev/null; printf 'a \\033 word\\002'");
    assert!(error.to_string().contains("is not a valid component: a \\u{1b} word;"), "{error}");
    let error = refused_by("rejected", "cat >/dev/null; printf 'a word\\003'");
    assert!(error.to_string().contains("could not be compiled: a word"), "{error}");
}

#[test]
fn a_child_gets_no_environment_and_its_limits() {
    let error = refused_by("environment", "echo \"$* $(env | grep -vE '^(PWD|SHLVL|_)=' | tr '\\n' ' ')\" >&2; exit 1");
    let parent = std::process::id();
    let expected = format!(
        "go --cpu-max-seconds 1 --memory-max-bytes 67108864 --parent-process-id {parent} MIMALLOC_ARENA_RESERVE=65536"
    );
    assert!(error.to_string().ends_with(&expected), "{error}");
}

#[test]
fn a_limit_that_ends_a_child_is_named_with_its_key() {
    let error = refused_by("cpu", "kill -XCPU $$");
    assert!(
        error.to_string().ends_with(
            "took too much to compile: CPU time of 1 s exceeded; make it smaller, or raise the limit with the key \
             module.compile.cpu.max.seconds"
        ),
        "{error}"
    );
    let error = refused_by("memory", "echo memory allocation of 5 bytes failed >&2; kill -ABRT $$");
    assert!(
        error.to_string().ends_with(
            "memory of 67108864 bytes exceeded; make it smaller, or raise the limit with the key \
             module.compile.memory.max.bytes"
        ),
        "{error}"
    );
    let start = Instant::now();
    let error = refused_by("late", "exec sleep 1000");
    assert!(error.to_string().contains("wall-clock time of 10 times 1 s exceeded"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// Whoever stops an application while its module compiles leaves no process behind that goes on with it.
#[test]
fn a_child_that_nobody_waits_for_is_killed() {
    let given_up = Arc::new(AtomicBool::new(false));
    let compiler = ChildCompiler {
        program: "/bin/sh".into(),
        // The options that follow are the script's own arguments.
        arguments: vec!["-c".to_owned(), "exec sleep 1000".to_owned()],
        limits: CompileLimits::default(),
        given_up: Arc::clone(&given_up),
    };
    let config = RuntimeConfig { compiler: Compiler::Child(compiler), ..RuntimeConfig::default() };
    let runtime = Runtime::new(config).unwrap();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| runtime.load(&guest("passthrough")).unwrap_err().to_string());
        std::thread::sleep(Duration::from_millis(200));
        assert!(!loading.is_finished());
        given_up.store(true, Ordering::Relaxed);
        let start = Instant::now();
        let message = loading.join().unwrap();
        assert!(message.contains("loading it was given up"), "{message}");
        assert!(start.elapsed() < Duration::from_secs(5), "it was waited for");
    });
}
