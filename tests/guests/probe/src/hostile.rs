//! Commands that use too much: time, memory, stack, host calls, output, log lines, schedules.

use std::hint::black_box;

use sandbar::bindings::sandbar::processor::types::{NullableColumns, Outcome, OutputBatch, Refusal};
use sandbar::bindings::sandbar::processor::{context, log};

use crate::{answer, output};

pub fn run(command: &str, argument: &str) -> Option<Result<Outcome, String>> {
    let number = || argument.parse::<usize>().unwrap_or(0);
    Some(match command {
        "loop" => loop {
            black_box(0);
        },
        "work" => {
            // Innocent, and its time is known: some tens of milliseconds for each million.
            let mixed = (0..number() as u64 * 16).fold(1_u64, |hash, part| (hash ^ black_box(part)).wrapping_mul(31));
            Ok(answer(&mixed.to_string()))
        }
        "fill" => loop {
            // One instruction that runs long: the deadline is looked at between two of them.
            black_box(vec![1_u8; number()]);
        },
        "grow" => {
            let mut kept = Vec::new();
            loop {
                kept.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        "recurse" => Ok(answer(&recurse(0).to_string())),
        "recurse-small" => Ok(answer(&recurse_small(number() as u64).to_string())),
        "panic" => panic!("a panic with \x1b[31mcolour and\na second line: {argument}"),
        "host-calls" => loop {
            black_box(context::wall_clock_time());
        },
        "log" => {
            log::log(log::Level::Info, argument);
            Ok(answer("logged"))
        }
        "log-flood" => {
            (0..number()).for_each(|line| log::log(log::Level::Warn, &format!("line {line}")));
            Ok(answer("logged"))
        }
        "log-huge" => {
            log::log(log::Level::Info, &"x".repeat(number()));
            Ok(answer("logged"))
        }
        "output-bytes" => Ok(Outcome { outputs: output(vec![b'x'; number()]), refused: Vec::new() }),
        "output-records" => Ok(many_records(number())),
        _ => return schedules(command, argument),
    })
}

/// Commands on schedules.
fn schedules(command: &str, argument: &str) -> Option<Result<Outcome, String>> {
    let number = || argument.parse::<usize>().unwrap_or(0);
    Some(match command {
        "schedule" => {
            let id = context::schedule(number() as u64, context::PunctuationType::StreamTime);
            Ok(answer(&format!("schedule {id}")))
        }
        "schedule-and-fail" => {
            context::schedule(1, context::PunctuationType::WallClockTime);
            Err("after a schedule".to_owned())
        }
        "schedules" => {
            (0..number()).for_each(|_| _ = context::schedule(1, context::PunctuationType::WallClockTime));
            Ok(answer("scheduled"))
        }
        "cancel-and" => {
            // All schedules that there may be; then in the way that the argument says.
            (0..1_000).for_each(context::cancel);
            let refused = vec![Refusal { index: 0, reason: "after all".to_owned() }];
            match argument {
                "fail" => Err("after all".to_owned()),
                "refuse" => Ok(Outcome { refused, ..Outcome::default() }),
                _ => Ok(answer("cancelled")),
            }
        }
        "schedule-cancel" => {
            for _ in 0..number() {
                context::cancel(context::schedule(1, context::PunctuationType::StreamTime));
            }
            Ok(answer("cancelled"))
        }
        _ => return None,
    })
}

/// With a frame in the guest's memory, where its own stack overflows first.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    // The black boxes keep the compiler from making a loop of it.
    let frame = black_box([depth; 32]);
    black_box(recurse(depth + 1)) + frame[(depth % 32) as usize]
}

/// Without a frame in memory: only the host's stack holds it.
fn recurse_small(depth: u64) -> u64 {
    if depth == u64::MAX { 0 } else { recurse_small(depth + 1).wrapping_mul(3) ^ depth }
}

fn many_records(records: usize) -> Outcome {
    let column = || NullableColumns { bytes: Vec::new(), ends: vec![0; records], nulls: Vec::new() };
    let outputs =
        OutputBatch { timestamps: vec![0; records], keys: column(), values: column(), ..OutputBatch::default() };
    Outcome { outputs, refused: Vec::new() }
}
