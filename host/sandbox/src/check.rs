//! The check of a module before it is compiled: its size, that it is a component, that it offers a processor and asks
//! for nothing but what a module may have. Worlds are matched by the exports that are needed: more exports are fine,
//! WASI is linked with everything denied, any other import is refused by name. Never compiles or runs anything.

use sha2::{Digest, Sha256};
use wasmparser::{ElementItems, Parser, Payload, Validator, WasmFeatures};

use crate::error::LoadError;
use crate::guest_log::escape;

/// `module.max.bytes`: a compiled language needs a tenth of it; components that carry an interpreter (Python,
/// JavaScript) have up to 20 MB, so that whoever runs one raises the key.
pub const DEFAULT_MODULE_MAX_BYTES: usize = 10 << 20;

/// Bounds of what the compiler gets: its time grows faster than the size of a function. The interpreters inside Python
/// and JavaScript modules have about 30,000 functions, the largest of some 100 KB.
const FUNCTIONS_MAX: usize = 200_000;
const FUNCTION_MAX_BYTES: usize = 1 << 20;

/// Bounds of what all core modules of a component have together, since each instance of one takes host memory for it:
/// 16 bytes for a global, 32 for an import and for a function that can be reached from outside of the code (exported,
/// or listed for a table). With the bound on core instances that is some 60 MB at most for an instance of the
/// component.
const GLOBALS_MAX: usize = 30_000;
const IMPORTS_MAX: usize = 30_000;
const REACHABLE_MAX: usize = 50_000;

/// A name of a module in a message, and how many of them.
const NAME_MAX_BYTES: usize = 120;
const NAMES_MAX: usize = 10;
/// What the validator or the compiler says, which may quote the module.
pub(crate) const DETAIL_MAX_BYTES: usize = 1_024;

const PROCESSOR: &str = "sandbar:processor/processor@0.1.0";
/// What a module may export beside it, at a version that fits as well.
pub(crate) const MIGRATION: &str = "sandbar:processor/migration@0.1.0";
const PACKAGE: &str = "sandbar:processor/";
/// The interfaces of our package that a module may import.
const OFFERED: [&str; 4] = ["types", "state", "context", "log"];
/// The part of a version that must be equal below 1.0.
const COMPATIBLE: &str = "0.1.";

/// What of WebAssembly a module may use: what compilers emit, without threads, 64-bit memories, garbage collection,
/// exceptions, stack switching, several memories or asynchronous components (S2: what is off cannot be attacked).
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// What the check found out about a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFacts {
    /// The sha-256 of the bytes, as 64 hexadecimal digits.
    pub digest: String,
    pub size_bytes: usize,
    /// Names of the imported and exported interfaces, in the component's order.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

impl ModuleFacts {
    /// Whether the module asks for WASI, which it gets with everything denied.
    pub fn imports_wasi(&self) -> bool {
        self.imports.iter().any(|name| name.starts_with("wasi:"))
    }

    /// Whether the module can take over what older versions of it have stored.
    pub fn exports_migration(&self) -> bool {
        self.exports.iter().any(|name| is_interface(name, MIGRATION))
    }
}

/// Checks a module with the default size limit.
pub fn check(bytes: &[u8]) -> Result<ModuleFacts, LoadError> {
    check_with_limit(bytes, DEFAULT_MODULE_MAX_BYTES)
}

/// Checks a module of at most `limit_bytes`, its whole code included.
pub fn check_with_limit(bytes: &[u8], limit_bytes: usize) -> Result<ModuleFacts, LoadError> {
    let facts = inspect(bytes, limit_bytes)?;
    validate(bytes, &facts.digest)?;
    Ok(facts)
}

/// Everything but the validation of code: size, kind, imports and exports.
pub(crate) fn inspect(bytes: &[u8], limit_bytes: usize) -> Result<ModuleFacts, LoadError> {
    if bytes.len() > limit_bytes {
        return Err(LoadError::TooLarge { found_bytes: bytes.len(), limit_bytes });
    }
    require_wasm(bytes)?;
    let digest = hex(&Sha256::digest(bytes));
    if Parser::is_core_wasm(bytes) {
        return Err(LoadError::CoreModule { digest });
    }
    let outline = outline(bytes).map_err(|error| malformed(&digest, &error.to_string()))?;
    let Outline { imports, exports, .. } = &outline;
    for (what, found, limit) in [
        ("a number of functions", outline.functions, FUNCTIONS_MAX),
        ("a function body in bytes", outline.largest_function_bytes, FUNCTION_MAX_BYTES),
        ("a number of globals", outline.globals, GLOBALS_MAX),
        ("a number of imports of core modules", outline.core_imports, IMPORTS_MAX),
        ("a number of exported and listed functions", outline.reachable, REACHABLE_MAX),
    ] {
        if found > limit {
            return Err(LoadError::TooComplex { digest, what, found, limit });
        }
    }
    require_processor(&digest, exports)?;
    require_fitting_migration(&digest, exports)?;
    for import in imports {
        require_known(&digest, import)?;
    }
    Ok(ModuleFacts { digest, size_bytes: bytes.len(), imports: outline.imports, exports: outline.exports })
}

pub(crate) fn validate(bytes: &[u8], digest: &str) -> Result<(), LoadError> {
    validate_code(bytes).map_err(|detail| malformed(digest, &detail))
}

/// The detail may quote names of the module.
fn malformed(digest: &str, detail: &str) -> LoadError {
    LoadError::Malformed { digest: digest.to_owned(), detail: escape(detail, DETAIL_MAX_BYTES) }
}

/// What is wrong with a component, with the place in the file.
pub(crate) fn validate_code(bytes: &[u8]) -> Result<(), String> {
    Validator::new_with_features(FEATURES).validate_all(bytes).map_err(|error| error.to_string())?;
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Tells apart what people hand in by mistake.
fn require_wasm(bytes: &[u8]) -> Result<(), LoadError> {
    if Parser::is_component(bytes) || Parser::is_core_wasm(bytes) {
        return Ok(());
    }
    let start = &bytes[..bytes.len().min(64)];
    let found = if bytes.is_empty() {
        "the file is empty".to_owned()
    } else if bytes.starts_with(b"\0asm") && bytes.len() < 8 {
        format!("the file ends after {} bytes", bytes.len())
    } else if bytes.starts_with(b"\0asm") {
        format!("its version is {} instead of 0d000100 (a component)", hex(&bytes[4..8]))
    } else if bytes.starts_with(b"\x7fELF") {
        "it is compiled code of a machine, which is never loaded".to_owned()
    } else if start.trim_ascii_start().starts_with(b"(") {
        "it is WebAssembly text".to_owned()
    } else if std::str::from_utf8(start).is_ok_and(|text| !text.contains('\0')) {
        "it is a text file".to_owned()
    } else {
        format!("it starts with the bytes {}", hex(&start[..start.len().min(8)]))
    };
    Err(LoadError::NotWasm { found })
}

/// What can be seen of a component without looking into its code.
#[derive(Default)]
struct Outline {
    /// Names of the component's own imports and exports.
    imports: Vec<String>,
    exports: Vec<String>,
    /// Functions with a body, of all core modules inside.
    functions: usize,
    largest_function_bytes: usize,
    /// Of all core modules inside: globals of their own, imports of any kind, and functions that they export or list
    /// for tables.
    globals: usize,
    core_imports: usize,
    reachable: usize,
}

fn outline(bytes: &[u8]) -> Result<Outline, wasmparser::BinaryReaderError> {
    let mut outline = Outline::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CodeSectionEntry(body) => {
                outline.functions += 1;
                outline.largest_function_bytes = outline.largest_function_bytes.max(body.range().len());
            }
            Payload::GlobalSection(section) => outline.globals += section.count() as usize,
            Payload::ImportSection(section) => outline.core_imports += section.count() as usize,
            Payload::ExportSection(section) => outline.reachable += section.count() as usize,
            Payload::ElementSection(section) => {
                for element in section {
                    outline.reachable += match element?.items {
                        ElementItems::Functions(items) => items.count() as usize,
                        ElementItems::Expressions(_, items) => items.count() as usize,
                    };
                }
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    outline.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    outline.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}

fn require_processor(digest: &str, exports: &[String]) -> Result<(), LoadError> {
    let Some(export) = exports.iter().find(|name| is_interface(name, PROCESSOR)) else {
        let found = if exports.is_empty() { "nothing".to_owned() } else { shown_list(exports) };
        return Err(LoadError::WrongWorld { digest: digest.to_owned(), expected: PROCESSOR, found });
    };
    if compatible(export) {
        return Ok(());
    }
    Err(LoadError::WrongVersion { digest: digest.to_owned(), expected: PROCESSOR, found: shown(export) })
}

/// One of another version is no other interface, or a module would lose its migration without a word.
fn require_fitting_migration(digest: &str, exports: &[String]) -> Result<(), LoadError> {
    match exports.iter().find(|name| is_interface(name, MIGRATION) && !compatible(name)) {
        None => Ok(()),
        Some(export) => {
            Err(LoadError::WrongVersion { digest: digest.to_owned(), expected: MIGRATION, found: shown(export) })
        }
    }
}

/// Whether an export is this interface, of whatever version.
fn is_interface(export: &str, interface: &str) -> bool {
    export.split('@').next() == interface.split('@').next()
}

/// A module's name in a message.
fn shown(name: &str) -> String {
    escape(name, NAME_MAX_BYTES)
}

fn shown_list(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(NAMES_MAX).map(|name| shown(name)).collect();
    let more = names.len() - first.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    first.join(", ") + &more
}

fn compatible(name: &str) -> bool {
    name.split_once('@').is_some_and(|(_, version)| version.starts_with(COMPATIBLE))
}

fn require_known(digest: &str, import: &str) -> Result<(), LoadError> {
    let refuse =
        |cure: String| Err(LoadError::UnknownImport { digest: digest.to_owned(), import: shown(import), cure });
    if import.starts_with("wasi:") {
        return Ok(());
    }
    let Some(interface) = import.strip_prefix(PACKAGE) else {
        return refuse(
            "it may import only sandbar:processor/state, context and log, and wasi:*; remove the dependency that \
             needs it"
                .to_owned(),
        );
    };
    if !OFFERED.contains(&interface.split('@').next().unwrap_or_default()) {
        return refuse(format!(
            "this host offers only {} of sandbar:processor; update the host, or do without it",
            OFFERED.join(", ")
        ));
    }
    if !compatible(import) {
        return refuse(format!(
            "this host offers versions {COMPATIBLE}x; build it with the SDK of this version or update the host"
        ));
    }
    Ok(())
}
