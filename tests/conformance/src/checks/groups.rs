//! Groups of the classic protocol, with members that are processes: shared, left, killed, static, stale; and groups
//! seen from outside.

use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::error::RDKafkaErrorCode as Code;

use crate::check::{Context, Outcome};
use crate::client::{self, PATIENCE, expect_equal, expect_refused, wait_until};
use crate::member::{Member, wait_for_shares};
use crate::raw;

/// Joins and leaves.
const SOON: Duration = Duration::from_secs(15);

/// The members' session timeout, and what a loaded machine may add to it.
const SESSION: Duration = Duration::from_secs(6);
const LATE: Duration = Duration::from_secs(12);

fn member(check: &Context, group: &str, topic: &str, settings: &[(&str, &str)]) -> Result<Member> {
    Member::start(check.bootstrap(), group, topic, settings)
}

/// Two members share four partitions, a third comes and leaves, one is killed.
fn life(check: &Context, assignor: &str) -> Outcome {
    let (topic, group) = (check.topic(4, &[])?, check.name("group"));
    let settings = [("partition.assignment.strategy", assignor)];
    let mut first = member(check, &group, &topic, &settings)?;
    wait_for_shares(&mut [&mut first], &[4], SOON)?;
    let mut second = member(check, &group, &topic, &settings)?;
    wait_for_shares(&mut [&mut first, &mut second], &[2, 2], SOON)?;
    let mut third = member(check, &group, &topic, &settings)?;
    wait_for_shares(&mut [&mut first, &mut second, &mut third], &[2, 1, 1], SOON)?;
    third.leave()?;
    let left = wait_for_shares(&mut [&mut first, &mut second], &[2, 2], SOON)?;
    if left > SESSION {
        bail!("expected a member's leaving to be noticed at once, found {left:?}");
    }
    second.kill()?;
    let killed = wait_for_shares(&mut [&mut first], &[4], SESSION + LATE)?;
    if killed < SESSION - Duration::from_secs(2) {
        bail!("expected a killed member to be missed after {SESSION:?}, found its partitions moved after {killed:?}");
    }
    Ok(())
}

pub fn cooperative(check: &Context) -> Outcome {
    life(check, "cooperative-sticky")
}

pub fn eager_range(check: &Context) -> Outcome {
    life(check, "range")
}

pub fn eager_roundrobin(check: &Context) -> Outcome {
    life(check, "roundrobin")
}

pub fn all_records_once(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(4, &[])?, check.name("group"));
    let mut members = [member(check, &group, &topic, &[])?, member(check, &group, &topic, &[])?];
    let [first, second] = &mut members;
    wait_for_shares(&mut [first, second], &[2, 2], SOON)?;
    let sender = check.sender(&[])?;
    for partition in 0..4 {
        sender.put_numbers(&topic, partition, 0, 100)?;
    }
    sender.flush()?;
    wait_until("400 records in the group", PATIENCE, || {
        let mut records = Vec::new();
        for member in &mut members {
            member.assigned()?;
            records.extend(member.records.iter().copied());
        }
        let read = records.len();
        records.sort_unstable();
        records.dedup();
        Ok(if (read, records.len()) == (400, 400) {
            Ok(())
        } else {
            Err(format!("{read}, {} distinct", records.len()))
        })
    })
}

pub fn new_partitions(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(2, &[])?, check.name("group"));
    let settings = [("topic.metadata.refresh.interval.ms", "500")];
    let mut first = member(check, &group, &topic, &settings)?;
    let mut second = member(check, &group, &topic, &settings)?;
    wait_for_shares(&mut [&mut first, &mut second], &[1, 1], SOON)?;
    check.clients.create_partitions(&topic, 6)?;
    wait_for_shares(&mut [&mut first, &mut second], &[3, 3], SOON).map(drop)
}

pub fn static_membership(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(4, &[])?, check.name("group"));
    let mut first = member(check, &group, &topic, &[("group.instance.id", "one")])?;
    let mut second = member(check, &group, &topic, &[("group.instance.id", "two")])?;
    wait_for_shares(&mut [&mut first, &mut second], &[2, 2], SOON)?;
    let had = second.assigned()?.to_vec();
    let generation = first.membership()?.generation;
    second.kill()?;
    let mut again = member(check, &group, &topic, &[("group.instance.id", "two")])?;
    wait_for_shares(&mut [&mut first, &mut again], &[2, 2], SESSION - Duration::from_secs(1))?;
    expect_equal("partitions after the return", had, again.assigned()?.to_vec())?;
    expect_equal("the generation", generation, first.membership()?.generation)?;
    expect_equal("the generation of the one that returned", generation, again.membership()?.generation)
}

pub fn static_fenced(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(2, &[])?, check.name("group"));
    let mut first = member(check, &group, &topic, &[("group.instance.id", "one")])?;
    wait_for_shares(&mut [&mut first], &[2], SOON)?;
    let mut second = member(check, &group, &topic, &[("group.instance.id", "one")])?;
    wait_for_shares(&mut [&mut second], &[2], SOON)?;
    wait_until("the older instance is fenced", SOON, || {
        // It is told by the answer to its commit, or has ended with that as its fatal error.
        let told = first.ask("commit 0 1").unwrap_or_else(|error| format!("{error:#}"));
        Ok(if told.contains("Fenced") || told.contains("Fatal") { Ok(()) } else { Err(told) })
    })?;
    expect_equal("commit of the newer instance", "done".to_owned(), second.ask("commit 0 1")?)
}

/// A member that was frozen for longer than its session comes back and is refused.
pub fn stale_member(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(2, &[])?, check.name("group"));
    let mut first = member(check, &group, &topic, &[])?;
    wait_for_shares(&mut [&mut first], &[2], SOON)?;
    expect_equal("commit of a member", "done".to_owned(), first.ask("commit 0 1")?)?;
    let old = first.membership()?;
    first.freeze()?;
    let mut second = member(check, &group, &topic, &[])?;
    wait_for_shares(&mut [&mut second], &[2], SESSION + LATE)?;
    let now = second.membership()?;
    expect_equal("a later generation", true, now.generation > old.generation)?;
    expect_equal("commit of the new owner", "done".to_owned(), second.ask("commit 0 10")?)?;
    first.thaw()?;
    let reply = first.ask("commit 0 5")?;
    expect_equal("the stale member's commit is refused", true, reply.starts_with("refused"))?;
    expect_equal("committed offset", vec![10, -1001], check.clients.committed(&group, &topic, 2)?)
}

pub fn described(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(4, &[])?, check.name("group"));
    let missing = raw::describe_group(check.clients.native(), &check.name("missing"));
    let dead = missing.map(|group| group.state);
    // Kafka 4 says that there is none; a broker that speaks the older version calls it dead.
    if !matches!(dead.as_deref(), Ok("Dead") | Err(Code::GroupIdNotFound)) {
        bail!("a group that is not there: expected state Dead or GroupIdNotFound, found {dead:?}");
    }
    let settings = |name: &'static str| [("client.id", name), ("partition.assignment.strategy", "range")];
    let mut first = member(check, &group, &topic, &settings("first"))?;
    let mut second = member(check, &group, &topic, &settings("second"))?;
    wait_for_shares(&mut [&mut first, &mut second], &[2, 2], SOON)?;
    let found = raw::describe_group(check.clients.native(), &group)?;
    let mut clients: Vec<&str> = found.members.iter().map(|(client, _)| client.as_str()).collect();
    clients.sort_unstable();
    expect_equal("state", "Stable", found.state.as_str())?;
    expect_equal("assignor", "range", found.assignor.as_str())?;
    expect_equal("clients", vec!["first", "second"], clients)?;
    let listed = raw::list_groups(check.clients.native())?;
    expect_equal("listed", true, listed.contains(&(group.clone(), "Stable".to_owned())))?;
    first.leave()?;
    second.leave()?;
    wait_until("the group is empty", SOON, || {
        let state = raw::describe_group(check.clients.native(), &group)?.state;
        Ok(if state == "Empty" { Ok(()) } else { Err(state) })
    })
}

fn delete(check: &Context, group: &str) -> Result<()> {
    let results = client::block_on(check.clients.admin().delete_groups(&[group], &client::Clients::options()))??;
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err((_, code))) => Err(code.into()),
        None => bail!("delete groups gave no result"),
    }
}

pub fn deleted(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(2, &[])?, check.name("group"));
    expect_refused(
        "delete a group that is not there",
        delete(check, &check.name("missing")),
        &[Code::GroupIdNotFound],
    )?;
    let mut first = member(check, &group, &topic, &[])?;
    wait_for_shares(&mut [&mut first], &[2], SOON)?;
    expect_equal("commit", "done".to_owned(), first.ask("commit 0 7")?)?;
    expect_refused("delete a group with a member", delete(check, &group), &[Code::NonEmptyGroup])?;
    let outside = raw::alter_group_offsets(check.clients.native(), &group, &client::offsets(&topic, &[(0, 1)])?);
    expect_refused(
        "offsets set from outside while a member is there",
        outside.map_err(Into::into),
        &[Code::UnknownMemberId],
    )?;
    first.leave()?;
    delete(check, &group)?;
    let listed = raw::list_groups(check.clients.native())?;
    expect_equal("listed", false, listed.iter().any(|(name, _)| *name == group))?;
    expect_equal("committed offset", vec![-1001, -1001], check.clients.committed(&group, &topic, 2)?)
}

pub fn offsets_deleted(check: &Context) -> Outcome {
    let (topic, group) = (check.topic(2, &[])?, check.name("group"));
    let mut first = member(check, &group, &topic, &[])?;
    wait_for_shares(&mut [&mut first], &[2], SOON)?;
    expect_equal("commit", "done".to_owned(), first.ask("commit 0 7")?)?;
    expect_equal("commit", "done".to_owned(), first.ask("commit 1 8")?)?;
    let one = client::offsets(&topic, &[(0, -1001)])?;
    let delete = || raw::delete_group_offsets(check.clients.native(), &group, &one).map_err(Into::into);
    expect_refused("delete offsets of a topic that is subscribed to", delete(), &[Code::GroupSubscribedToTopic])?;
    first.leave()?;
    delete()?;
    expect_equal("committed offsets", vec![-1001, 8], check.clients.committed(&group, &topic, 2)?)
}
