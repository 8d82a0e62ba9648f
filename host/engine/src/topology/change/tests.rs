//! What a new version may change, as a table: what it does, and what comes of it.

use super::*;
use crate::testing::topology;

/// `orders` and `refunds` feed the stores `totals` and `seen`; `alerts` feeds a sub-topology without state.
fn running() -> Topology {
    let mut both = topology(&["orders", "refunds"], &["totals", "seen"], &["out", "late"]);
    both.sub_topologies.push(topology(&["alerts"], &[], &["mails"]).sub_topologies.remove(0));
    both.dead_letter_topic = Some("dead".into());
    both.sub_topologies[0].stores[0].version = 2;
    both
}

/// A change of `running`.
type Edit = fn(&mut Topology);

fn stores(topology: &mut Topology) -> &mut Vec<StoreSpec> {
    &mut topology.sub_topologies[0].stores
}

fn source(name: &str) -> TopicBinding {
    TopicBinding { name: name.into(), topic: name.into() }
}

fn changed(edit: Edit) -> Topology {
    let mut new = running();
    edit(&mut new);
    new
}

fn dropped(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// `Swap` or `Restart` with what happens to stores, and the notes.
fn taken(edit: Edit, can_migrate: bool, drop: &[&str]) -> (String, Vec<String>) {
    let change = compare(&running(), &changed(edit), can_migrate, &dropped(drop));
    let change = change.unwrap_or_else(|faults| panic!("refused: {faults:?}"));
    let mut text = format!("{:?}", change.kind);
    for migration in &change.migrations {
        text += &format!(" {} {}->{}", migration.store, migration.from, migration.to);
    }
    change.created.iter().for_each(|store| text += &format!(" +{store}"));
    change.removed.iter().for_each(|store| text += &format!(" -{store}"));
    change.recounted.iter().for_each(|part| text += &format!(" count {part}"));
    (text, change.notes)
}

fn refused(edit: Edit, can_migrate: bool, drop: &[&str]) -> Vec<String> {
    let faults = compare(&running(), &changed(edit), can_migrate, &dropped(drop)).expect_err("it does not fit");
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn what_stays_the_same_is_a_swap() {
    let same: &[Edit] = &[
        |_| {},
        // Nobody counts sources.
        |new| new.sub_topologies[0].sources.reverse(),
    ];
    for &edit in same {
        assert_eq!(taken(edit, false, &[]), ("Swap".to_owned(), Vec::new()));
        assert_eq!(taken(edit, true, &[]), ("Swap".to_owned(), Vec::new()));
    }
}

#[test]
fn a_higher_schema_version_is_migrated_or_refused() {
    let raise: Edit = |new| {
        stores(new)[0].version = 4;
        // The format belongs to the version.
        stores(new)[0].value_format = "json".into();
        stores(new)[1].version = 2;
    };
    assert_eq!(taken(raise, true, &[]), ("Swap totals 2->4 seen 1->2".to_owned(), Vec::new()));
    assert_eq!(
        refused(raise, false, &[]),
        [
            "store totals has rows of schema version 2, the new version declares 4, but its module does not export \
             sandbar:processor/migration: write a migration from version 2, or declare version 2",
            "store seen has rows of schema version 1, the new version declares 2, but its module does not export \
             sandbar:processor/migration: write a migration from version 1, or declare version 1",
        ]
    );
    for can_migrate in [false, true] {
        assert_eq!(
            refused(|new| stores(new)[0].version = 1, can_migrate, &[]),
            [
                "store totals has rows of schema version 2, the new version declares 1: rows do not go back; declare version 2 \
              or a higher one, or use a store with another name"
            ]
        );
    }
}

#[test]
fn a_format_changes_with_the_version_only() {
    let edit: Edit = |new| {
        stores(new)[0].key_format = "utf8".into();
        stores(new)[0].value_format = "i64".into();
    };
    let found = refused(edit, true, &[]);
    assert_eq!(
        found[0],
        "the keys of store totals have the format bytes in the running version and utf8 in the new one, both under schema \
         version 2, so that the rows that are there could not be read: raise the store's version and migrate them, or use \
         a store with another name"
    );
    assert!(found[1].starts_with("the values of store totals have the format bytes in the running version and i64"));
    assert_eq!(found.len(), 2);
}

#[test]
fn what_only_tasks_know_needs_a_restart() {
    let table: &[(Edit, &[&str], &str, &[&str])] = &[
        (
            |new| new.sub_topologies[0].sinks.reverse(),
            &[],
            "Restart",
            &["the sinks of sub-topology 0 are late, out instead of out, late"],
        ),
        (
            |new| new.sub_topologies[1].sinks[0].topic = "mails-v2".into(),
            &[],
            "Restart",
            &["the sinks of sub-topology 1 are mails (mails-v2) instead of mails"],
        ),
        (|new| new.dead_letter_topic = None, &[], "Restart", &["dead letters go to no topic instead of dead"]),
        (|new| stores(new).reverse(), &[], "Restart", &[]),
        (
            |new| stores(new).push(StoreSpec { name: "more".into(), ..running().sub_topologies[0].stores[0].clone() }),
            &[],
            "Restart +more",
            &["store more is new: it begins empty, unless its changelog is there from an earlier version"],
        ),
        (
            |new| drop(stores(new).remove(1)),
            &["seen"],
            "Restart -seen",
            &["store seen is dropped: nothing reads its rows any more"],
        ),
        (
            |new| stores(new)[1].backend = StoreBackend::Persistent,
            &[],
            "Restart",
            &["store seen is persistent instead of in memory: it is restored from its changelog as a whole"],
        ),
    ];
    for (edit, drop, kind, notes) in table {
        assert_eq!(taken(*edit, false, drop), ((*kind).to_owned(), dropped(notes)));
    }
}

#[test]
fn sources_come_and_go_as_long_as_one_stays() {
    let gone = "source topic refunds is not read any more: a version that reads it again goes on from the group's \
                committed offsets, while it has them";
    let new = |topic: &str| {
        format!(
            "source topic {topic} is new: it is read from where auto.offset.reset says, unless the group has committed \
             offsets of it"
        )
    };
    let table: &[(Edit, &str, &[&str])] = &[
        (|new| drop(new.sub_topologies[0].sources.pop()), "Restart count 0", &[gone]),
        (|new| new.sub_topologies[0].sources.push(source("gifts")), "Restart count 0", &[&new("gifts")]),
        (
            |new| new.sub_topologies[0].sources[1].topic = "refunds-v2".into(),
            "Restart count 0",
            &[gone, &new("refunds-v2")],
        ),
        (
            |new| new.sub_topologies[0].sources[0].name = "sales".into(),
            "Restart",
            &["the source of topic orders is named sales instead of orders"],
        ),
        // Nothing is stored there, so nothing hangs on the topics.
        (
            |new| new.sub_topologies[1].sources = vec![source("alarms")],
            "Restart",
            &[&gone.replace("refunds", "alerts"), &new("alarms")],
        ),
    ];
    for (edit, kind, notes) in table {
        assert_eq!(taken(*edit, false, &[]), ((*kind).to_owned(), dropped(notes)));
    }
    // Without the stores, the rest may go with them.
    let all: Edit = |new| {
        stores(new).clear();
        new.sub_topologies[0].sources = vec![source("gifts")];
    };
    assert_eq!(taken(all, false, &["totals", "seen"]).0, "Restart -totals -seen");
    assert_eq!(
        refused(|new| new.sub_topologies[0].sources = vec![source("gifts")], true, &[]),
        [
            "sub-topology 0 reads orders, refunds in the running version and gifts in the new one, but keeps what it has \
          stored (totals, seen), which came from those topics and is spread as they are; keep one of them, or give the \
          application a new application.id"
        ]
    );
}

#[test]
fn stores_keep_their_tasks() {
    let counts =
        |counts: &[(&str, i32)]| PartitionCounts(counts.iter().map(|&(topic, count)| (topic.into(), count)).collect());
    let new = changed(|new| new.sub_topologies[0].sources[1].topic = "gifts".into());
    let change = compare(&running(), &new, false, &[]).expect("one source stays");
    let check = |orders, refunds, gifts| {
        let counts = counts(&[("orders", orders), ("refunds", refunds), ("gifts", gifts), ("alerts", 1)]);
        change.check_task_counts(&running(), &new, &counts)
    };
    assert_eq!(check(4, 4, 4), Ok(()));
    assert_eq!(check(4, 2, 1), Ok(()));
    let fault = |running, kept, found| Err(vec![Incompatibility::TaskCount { sub_topology: 0, running, kept, found }]);
    assert_eq!(check(4, 4, 8), fault(4, 4, 8));
    // The topic that made the tasks is the one that goes.
    assert_eq!(check(2, 4, 2), fault(4, 2, 2));
    assert_eq!(check(2, 4, 4), fault(4, 2, 4));
    assert_eq!(
        check(2, 4, 4).expect_err("refused")[0].to_string(),
        "sub-topology 0 has 4 tasks with stores and would have 4 with the new sources, 2 of them with a topic that is read \
         now, but rows stay in their tasks; read topics of as many partitions, one of them as before, or give the \
         application a new application.id"
    );
    // What has no store, or the same topics, is not asked about.
    let stateless = changed(|new| new.sub_topologies[1].sources = vec![source("alarms")]);
    let change = compare(&running(), &stateless, false, &[]).expect("it has no store");
    assert_eq!(change.check_task_counts(&running(), &stateless, &counts(&[])), Ok(()));
}

#[test]
fn a_store_is_never_lost_by_the_way() {
    assert_eq!(
        refused(|new| drop(stores(new).remove(0)), true, &[]),
        [
            "store totals is kept by the running version and not declared by the new one, which would lose its rows: declare \
          it, or drop it with --drop-store totals"
        ]
    );
    // A typo drops nothing, and does not pass.
    assert_eq!(
        refused(|_| {}, true, &["totls", "seen"]),
        [
            "--drop-store names seen, which the new version declares: leave one of the two out",
            "--drop-store names totls, which the running version does not have; it has totals, seen: correct the name, or \
             leave it out",
        ]
    );
}

#[test]
fn what_restores_a_store_stays() {
    let table: &[(Edit, Edit, &str)] = &[
        (
            |_| {},
            |new| stores(new)[1].changelog = StoreChangelog::Off,
            "store seen is backed by its changelog in the running version and by no topic (logging.enabled = false) in the \
             new one, so that its rows would be gone where its task goes next: leave that as it is, or use a store with \
             another name",
        ),
        (
            |old| stores(old)[1].changelog = StoreChangelog::Off,
            |new| stores(new)[1].changelog = StoreChangelog::Internal,
            "store seen is backed by no topic (logging.enabled = false) in the running version and by its changelog in the \
             new one, so that its rows would be missing where its task goes next: leave that as it is, or use a \
             store with another name",
        ),
        (
            |_| {},
            |new| stores(new)[1].changelog = StoreChangelog::Source("orders".into()),
            "store seen is backed by its changelog in the running version and by the source topic orders in the new one, so \
             that it would be restored to something else than it holds: leave that as it is, or use a store with another \
             name",
        ),
        (
            |old| stores(old)[1].changelog = StoreChangelog::Off,
            |new| {
                stores(new)[1].changelog = StoreChangelog::Off;
                stores(new)[1].backend = StoreBackend::Persistent;
            },
            "store seen is in memory in the running version and persistent in the new one, and no changelog has its rows \
             (logging.enabled = false), which would be lost: leave that as it is, or use a store with another name",
        ),
        (
            |old| stores(old)[1].changelog = StoreChangelog::Source("orders".into()),
            |new| {
                stores(new)[1].changelog = StoreChangelog::Source("orders".into());
                stores(new)[1].version = 2;
            },
            "store seen has rows of schema version 1, the new version declares 2, but they are those of the source topic \
             orders, which no migration changes: declare version 1",
        ),
    ];
    for (before, after, message) in table {
        let faults = compare(&changed(*before), &changed(*after), true, &[]).expect_err("it does not fit");
        assert_eq!(faults.iter().map(ToString::to_string).collect::<Vec<_>>(), [*message]);
    }
}

#[test]
fn a_restart_says_what_it_forgets() {
    let forget: Edit = |topology| stores(topology)[1].changelog = StoreChangelog::Off;
    let mut new = changed(forget);
    let change = compare(&changed(forget), &new, false, &[]).expect("nothing changes");
    assert_eq!((change.kind, change.notes), (ChangeKind::Swap, Vec::new()));
    new.dead_letter_topic = None;
    let change = compare(&changed(forget), &new, false, &[]).expect("only dead letters change");
    assert_eq!(change.kind, ChangeKind::Restart);
    assert_eq!(change.notes[1], "store seen is in memory without a changelog: the restart empties it");
}

#[test]
fn sub_topologies_keep_their_numbers() {
    let count = "the running version has 2 sub-topologies, the new one 3: tasks and their stores are numbered by them; keep \
                 their number and order, or give the application a new application.id";
    let more = topology(&["gifts"], &[], &[]).sub_topologies.remove(0);
    let mut new = running();
    new.sub_topologies.push(more.clone());
    let messages = |new: &Topology| {
        let faults = compare(&running(), new, true, &[]).expect_err("it does not fit");
        faults.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(messages(&new), [count]);
    // In front of the others it moves them as well.
    let mut new = running();
    new.sub_topologies.insert(0, more);
    let found = messages(&new);
    assert_eq!(found[0], count);
    assert_eq!(
        found[1],
        "store totals belongs to sub-topology 0 in the running version and to 1 in the new one: its tasks and directories \
         carry that number; keep the order of the sub-topologies, or give the application a new application.id"
    );
    assert_eq!(found.len(), 6, "{found:?}");
    assert_eq!(
        refused(|new| new.sub_topologies.reverse(), true, &[])[2],
        "source topic orders feeds sub-topology 0 in the running version and 1 in the new one: its tasks carry that number; \
         keep the order of the sub-topologies, or give the application a new application.id"
    );
}

#[test]
fn everything_is_found_at_once() {
    let edit: Edit = |new| {
        stores(new)[0].version = 1;
        stores(new)[1].name = "visited".into();
        new.sub_topologies[0].sources = vec![source("gifts")];
        new.dead_letter_topic = None;
    };
    let found = refused(edit, true, &["saw"]);
    assert_eq!(found.len(), 4, "{found:?}");
    for (message, part) in found.iter().zip(["--drop-store names saw", "rows do not go back", "seen", "reads orders"]) {
        assert!(message.contains(part), "{message}");
    }
}
