//! Which files get what they ask for.

use super::super::files::Content;
use super::*;
use crate::config::Overrides;

fn manifest(path: &str, text: &str) -> Manifest {
    let text = format!("{text}\n[table.topic]\n");
    Manifest::parse(Path::new(path), &text, &Overrides::default()).expect("a manifest")
}

fn found(path: &str, id: &str) -> (PathBuf, Found) {
    with(path, &format!("application.id = \"{id}\""))
}

fn with(path: &str, text: &str) -> (PathBuf, Found) {
    (path.into(), Ok(Source { manifest: manifest(path, text), content: Content::default() }))
}

fn broken(path: &str) -> (PathBuf, Found) {
    (path.into(), Err(format!("{path}:1:1: broken")))
}

/// The plan for these files where those ids run with those files.
fn plan_of(files: &[(PathBuf, Found)], running: &[(&str, &str)]) -> Plan {
    let manifests: Vec<(&str, &str, Manifest)> =
        running.iter().map(|(id, file)| (*id, *file, manifest(file, &format!("application.id = \"{id}\"")))).collect();
    let present = manifests.iter().map(|(id, file, manifest)| (*id, Present { manifest, file: Path::new(file) }));
    let process = manifest("p.toml", "application.id = \"p\"");
    plan(files.iter().map(|(path, found)| (path.as_path(), found)), &present.collect(), &process)
}

fn wanted(plan: &Plan) -> Vec<(&str, String)> {
    plan.wanted.iter().map(|(id, source)| (id.as_str(), source.manifest.path.display().to_string())).collect()
}

#[test]
fn files_come_and_go() {
    let plan = plan_of(&[found("b.toml", "b"), found("c.toml", "c")], &[("a", "a.toml"), ("b", "b.toml")]);
    assert_eq!(wanted(&plan), [("b", "b.toml".to_owned()), ("c", "c.toml".to_owned())]);
    assert!(plan.kept.is_empty() && plan.troubles.is_empty(), "{plan:?}");
}

#[test]
fn a_broken_file_keeps_what_runs_and_starts_nothing() {
    let plan = plan_of(&[broken("a.toml"), broken("new.toml")], &[("a", "a.toml")]);
    assert!(plan.wanted.is_empty());
    assert_eq!(plan.kept, ["a".to_owned()].into());
    assert_eq!(plan.troubles[Path::new("new.toml")], "new.toml:1:1: broken");
    // Whose file it is cannot be told while it is broken.
    let plan = plan_of(&[broken("a.toml"), found("b.toml", "a")], &[("a", "a.toml")]);
    assert!(plan.wanted.is_empty() && plan.kept.contains("a"), "{plan:?}");
    assert!(plan.troubles[Path::new("b.toml")].contains("application.id \"a\" is that of a.toml"), "{plan:?}");
}

#[test]
fn of_two_files_with_an_id_the_one_that_runs_goes_on() {
    let both = [found("0.toml", "a"), found("a.toml", "a")];
    let plan = plan_of(&both, &[("a", "a.toml")]);
    assert_eq!(wanted(&plan), [("a", "a.toml".to_owned())]);
    let trouble = &plan.troubles[Path::new("0.toml")];
    assert!(trouble.starts_with("0.toml:1:1: application.id \"a\" is that of a.toml:1:1 already"), "{trouble}");
    assert_eq!(plan.troubles.len(), 1);
    let plan = plan_of(&both, &[]);
    assert!(plan.wanted.is_empty() && plan.troubles.contains_key(Path::new("a.toml")), "which is meant? {plan:?}");
    // A file that got another name.
    let plan = plan_of(&[found("b.toml", "a")], &[("a", "a.toml")]);
    assert_eq!(wanted(&plan), [("a", "b.toml".to_owned())]);
}

#[test]
fn a_key_of_the_process_stays_as_it_is() {
    let key = "application.id = \"a\"\nrocksdb.block.cache.bytes = 2097152";
    let plan = plan_of(&[with("a.toml", key)], &[("a", "a.toml")]);
    assert!(plan.wanted.is_empty() && plan.kept.contains("a"), "{plan:?}");
    let trouble = &plan.troubles[Path::new("a.toml")];
    assert!(trouble.starts_with("a.toml:2:1: rocksdb.block.cache.bytes belongs to the process"), "{trouble}");
    let plan = plan_of(&[with("a.toml", key)], &[]);
    assert!(plan.wanted.is_empty() && plan.kept.is_empty(), "{plan:?}");
}
