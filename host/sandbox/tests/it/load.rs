//! What is loaded and what is refused, with which words (G1, S9).

use sandbox::{Limits, LoadError, LoadStage, Runtime, RuntimeConfig, StoreDeclaration, check, check_with_limit};

use crate::support::{guest, module, runtime};

/// A component by hand: it imports empty instances with these names and exports the first one under the others.
fn component(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    let mut section = |id: u8, body: Vec<u8>| {
        bytes.push(id);
        leb(&mut bytes, body.len());
        bytes.extend(body);
    };
    // One type: an instance without exports.
    section(7, vec![1, 0x42, 0]);
    let mut body = Vec::new();
    leb(&mut body, imports.len());
    for name in imports {
        body.push(0);
        leb(&mut body, name.len());
        body.extend_from_slice(name.as_bytes());
        body.extend([5, 0]);
    }
    section(10, body);
    let mut body = Vec::new();
    leb(&mut body, exports.len());
    for name in exports {
        body.push(0);
        leb(&mut body, name.len());
        body.extend_from_slice(name.as_bytes());
        body.extend([5, 0, 0]);
    }
    section(11, body);
    bytes
}

fn leb(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

const PROCESSOR: &str = "sandbar:processor/processor@0.1.0";

fn refused(bytes: &[u8]) -> String {
    let checked = check(bytes).unwrap_err();
    // Loading refuses the same, in the same words.
    assert_eq!(runtime().load(bytes).unwrap_err(), checked);
    checked.to_string()
}

#[test]
fn a_probe_says_what_it_is() {
    let module = module("probe");
    let part = &module.declaration().sub_topologies[0];
    assert_eq!(part.sources[0].name, "commands");
    assert_eq!(part.sinks[0].name, "answers");
    let store = StoreDeclaration {
        name: "data".to_owned(),
        key_format: "utf8".to_owned(),
        value_format: "bytes".to_owned(),
        version: 3,
    };
    assert_eq!(part.stores, [store]);
    assert_eq!(module.digest().len(), 64);
    assert_eq!(module.facts(), &check(&guest("probe")).unwrap());
    assert!(module.facts().exports.contains(&PROCESSOR.to_owned()));
    assert!(!module.facts().imports_wasi());
}

#[test]
fn what_is_no_component_is_named() {
    for (bytes, part) in [
        (&b""[..], "not a WebAssembly component: the file is empty; build one with `sandbar build`"),
        (b"\0asm", "the file ends after 4 bytes"),
        (b"hello there", "it is a text file"),
        (b" (component)", "it is WebAssembly text"),
        (b"\x7fELF\x02\x01\x01\0", "it is compiled code of a machine, which is never loaded"),
        (b"\xff\xfe\x00\x01garbage", "it starts with the bytes fffe000167617262"),
        (b"\0asm\x0e\0\x01\0", "its version is 0e000100 instead of 0d000100"),
    ] {
        let message = refused(bytes);
        assert!(message.contains(part), "{message}");
    }
    let message = refused(b"\0asm\x01\0\0\0");
    assert!(
        message.contains("is a core WebAssembly module, not a component; build it with `sandbar build`"),
        "{message}"
    );
}

#[test]
fn a_module_above_the_limit_is_refused_before_it_is_read() {
    let message = check_with_limit(&[0; 11], 10).unwrap_err().to_string();
    assert_eq!(
        message,
        "the module has 11 bytes, more than the limit of 10 bytes; make it smaller or raise module.max.bytes"
    );
    let small = Runtime::new(RuntimeConfig { module_max_bytes: 100, ..RuntimeConfig::default() }).unwrap();
    assert!(matches!(small.load(&guest("probe")), Err(LoadError::TooLarge { limit_bytes: 100, .. })));
}

#[test]
fn a_wrong_world_is_refused() {
    let message = refused(&component(&["sandbar:processor/types@0.1.0"], &["wasi:http/handler@0.2.0"]));
    assert!(message.contains("does not export sandbar:processor/processor@0.1.0, it exports wasi:http/handler@0.2.0"));
    let message = refused(&component(&["sandbar:processor/types@0.1.0"], &["sandbar:processor/processor@0.2.0"]));
    assert!(
        message.contains(
            "was built for sandbar:processor/processor@0.2.0, this host runs sandbar:processor/processor@0.1.0"
        )
    );
}

#[test]
fn an_import_that_no_module_can_have_is_refused_with_its_cure() {
    let message = refused(&component(&["acme:database/client@1.0.0"], &[PROCESSOR]));
    assert!(message.starts_with("module "), "{message}");
    assert!(message.contains("imports acme:database/client@1.0.0, which a module cannot have"), "{message}");
    assert!(message.contains("remove the dependency that needs it"), "{message}");
    let message = refused(&component(&["sandbar:processor/http@0.1.0"], &[PROCESSOR]));
    assert!(message.contains("this host offers only types, state, context, log of sandbar:processor"), "{message}");
    let message = refused(&component(&["sandbar:processor/state@0.3.0"], &[PROCESSOR]));
    assert!(message.contains("this host offers versions 0.1.x"), "{message}");
}

/// Names come from strangers: they must not steer a terminal, forge a line or fill the log.
#[test]
fn names_in_messages_are_escaped_and_cut() {
    let types = "sandbar:processor/types@0.1.0";
    let hostile = "\u{1b}[2J\nERROR forged \u{202e}";
    let huge = "x".repeat(90_000);
    let many: Vec<String> = (0..1_000).map(|number| format!("acme:many/n{number}@1.0.0")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (ours, version) = (format!("sandbar:processor/{hostile}"), format!("sandbar:processor/processor@9{hostile}"));
    for (bytes, part) in [
        (component(&[types], &[hostile]), "it exports \\u{1b}[2J\\nERROR forged \\u{202e};"),
        (component(&[types], &[&huge]), "xxx… (89880 bytes cut);"),
        (component(&[types], &many), "acme:many/n9@1.0.0 and 990 more;"),
        (component(&[types], &[&version]), "was built for sandbar:processor/processor@9\\u{1b}[2J\\n"),
        (component(&[hostile], &[PROCESSOR]), "imports \\u{1b}[2J\\nERROR forged \\u{202e}, which"),
        (component(&[&huge], &[PROCESSOR]), "xxx… (89880 bytes cut), which"),
        (component(&[&ours], &[PROCESSOR]), "imports sandbar:processor/\\u{1b}[2J\\n"),
        // The name passes the first look; the validator quotes it.
        (component(&[&format!("wasi:{hostile}"), types], &[PROCESSOR]), "is not a valid component: "),
        (component(&[&format!("wasi:{huge}"), types], &[PROCESSOR]), "bytes cut"),
    ] {
        let message = refused(&bytes);
        assert!(message.contains(part), "{message}");
        assert!(message.len() < 2_000 && !message.contains(['\u{1b}', '\n', '\u{202e}']), "{message:?}");
    }
}

#[test]
fn wasi_imports_and_later_patches_pass_the_check() {
    let imports = ["sandbar:processor/state@0.1.7", "wasi:http/outgoing-handler@0.2.3"];
    let facts = check(&component(&imports, &["sandbar:processor/processor@0.1.4"])).unwrap();
    assert!(facts.imports_wasi());
    // More exports than needed are fine.
    check(&component(&imports, &[PROCESSOR, "acme:extra/thing@1.0.0"])).unwrap();
}

/// A core module with `count` functions of `bytes` each, inside a component.
fn component_with_functions(count: usize, bytes: usize) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, body: Vec<u8>| {
        module.push(id);
        leb(&mut module, body.len());
        module.extend(body);
    };
    section(1, vec![1, 0x60, 0, 0]);
    let mut functions = Vec::new();
    leb(&mut functions, count);
    functions.resize(functions.len() + count, 0);
    section(3, functions);
    let mut code = Vec::new();
    leb(&mut code, count);
    for _ in 0..count {
        // No locals, `nop`s, `end`.
        leb(&mut code, bytes);
        code.push(0);
        code.resize(code.len() + bytes - 2, 0x01);
        code.push(0x0b);
    }
    section(10, code);
    component_around(&module)
}

fn component_around(module: &[u8]) -> Vec<u8> {
    let mut component = component(&["sandbar:processor/types@0.1.0"], &[PROCESSOR]);
    component.push(1);
    leb(&mut component, module.len());
    component.extend(module);
    component
}

/// A component around a module in text.
fn component_of_text(module: &str) -> Vec<u8> {
    component_around(&wat::parse_str(module).unwrap())
}

/// What each instance of a core module takes of the host, which no limit on its memory counts.
#[test]
fn what_would_take_host_memory_in_each_instance_is_refused() {
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<String>();
    let globals =
        |count| component_of_text(&format!("(module {})", many(count, &|_| "(global i32 (i32.const 0))".into())));
    let import = |number: usize| format!("(import \"a\" \"{number}\" (func))");
    let imports = |count| component_of_text(&format!("(module {})", many(count, &import)));
    let export = |number: usize| format!("(export \"{number}\" (func 0))");
    let exports = |count| component_of_text(&format!("(module (func) {})", many(count, &export)));
    let listed = |count| component_of_text(&format!("(module (func) (elem func {}))", "0 ".repeat(count)));
    for (what, of, limit) in [
        ("globals", &globals as &dyn Fn(usize) -> Vec<u8>, 30_000),
        ("imports of core modules", &imports, 30_000),
        ("exported and listed functions", &exports, 50_000),
        ("exported and listed functions", &listed, 50_000),
    ] {
        check(&of(limit)).unwrap();
        let message = refused(&of(limit + 1));
        let expected = format!("it has a number of {what} of {}, at most {limit} are allowed", limit + 1);
        assert!(message.contains(&expected), "{message}");
    }
    // Together, wherever they are.
    let mut two = globals(20_000);
    let second =
        wat::parse_str(format!("(module {})", many(20_000, &|_| "(global i32 (i32.const 0))".into()))).unwrap();
    two.push(1);
    leb(&mut two, second.len());
    two.extend(second);
    assert!(refused(&two).contains("it has a number of globals of 40000"));
    assert!(refused(&globals(1_000_000)).contains("it has a number of globals of 1000000"));
}

#[test]
fn what_would_compile_for_ever_is_refused() {
    check(&component_with_functions(100, 1_000)).unwrap();
    let message = refused(&component_with_functions(1_000_000, 2));
    assert!(message.contains("it has a number of functions of 1000000, at most 200000 are allowed"), "{message}");
    let message = refused(&component_with_functions(1, 2 << 20));
    assert!(message.contains("it has a function body in bytes of 2097152, at most 1048576 are allowed"), "{message}");
}

#[test]
fn a_processor_without_its_functions_does_not_link() {
    let error = runtime().load(&component(&["sandbar:processor/types@0.1.0"], &[PROCESSOR])).unwrap_err();
    assert!(matches!(error, LoadError::Link { .. }), "{error}");
    assert!(error.to_string().contains("does not fit sandbar:processor@0.1.0"), "{error}");
}

#[test]
fn describe_must_be_pure() {
    let error = runtime().load(&guest("impure")).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("could not say what it is (`describe`)"), "{message}");
    assert!(message.contains("the module called context.config in `describe`, which must be pure"), "{message}");
}

#[test]
fn loading_reports_its_stages() {
    let mut stages = Vec::new();
    let bytes = guest("passthrough");
    runtime().load_with(&bytes, &Limits::default(), &mut |stage| stages.push(stage)).unwrap();
    assert_eq!(stages, [LoadStage::Compiling { size_bytes: bytes.len() }, LoadStage::Describing]);
}

/// Cut, flipped and shuffled modules: each is refused or loads, none stops the host. The first bytes hold the
/// structure, so most faults go there.
#[test]
fn damaged_modules_never_harm_the_host() {
    let whole = guest("passthrough");
    let mut random = engine::testing::Seed::new(7);
    let (mut refused, mut passed) = (0, 0);
    for round in 0..2_000 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(random.below(whole.len() as u64) as usize),
            1 => {
                let place = random.below(400) as usize;
                bytes[place] ^= 1 << random.below(8);
            }
            _ => {
                let place = random.below(whole.len() as u64) as usize;
                bytes[place] = random.below(256) as u8;
            }
        }
        match check(&bytes) {
            Err(_) => refused += 1,
            Ok(_) => passed += 1,
        }
    }
    assert!(refused > 700, "{refused} refused, {passed} passed");
    // What passes the check goes to the compiler too; a few are enough, since each costs a compilation.
    for place in 0..8 {
        let mut bytes = whole.clone();
        let end = bytes.len() - 1 - place * 1_000;
        bytes[end] ^= 0x55;
        let _: Result<_, LoadError> = runtime().load(&bytes);
    }
}
