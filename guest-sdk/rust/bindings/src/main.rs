//! Generates the SDK's raw bindings from the contract. Run it after a change of `wit/processor.wit`:
//! `cargo run --manifest-path guest-sdk/rust/bindings/Cargo.toml`. It writes `guest-sdk/rust/src/bindings.rs`, whose
//! first lines carry a checksum of the contract that a unit test of the SDK compares; it never writes anything else.

use std::path::Path;
use std::{fs, process};

use wit_bindgen_core::{Files, WorldGenerator};
use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_bindgen_rust::{Opts, Ownership, WithOption};

/// What a module exports that can migrate, beside the world `module`: its bindings are apart, so that a module exports
/// it only when asked.
const MIGRATION: &str = "package sandbar:sdk;\nworld migration { export sandbar:processor/migration@0.1.0; }\n";

/// FNV-1a with 64 bits, as in the unit test of the SDK.
fn checksum(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

type Failure = Box<dyn std::error::Error>;

fn bindings(resolve: &mut Resolve, world: WorldId, options: Opts) -> Result<String, Failure> {
    let mut files = Files::default();
    options.build().generate(resolve, world, &mut files)?;
    let (_, generated) = files.iter().next().ok_or("the generator wrote nothing")?;
    Ok(String::from_utf8(generated.to_vec())?)
}

fn generate() -> Result<(), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let contract = root.join("wit/processor.wit");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&contract)?;
    let world = resolve.select_world(&[package], Some("module"))?;

    let options = Opts {
        format: true,
        ownership: Ownership::Owning,
        generate_all: true,
        pub_export_macro: true,
        default_bindings_module: Some("::sandbar::bindings".to_string()),
        export_macro_name: Some("__export_module".to_string()),
        additional_derive_attributes: vec!["PartialEq".to_string(), "Default".to_string()],
        additional_derive_ignore: vec!["bound".to_string(), "punctuation-type".to_string(), "level".to_string()],
        ..Opts::default()
    };
    let module = bindings(&mut resolve, world, options)?;
    let mut resolve = Resolve::default();
    resolve.push_path(&contract)?;
    let package = resolve.push_str("sdk.wit", MIGRATION)?;
    let world = resolve.select_world(&[package], Some("migration"))?;
    let types = WithOption::Path("crate::bindings::sandbar::processor::types".to_string());
    let options = Opts {
        format: true,
        ownership: Ownership::Owning,
        with: vec![("sandbar:processor/types@0.1.0".to_string(), types)],
        pub_export_macro: true,
        default_bindings_module: Some("::sandbar::bindings::migration".to_string()),
        export_macro_name: Some("__export_migration".to_string()),
        ..Opts::default()
    };
    let migration = bindings(&mut resolve, world, options)?;
    let text = format!(
        "//! Raw bindings of `wit/processor.wit`, made by `guest-sdk/rust/bindings`. Never edited by hand.\n\
         // contract: {:016x}\n{module}\n\
         /// The interface that a module exports only if it can migrate.\n\
         #[rustfmt::skip]\n\
         pub mod migration {{\n{migration}}}\n",
        checksum(&fs::read(&contract)?),
    );
    let target = root.join("guest-sdk/rust/src/bindings.rs");
    fs::write(&target, text)?;
    println!("wrote {}", target.display());
    Ok(())
}

fn main() {
    if let Err(error) = generate() {
        eprintln!("error: {error}");
        process::exit(1);
    }
}
