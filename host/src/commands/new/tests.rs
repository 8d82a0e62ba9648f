//! Names, folders and the SDK's place. That the application builds and passes its tests is checked end to end.

use super::*;

fn arguments(name: &str, path: &Path) -> NewArgs {
    NewArgs {
        name: name.to_owned(),
        language: Language::Rust,
        path: Some(path.to_owned()),
        sdk_path: None,
        sdk_version: Some("1.2.3".to_owned()),
    }
}

#[test]
fn names_are_checked() {
    for name in ["vote", "majority-vote", "a2"] {
        check_name(name).expect(name);
    }
    for name in ["", "Vote", "2a", "-a", "a-", "a_b", "a/b", "test", "serde", "match", &"a".repeat(65)] {
        check_name(name).expect_err(name);
    }
}

#[test]
fn every_file_is_filled_in_and_nothing_is_overwritten() {
    let folder = std::env::temp_dir().join(format!("sandbar-new-{}", std::process::id()));
    let terminal = Terminal::new(Format::Text);
    run(&arguments("tide", &folder), terminal).expect("made");
    for (file, _) in RUST {
        let text = fs::read_to_string(folder.join(file)).expect(file);
        assert!(!text.contains("{{"), "{file}: {text}");
    }
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    assert!(manifest.contains("name = \"tide\"") && manifest.contains("sandbar = \"1.2.3\""), "{manifest}");

    let error = run(&arguments("tide", &folder), terminal).expect_err("in use").to_string();
    assert!(error.ends_with("exists and is not empty; choose another folder with --path"), "{error}");
    fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn without_a_checkout_nothing_is_made_that_cannot_be_built() {
    let folder = std::env::temp_dir().join(format!("sandbar-new-alone-{}", std::process::id()));
    let arguments = NewArgs { sdk_version: None, ..arguments("tide", &folder) };
    let error = find_sdk(&arguments, &folder, Path::new("/nowhere/sandbar")).expect_err("no SDK").to_string();
    assert!(error.contains("--sdk-path"), "{error}");

    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout");
    let sdk = find_sdk(&arguments, &folder, &checkout.join("target/release/sandbar")).expect("the SDK");
    assert_eq!(sdk, by_path(&checkout.join(SDK)));
}
