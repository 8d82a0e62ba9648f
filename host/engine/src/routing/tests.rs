//! Routes come from the members' names alone, and say of every task who has it.

use super::*;
use crate::record::TopicPartition;
use crate::testing::topology;

fn member(client_id: &str, partitions: &[i32]) -> GroupMember {
    GroupMember {
        member_id: client_id.to_owned(),
        client_id: client_id.to_owned(),
        host: "/169.254.169.254".to_owned(),
        assigned: partitions.iter().map(|&at| TopicPartition::new("in", at)).collect(),
    }
}

fn task(partition: i32) -> TaskId {
    TaskId { sub_topology: 0, partition }
}

fn route(host_id: &str, endpoint: &str) -> Route {
    Route { host_id: host_id.to_owned(), endpoint: endpoint.to_owned() }
}

#[test]
fn every_task_has_the_host_whose_member_has_its_partition() {
    let members = [
        member("app-aa@10.0.0.1:7070-consumer-0", &[0]),
        member("app-aa@10.0.0.1:7070-consumer-1", &[2]),
        member("app-bb@10.0.0.2:7071-consumer-0", &[1]),
        member("kafka-ui", &[3]),
    ];
    let tasks: BTreeSet<TaskId> = (0..5).map(task).collect();
    let routes = Routes::of(&members, &topology(&["in"], &["counts"], &["out"]), &tasks, 1);
    let active = |partition: i32| routes.active(task(partition));
    assert_eq!(active(0), Some(route("aa", "10.0.0.1:7070")));
    assert_eq!(active(2), active(0));
    assert_eq!(active(1), Some(route("bb", "10.0.0.2:7071")));
    assert_eq!((active(3), active(4)), (None, None), "a stranger's address is not known, and nobody has the last one");
    assert_eq!(routes.standbys(task(0)).collect::<Vec<_>>(), [route("bb", "10.0.0.2:7071")]);
    assert_eq!(routes.standbys(task(1)).collect::<Vec<_>>(), [route("aa", "10.0.0.1:7070")]);
}

#[test]
fn without_replicas_nobody_keeps_anything_warm() {
    let members = [member("app-aa@h:1-consumer-0", &[0]), member("app-bb@h:2-consumer-0", &[1])];
    let tasks: BTreeSet<TaskId> = (0..2).map(task).collect();
    let routes = Routes::of(&members, &topology(&["in"], &["counts"], &["out"]), &tasks, 0);
    assert_eq!(routes.standbys(task(0)).count(), 0);
    assert_eq!(routes.instances.len(), 2);
}
