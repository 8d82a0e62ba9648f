//! Which manifests a command line means.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn parsed(words: &[&str]) -> Result<Arguments, clap::Error> {
    Line::try_parse_from(std::iter::once("run").chain(words.iter().copied())).map(|line| line.arguments)
}

#[test]
fn one_several_or_a_folder() {
    let files = |words: &[&str]| parsed(words).expect("known flags").file;
    assert_eq!(files(&[]), [Path::new("sandbar.toml")]);
    assert_eq!(files(&["-f", "a.toml", "--file", "b.toml"]), [Path::new("a.toml"), Path::new("b.toml")]);
    assert!(parsed(&["--apps", "apps"]).expect("known flags").apps.is_some());
    assert!(parsed(&["--apps", "apps", "-f", "a.toml"]).is_err(), "one or the other");
}

#[test]
fn a_folder_has_its_manifests_in_the_order_of_their_names() {
    let folder = std::env::temp_dir().join(format!("sandbar-apps-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("folder.toml")).expect("a folder");
    let error = manifests_of(&folder).expect_err("it is empty");
    assert!(error.to_string().contains("there is no manifest"), "{error}");
    for name in ["b.toml", "a.toml", ".hidden.toml", "notes.txt", "a.toml~"] {
        std::fs::write(folder.join(name), "").expect("a file");
    }
    let found = manifests_of(&folder).expect("readable");
    std::fs::remove_dir_all(&folder).expect("a folder");
    assert_eq!(found, [folder.join("a.toml"), folder.join("b.toml")]);
    let error = manifests_of(&folder).expect_err("it is gone");
    assert!(error.to_string().contains("cannot read the folder"), "{error}");
}

#[test]
fn whatever_is_wrong_with_any_of_them_is_told() {
    let paths = [PathBuf::from("/nowhere/a.toml"), PathBuf::from("/nowhere/b.toml")];
    let error = load(&paths, &Overrides::default()).expect_err("there are none").to_string();
    assert!(error.contains("/nowhere/a.toml") && error.contains("/nowhere/b.toml"), "{error}");
}
