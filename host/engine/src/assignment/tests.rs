//! Where standby tasks go: never beside their active task, as many as asked, evenly, the same for everybody, and with
//! few moves when hosts come and go.

use super::*;
use crate::record::TopicPartition;
use crate::testing::{Seed, topology};
use crate::topology::StoreChangelog;

fn tasks(count: i32) -> BTreeSet<TaskId> {
    (0..count).map(|partition| TaskId { sub_topology: 0, partition }).collect()
}

/// Hosts with the tasks given out one by one.
fn in_turns(hosts: &[&str], count: i32) -> GroupView {
    let mut view = GroupView::default();
    for (index, &id) in hosts.iter().enumerate() {
        let active = tasks(count).into_iter().filter(|task| task.partition as usize % hosts.len() == index).collect();
        view.hosts.insert(id.to_owned(), HostView { endpoint: format!("{id}:1"), active });
    }
    view
}

/// Hosts with tasks given out at random, some of them to nobody.
fn at_random(seed: &mut Seed, hosts: usize, count: i32) -> GroupView {
    let mut view = GroupView::default();
    for index in 0..hosts {
        view.hosts.insert(format!("host{index}"), HostView::default());
    }
    for task in tasks(count) {
        let chosen = seed.below(hosts as u64 + 1) as usize;
        if let Some(host) = view.hosts.get_mut(&format!("host{chosen}")) {
            host.active.insert(task);
        }
    }
    view
}

/// How many tasks are kept on a host of the second that was there before and did not keep them.
fn moved(before: &BTreeMap<String, BTreeSet<TaskId>>, after: &BTreeMap<String, BTreeSet<TaskId>>) -> usize {
    let newly = |(host, kept): (&String, &BTreeSet<TaskId>)| match before.get(host) {
        Some(earlier) => kept.difference(earlier).count(),
        None => kept.len(),
    };
    after.iter().map(newly).sum()
}

#[test]
fn a_client_id_tells_host_endpoint_and_thread() {
    let name = MemberName { host_id: "00ffa1".to_owned(), endpoint: "[::1]:7070".to_owned(), thread: 12 };
    let client_id = name.client_id("shop.orders-eu");
    assert_eq!(client_id, "shop.orders-eu-00ffa1@[::1]:7070-consumer-12");
    assert_eq!(MemberName::parse(&client_id), Some(name));
}

#[test]
fn a_foreign_client_id_is_none_of_ours() {
    let foreign = [
        "",
        "rdkafka",
        "consumer-app-1",
        "app-StreamThread-0-consumer",
        "app-h0@:7070-consumer-0",
        "app-h0@host-consumer-0",
        "app-h0@host:99999-consumer-0",
        "app-h0@host:7070-consumer-",
        "app-h0@host:7070-consumer--1",
        "app-h0@host:7070-consumer-+1",
        "app-h0@host:7070-consumer-99999999999999999999999",
        "app-@host:7070-consumer-0",
        "-h0@host:7070-consumer-0",
        "app-h\u{e9}@host:7070-consumer-0",
        "h0@host:7070-consumer-0",
    ];
    for client_id in foreign {
        assert_eq!(MemberName::parse(client_id), None, "{client_id:?}");
    }
}

#[test]
fn members_of_a_host_are_put_together_and_strangers_keep_nothing() {
    let topology = topology(&["in"], &["counts"], &[]);
    let member = |client_id: &str, partitions: &[i32]| GroupMember {
        member_id: client_id.to_owned(),
        client_id: client_id.to_owned(),
        host: "/127.0.0.1".to_owned(),
        assigned: partitions.iter().map(|&partition| TopicPartition::new("in", partition)).collect(),
    };
    let stray = GroupMember { assigned: vec![TopicPartition::new("other", 0)], ..member("rdkafka", &[]) };
    let members = [
        member("app-h0@a:1-consumer-0", &[0]),
        member("app-h0@a:1-consumer-1", &[2]),
        member("app-h1@b:2-consumer-0", &[]),
        member("kcat", &[3]),
        stray,
    ];
    let view = GroupView::of(&members, &topology);
    let hosts: Vec<(&str, &str)> = view.hosts.iter().map(|(id, host)| (id.as_str(), host.endpoint.as_str())).collect();
    assert_eq!(hosts, [("h0", "a:1"), ("h1", "b:2")]);
    let task = |partition| TaskId { sub_topology: 0, partition };
    assert_eq!(view.active_host(task(2)), Some("h0"));
    assert!(view.is_active(task(3)) && view.active_host(task(3)).is_none());
    assert!(!view.is_active(task(1)));
    let assignment = assign_standbys(&view, &tasks(4), 1);
    assert_eq!(assignment.keys().collect::<Vec<_>>(), ["h0", "h1"], "a stranger is given nothing");
    assert!(assignment["h1"].contains(&task(0)) && assignment["h1"].contains(&task(2)));
}

#[test]
fn only_tasks_with_a_changelog_are_kept_warm() {
    let mut topology = topology(&["in"], &["counts"], &[]);
    let counts = PartitionCounts([("in".into(), 3)].into());
    assert_eq!(logged_tasks(&topology, &counts), tasks(3));
    topology.sub_topologies[0].stores[0].changelog = StoreChangelog::Off;
    assert!(logged_tasks(&topology, &counts).is_empty());
    topology.sub_topologies[0].stores[0].changelog = StoreChangelog::Source("in".into());
    assert_eq!(logged_tasks(&topology, &counts), tasks(3));
}

#[test]
fn one_host_keeps_nothing_and_two_keep_each_other_s() {
    let alone = in_turns(&["h0"], 4);
    assert!(assign_standbys(&alone, &tasks(4), 2)["h0"].is_empty());
    let both = in_turns(&["h0", "h1"], 4);
    let assignment = assign_standbys(&both, &tasks(4), 1);
    assert_eq!(assignment["h0"], both.hosts["h1"].active);
    assert_eq!(assignment["h1"], both.hosts["h0"].active);
    assert!(assign_standbys(&both, &tasks(4), 0).values().all(BTreeSet::is_empty));
}

#[test]
fn every_assignment_is_complete_apart_from_the_active_and_even() {
    let mut seed = Seed::new(11);
    for round in 0..500 {
        let (hosts, count, replicas) = (1 + seed.below(7) as usize, seed.below(40) as i32, seed.below(4) as usize);
        let view = at_random(&mut seed, hosts, count);
        let assignment = assign_standbys(&view, &tasks(count), replicas);
        let context = format!("round {round}: {hosts} hosts, {count} tasks, {replicas} replicas: {assignment:?}");
        assert_eq!(assignment, assign_standbys(&view, &tasks(count), replicas), "{context}");
        for task in tasks(count) {
            let keepers = assignment.iter().filter(|(_, kept)| kept.contains(&task));
            let keepers: Vec<&String> = keepers.map(|(host, _)| host).collect();
            let others = hosts - usize::from(view.active_host(task).is_some());
            assert_eq!(keepers.len(), replicas.min(others), "{task}, {context}");
            assert!(keepers.iter().all(|host| Some(host.as_str()) != view.active_host(task)), "{task}, {context}");
        }
        // Nobody could hand a task to a host with two fewer.
        for (host, kept) in &assignment {
            for (other, fewer) in assignment.iter().filter(|(_, fewer)| fewer.len() + 2 <= kept.len()) {
                let movable = |task: &&TaskId| !fewer.contains(task) && !view.hosts[other].active.contains(task);
                assert_eq!(kept.iter().find(movable), None, "{host} to {other}, {context}");
            }
        }
    }
}

#[test]
fn an_even_group_keeps_an_even_number_of_standbys() {
    for hosts in 2..6 {
        let names: Vec<String> = (0..hosts).map(|host| format!("{host}{host}abc")).collect();
        let view = in_turns(&names.iter().map(String::as_str).collect::<Vec<_>>(), 64);
        let assignment = assign_standbys(&view, &tasks(64), 1);
        let loads: Vec<usize> = assignment.values().map(BTreeSet::len).collect();
        let (least, most) = (loads.iter().min().expect("hosts"), loads.iter().max().expect("hosts"));
        assert!(most - least <= 1, "{loads:?}");
    }
}

#[test]
fn the_order_of_members_is_without_meaning_and_other_tasks_stay_when_one_moves() {
    let mut view = in_turns(&["a1", "b2", "c3", "d4"], 40);
    let before = assign_standbys(&view, &tasks(40), 1);
    // One active task moves to another host.
    let task = TaskId { sub_topology: 0, partition: 0 };
    assert_eq!(view.active_host(task), Some("a1"));
    for to in ["b2", "c3", "d4"] {
        for (id, host) in &mut view.hosts {
            if id == to {
                host.active.insert(task)
            } else {
                host.active.remove(&task)
            };
        }
        let after = assign_standbys(&view, &tasks(40), 1);
        assert!(moved(&before, &after) <= 4, "{} standbys moved with {task} to {to}", moved(&before, &after));
    }
}

#[test]
fn few_standbys_move_when_a_host_comes_or_goes() {
    let count = 120;
    let names = ["a01", "b02", "c03", "d04", "e05", "f06"];
    for hosts in 3..names.len() {
        // The active tasks stay where they are, apart from those that must move.
        let fewer = in_turns(&names[..hosts], count);
        let mut more = fewer.clone();
        let newcomer = names[hosts];
        more.hosts.insert(newcomer.to_owned(), HostView::default());
        let share = count as usize / (hosts + 1);
        for (index, name) in names[..hosts].iter().enumerate() {
            let gives = share / hosts + usize::from(index < share % hosts);
            let given: Vec<TaskId> = more.hosts[*name].active.iter().copied().take(gives).collect();
            for task in given {
                more.hosts.get_mut(*name).expect("a host").active.remove(&task);
                more.hosts.get_mut(newcomer).expect("a host").active.insert(task);
            }
        }
        let (before, after) = (assign_standbys(&fewer, &tasks(count), 1), assign_standbys(&more, &tasks(count), 1));
        // The newcomer's share must move; evening out moves some more.
        let limit = 2 * share;
        assert!(moved(&before, &after) <= limit, "{hosts} hosts: {} moved in, limit {limit}", moved(&before, &after));
        assert!(moved(&after, &before) <= limit, "{hosts} hosts: {} moved out", moved(&after, &before));
    }
}
