//! Components by hand: the text of a core module around a few bodies, wrapped with the world of `wit/`. For attacks
//! that no compiler would write: start functions that loop, tables that grow, lists that lie, text that is none.

use sandbox::{LoadError, Module};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::support::runtime;

/// Where an answer of `init`, `process` or `punctuate` lies: zeroes there mean "done, nothing to say".
pub const ANSWER: u32 = 1_024;

/// Addresses within the answer of `process`: the pointer of each list, whose length follows 4 bytes later.
pub mod outcome {
    use super::ANSWER;

    pub const SINKS: u32 = ANSWER + 4;
    pub const PARTITIONS: u32 = ANSWER + 12;
    pub const TIMESTAMPS: u32 = ANSWER + 20;
    pub const KEY_BYTES: u32 = ANSWER + 28;
    pub const KEY_ENDS: u32 = ANSWER + 36;
    pub const KEY_NULLS: u32 = ANSWER + 44;
    pub const VALUE_BYTES: u32 = ANSWER + 52;
    pub const VALUE_ENDS: u32 = ANSWER + 60;
    pub const HEADER_COUNTS: u32 = ANSWER + 76;
    pub const REFUSED: u32 = ANSWER + 124;
}

/// Addresses within the answer of `migrate`.
pub mod migrated {
    use super::ANSWER;

    pub const BYTES: u32 = ANSWER + 4;
    pub const ENDS: u32 = ANSWER + 12;
    pub const NULLS: u32 = ANSWER + 20;
}

/// What makes a component different from one that does nothing, in WebAssembly's text format.
#[derive(Debug, Clone, Copy)]
pub struct Handmade<'a> {
    /// Whether its world has what the guest `wasi-probe` may import.
    pub wasi: bool,
    /// `(import …)`s.
    pub imports: &'a str,
    /// Globals, tables, functions and data of its own.
    pub fields: &'a str,
    /// Pages of memory that it starts with.
    pub pages: &'a str,
    /// The body of a start function; none where it is empty.
    pub start: &'a str,
    pub describe: &'a str,
    pub init: &'a str,
    pub process: &'a str,
    pub punctuate: &'a str,
    /// The function of its interface `migration`, as `migrate` makes it; without the interface where it is empty.
    pub migration: &'a str,
    /// What differs in its copy of the contract: a text and what stands there instead.
    pub contract: (&'a str, &'a str),
    /// The body of the function by which the host gets memory for what it hands over.
    pub realloc: &'a str,
}

impl Default for Handmade<'_> {
    fn default() -> Self {
        Self {
            wasi: false,
            imports: "",
            fields: "",
            pages: "2",
            start: "",
            describe: "",
            init: "",
            process: "",
            punctuate: "",
            migration: "",
            contract: ("", ""),
            // Everything is handed over at one place: nobody keeps it.
            realloc: "(global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -8)))
                (global.get $next)
                (global.set $next (i32.add (global.get $next) (local.get $size)))
                return",
        }
    }
}

impl Handmade<'_> {
    /// The component.
    pub fn component(&self) -> Vec<u8> {
        let mut module = wat::parse_str(self.text()).unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
        let mut resolve = Resolve::default();
        let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/processor.wit");
        let contract = std::fs::read_to_string(contract).unwrap();
        let package = resolve.push_str("processor.wit", &self.own_contract(contract)).unwrap();
        let world = if self.wasi {
            let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/guests/wasi-probe/wit");
            let (package, _) = resolve.push_path(wit).unwrap();
            resolve.select_world(&[package], Some("probe")).unwrap()
        } else {
            let world = if self.migration.is_empty() { "module" } else { "module-with-migration" };
            resolve.select_world(&[package], Some(world)).unwrap()
        };
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    fn own_contract(&self, contract: String) -> String {
        let (text, instead) = self.contract;
        if text.is_empty() {
            return contract;
        }
        assert!(contract.contains(text), "the contract has no {text}");
        contract.replace(text, instead)
    }

    pub fn load(&self) -> Result<Module, LoadError> {
        runtime().load(&self.component())
    }

    fn text(&self) -> String {
        let Self { imports, fields, pages, start, describe, init, process, punctuate, realloc, migration, .. } = self;
        let start = match *start {
            "" => String::new(),
            body => format!("(func $start {body}) (start $start)"),
        };
        // The topology at 64: one sub-topology at 128 with the source `commands` and the sink `answers`, both without
        // options, and no store.
        format!(
            r#"(module
            {imports}
            (memory (export "memory") {pages})
            (global $next (mut i32) (i32.const 4096))
            (data (i32.const 64) "\80\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const 128) "\a0\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00\b0\00\00\00\01\00\00\00")
            (data (i32.const 160) "\c0\00\00\00\08\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const 176) "\c8\00\00\00\07\00\00\00\00\00\00\00\00\00\00\00")
            (data (i32.const 192) "commandsanswers")
            {fields}
            (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32)
                (result i32) {realloc} unreachable)
            (func (export "{EXPORT}describe") (result i32) {describe} (i32.const 64))
            (func (export "{EXPORT}init") (param i32 i32) (result i32) {init} (i32.const {ANSWER}))
            (func (export "{EXPORT}process") (param $batch i32) (result i32)
                (global.set $next (i32.const 4096)) {process} (i32.const {ANSWER}))
            (func (export "{EXPORT}punctuate") (param i32 i64) (result i32) {punctuate} (i32.const {ANSWER}))
            {migration}
            {start}
            )"#
        )
    }
}

const EXPORT: &str = "sandbar:processor/processor@0.1.0#";

/// `migrate` with this body.
pub fn migrate(body: &str) -> String {
    format!(
        r#"(func (export "sandbar:processor/migration@0.1.0#migrate") (param $store i32) (param $store_bytes i32)
            (param $from i32) (param $keys i32) (param $key_bytes i32) (param $key_ends i32) (param $rows i32)
            (param $values i32) (param $value_bytes i32) (param $value_ends i32) (param $value_rows i32) (result i32)
            (global.set $next (i32.const 4096)) {body} (i32.const {ANSWER}))"#
    )
}

/// Stores a number at an address.
pub fn set(address: u32, value: u32) -> String {
    format!("(i32.store (i32.const {address}) (i32.const {})) ", value as i32)
}

/// Makes a list of an answer: where it begins and how many items it has.
pub fn list(field: u32, pointer: u32, length: u32) -> String {
    set(field, pointer) + &set(field + 4, length)
}
