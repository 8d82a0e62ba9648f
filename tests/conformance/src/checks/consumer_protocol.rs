//! Groups of the protocol of KIP-848 (`group.protocol=consumer`): the broker assigns.

use std::time::Duration;

use anyhow::Result;

use crate::check::{Context, Outcome};
use crate::client::expect_equal;
use crate::member::{Member, wait_for_shares};

/// A member asks at its heartbeat what it has, so a balance takes some of them.
const BALANCE: Duration = Duration::from_secs(12);

fn two_members(check: &Context) -> Result<(Member, Member)> {
    let (topic, group) = (check.topic(4, &[])?, check.name("group"));
    let start = || Member::start(check.bootstrap(), &group, &topic, &[("group.protocol", "consumer")]);
    let (mut first, mut second) = (start()?, start()?);
    wait_for_shares(&mut [&mut first, &mut second], &[2, 2], BALANCE)?;
    Ok((first, second))
}

pub fn join_and_leave(check: &Context) -> Outcome {
    let (mut first, mut second) = two_members(check)?;
    let partition = second.assigned()?.first().copied().unwrap_or(-1);
    expect_equal("commit of an owner", "done".to_owned(), second.ask(&format!("commit {partition} 3"))?)?;
    second.leave()?;
    wait_for_shares(&mut [&mut first], &[4], BALANCE).map(drop)
}

pub fn kill(check: &Context) -> Outcome {
    let (mut first, second) = two_members(check)?;
    second.kill()?;
    wait_for_shares(&mut [&mut first], &[4], BALANCE + BALANCE).map(drop)
}
