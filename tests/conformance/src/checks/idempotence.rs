//! The idempotent producer: whatever is sent again after a fault is in the log once, in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::message::Message;

use crate::broker::Broker;
use crate::check::{After, Context, Outcome};
use crate::client::{self, Isolation, Sender, expect_equal};

const IDEMPOTENT: [(&str, &str); 4] = [
    ("enable.idempotence", "true"),
    ("socket.timeout.ms", "1000"),
    ("message.timeout.ms", "300000"),
    ("linger.ms", "1"),
];

/// Partition 0 holds the numbers from 0 to `count`, once each and in order.
fn expect_numbers(check: &Context, topic: &str, count: usize) -> Outcome {
    let found = client::values(&check.clients.read(topic, Isolation::Committed)?);
    let differs = found.iter().enumerate().find(|(number, value)| **value != number.to_string());
    expect_equal("the first record that differs", None, differs)?;
    expect_equal("records", count, found.len())
}

pub fn plain(check: &Context) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&IDEMPOTENT)?;
    sender.put_numbers(&topic, 0, 0, 50_000)?;
    sender.flush()?;
    expect_numbers(check, &topic, 50_000)
}

/// Sends numbers until told to stop, and gives their count.
fn send_until(sender: &Sender, topic: &str, stop: &AtomicBool) -> Result<usize> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        sender.put(topic, 0, &number.to_string())?;
        number += 1;
        if number % 10 == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    Ok(number)
}

/// Faults while a producer sends; afterwards everything must be there once.
fn during(check: &Context, faults: impl FnOnce() -> Outcome) -> Outcome {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&IDEMPOTENT)?;
    let stop = AtomicBool::new(false);
    let (sent, faults) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send_until(&sender, &topic, &stop));
        std::thread::sleep(Duration::from_millis(300));
        let faults = faults();
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        (sending.join(), faults)
    });
    faults?;
    let sent = sent.map_err(|_| anyhow::anyhow!("the sending thread panicked"))??;
    sender.flush().context("after the faults")?;
    expect_numbers(check, &topic, sent)
}

/// The frozen broker has taken requests that the client gives up and sends again on a new connection: when it thaws it
/// sees both.
pub fn broker_frozen(check: &Context, broker: &Broker) -> Outcome {
    during(check, || {
        for _ in 0..2 {
            broker.signal("STOP")?;
            std::thread::sleep(Duration::from_millis(2_500));
            broker.signal("CONT")?;
            std::thread::sleep(Duration::from_millis(700));
        }
        Ok(())
    })
}

pub fn broker_killed(check: &Context, broker: &Broker) -> Outcome {
    during(check, || {
        broker.kill()?;
        broker.start_again()?;
        check.clients.wait_for_broker()
    })
}

pub fn across_restart(check: &Context) -> Result<After> {
    let topic = check.topic(1, &[])?;
    let sender = check.sender(&IDEMPOTENT)?;
    sender.put_numbers(&topic, 0, 0, 1_000)?;
    sender.flush()?;
    Ok(Box::new(move |check| {
        sender.put_numbers(&topic, 0, 1_000, 1_000)?;
        sender.flush()?;
        expect_numbers(check, &topic, 2_000)?;
        let last = check.clients.read(&topic, Isolation::Committed)?.last().map(Message::offset);
        expect_equal("last offset", Some(1_999), last)
    }))
}
