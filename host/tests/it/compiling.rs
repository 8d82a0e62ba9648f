//! The process in which a host has its module compiled (S10): modules that would take too much end there, each with
//! the limit's name and its key, and the host says so.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Place, guest};

/// A component with these sections before its import and export of a processor in name only.
fn component_with(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    // One type, an instance without exports; an import of it; an export of that.
    section(&mut component, 7, &[1, 0x42, 0]);
    for (id, name, end) in [(10, "sandbar:processor/types@0.1.0", &[5, 0][..]), (11, PROCESSOR, &[5, 0, 0])] {
        let mut named = vec![1, 0];
        named.extend(leb(name.len()));
        named.extend(name.as_bytes());
        named.extend(end);
        section(&mut component, id, &named);
    }
    sections.iter().for_each(|(id, body)| section(&mut component, *id, body));
    component
}

/// Types that are lists of one another.
fn deep_types(depth: usize) -> (u8, Vec<u8>) {
    let mut body = leb(depth);
    body.extend([0x70, 0x7d]);
    for below in 1..depth {
        body.push(0x70);
        // A signed number: one bit more than it needs. The type before this one; the instance is number 0.
        let mut index = below;
        while index >= 0x40 {
            body.push(index as u8 | 0x80);
            index >>= 7;
        }
        body.push(index as u8);
    }
    (7, body)
}

/// A core module with one function of nested blocks.
fn deep_blocks(depth: usize) -> (u8, Vec<u8>) {
    let mut body = vec![0];
    (0..depth).for_each(|_| body.extend([0x02, 0x40]));
    (0..=depth).for_each(|_| body.push(0x0b));
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(&mut module, 1, &[1, 0x60, 0, 0]);
    section(&mut module, 3, &[1, 0]);
    let mut code = vec![1];
    code.extend(leb(body.len()));
    code.extend(body);
    section(&mut module, 10, &code);
    (1, module)
}

/// Components within one another.
fn deep_components(depth: usize) -> (u8, Vec<u8>) {
    let mut inner = b"\0asm\x0d\0\x01\0".to_vec();
    for _ in 1..depth {
        let mut outer = b"\0asm\x0d\0\x01\0".to_vec();
        section(&mut outer, 4, &inner);
        inner = outer;
    }
    (4, inner)
}

/// A component whose core module has `count` functions of some work each. It exports a processor in name only, which
/// is found out after compiling.
fn component_with_functions(count: usize) -> Vec<u8> {
    // local.get 0, local.get 0, i32.mul, local.get 0, i32.xor, local.set 0: six times.
    const STEP: [u8; 10] = [0x20, 0, 0x20, 0, 0x6c, 0x20, 0, 0x73, 0x21, 0];
    let mut body = vec![0];
    (0..4).for_each(|_| body.extend(STEP));
    body.push(0x0b);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(&mut module, 1, &[1, 0x60, 1, 0x7f, 0]);
    let mut functions = leb(count);
    functions.resize(functions.len() + count, 0);
    section(&mut module, 3, &functions);
    let mut code = leb(count);
    for _ in 0..count {
        code.extend(leb(body.len()));
        code.extend(&body);
    }
    section(&mut module, 10, &code);
    component_with(&[(1, module)])
}

const PROCESSOR: &str = "sandbar:processor/processor@0.1.0";

fn section(bytes: &mut Vec<u8>, id: u8, body: &[u8]) {
    bytes.push(id);
    bytes.extend(leb(body.len()));
    bytes.extend(body);
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn a_module_that_takes_too_much_to_compile() {
    let place = Place::new("compile-bomb");
    place.write("a.wasm", component_with_functions(190_000));
    place.write("sandbar.toml", "application.id = \"a\"\nmodule = \"a.wasm\"\n");
    let words = ["took too much to compile: CPU time of 1 s exceeded", "module.compile.cpu.max.seconds"];
    place.run_until_idle(&["-X", "module.compile.cpu.max.seconds=1"]).failed(4, &words);
    let words = ["took too much to compile: memory of 67108864 bytes exceeded", "module.compile.memory.max.bytes"];
    place.run_until_idle(&["-X", "module.compile.memory.max.bytes=67108864"]).failed(4, &words);
}

#[test]
fn a_module_that_is_not_valid() {
    let place = Place::new("invalid");
    let mut component = component_with_functions(10);
    // The end of the last function's body.
    *component.last_mut().expect("bytes") = 0x01;
    place.write("a.wasm", component);
    place.write("sandbar.toml", "application.id = \"a\"\nmodule = \"a.wasm\"\n");
    place.run_until_idle(&[]).failed(4, &["is not a valid component: ", "(at offset 0x"]);
}

/// What is nested a hundred thousand deep is refused with a reason, whoever refuses it, and never ends the host itself.
#[test]
fn modules_that_are_deep() {
    for (name, deep, expected) in [
        ("types", deep_types(100_000), "type nesting is too deep"),
        ("blocks", deep_blocks(100_000), "module "),
        ("components", deep_components(2_000), "module "),
    ] {
        let place = Place::new(name);
        place.write("a.wasm", component_with(&[deep]));
        place.write("sandbar.toml", "application.id = \"a\"\nmodule = \"a.wasm\"\n");
        place.run_until_idle(&[]).failed(4, &["the module ./a.wasm was refused", expected]);
    }
}

/// The process that compiles for `host`, if there is one.
fn compiling_for(host: u32) -> Option<PathBuf> {
    let own = format!("--parent-process-id\0{host}\0");
    let folders = fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path());
    let is_own = |folder: &PathBuf| {
        fs::read(folder.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&own))
    };
    folders.filter(is_own).last()
}

fn wait_for(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A host that is killed while a module compiles leaves nobody behind that goes on with it.
#[test]
fn the_process_that_compiles_ends_with_its_host() {
    let place = Place::new("orphan");
    place.write("a.wasm", component_with_functions(190_000));
    place.write("sandbar.toml", "application.id = \"a\"\nmodule = \"a.wasm\"\n");
    let mut host = place.start(&["-X", "module.compile.cpu.max.seconds=600"]);
    wait_for("it compiles", Duration::from_secs(30), || compiling_for(host.id()).is_some());
    host.kill();
    wait_for("nobody compiles", Duration::from_secs(2), || compiling_for(host.id()).is_none());
    // One that comes too late to be tied to its host ends as well.
    let late = ["--cpu-max-seconds", "10", "--memory-max-bytes", "536870912", "--parent-process-id", "1"];
    let all: Vec<&str> = ["compile-module"].into_iter().chain(late).collect();
    let ended = place.sandbar(&all);
    assert!(ended.code != Some(0) && ended.stdout.is_empty(), "{ended:?}");
    assert!(ended.stderr.contains("the host that started it, process 1, has ended"), "{ended:?}");
}

/// What the child itself answers, without a host.
#[test]
fn the_process_that_compiles_answers_on_its_standard_output() {
    let place = Place::new("compile-module");
    let answer = |module: Vec<u8>| {
        let mut command =
            place.command(&["compile-module", "--cpu-max-seconds", "10", "--memory-max-bytes", "536870912"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("sandbar starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || stdin.write_all(&module).is_ok());
        let output = child.wait_with_output().expect("sandbar ends");
        assert!(writer.join().expect("no panic"));
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let compiled = answer(fs::read(guest("count")).expect("the guest"));
    assert!(compiled.starts_with(b"\x7fELF"), "no compiled code");
    assert_eq!(compiled.last(), Some(&1));
    let refused = answer(b"\0asm\x0d\0\x01\0garbage".to_vec());
    assert_eq!(refused.last(), Some(&2), "{}", String::from_utf8_lossy(&refused));
}
