//! What a command line means for the host that is started.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn parsed(words: &[&str]) -> Result<Arguments, clap::Error> {
    Line::try_parse_from(std::iter::once("dev").chain(words.iter().copied())).map(|line| line.arguments)
}

/// The folder of the embedded broker, and what is set by flags.
fn surroundings(words: &[&str]) -> (Option<PathBuf>, Vec<(String, String)>) {
    let Surroundings { embedded, overrides } =
        Surroundings::of(&parsed(words).expect("known flags"), Path::new("/w/sandbar.toml"));
    (embedded, overrides.flags.into_iter().map(|(_, key, text)| (key, text)).collect())
}

fn set(key: &str, text: &str) -> (String, String) {
    (key.to_owned(), text.to_owned())
}

#[test]
fn without_a_broker_everything_is_beside_the_manifest() {
    let (embedded, flags) = surroundings(&[]);
    assert_eq!(embedded, Some(PathBuf::from("/w/.sandbar/dev/broker")));
    assert_eq!(flags, [set("state.dir", "/w/.sandbar/dev/state")]);
}

#[test]
fn a_broker_that_is_named_keeps_the_state_of_the_manifest() {
    let (embedded, flags) = surroundings(&["--embedded", "b"]);
    assert_eq!((embedded, flags), (Some(PathBuf::from("b")), vec![]));
    let (embedded, flags) = surroundings(&["-b", "k:9092", "--listen", "127.0.0.1:0", "--state-dir", "s"]);
    assert_eq!(embedded, None);
    let expected =
        [set("bootstrap.servers", "k:9092"), set("application.server", "127.0.0.1:0"), set("state.dir", "s")];
    assert_eq!(flags, expected);
}

#[test]
fn a_host_that_is_named_is_not_started() {
    assert!(parsed(&["--url", "http://127.0.0.1:7070", "--listen", "127.0.0.1:1"]).is_err());
    assert!(parsed(&["--url", "http://127.0.0.1:7070", "--embedded", "b"]).is_err());
    let arguments = parsed(&["guest", "--url", "http://h:1", "-F", "two-thirds,more", "-f", "x.toml"]).expect("fine");
    assert_eq!(arguments.how.features, ["two-thirds", "more"]);
    assert_eq!(arguments.file.as_deref(), Some(Path::new("x.toml")));
}
