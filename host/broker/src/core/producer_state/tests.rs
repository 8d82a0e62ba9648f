//! Sequences: repeated batches, gaps, epochs, the width of the window.

use super::*;
use crate::core::batch::build::{NewRecord, ProducerStamp, batch_of};

fn header(epoch: i16, base_sequence: i32, count: usize) -> BatchHeader {
    let records = vec![NewRecord::default(); count];
    let stamp = ProducerStamp { producer_id: 9, epoch, base_sequence, transactional: false };
    BatchHeader::read(&batch_of(Some(stamp), &records)).unwrap()
}

fn states(batches: &[(i16, i32, usize)]) -> ProducerStates {
    let mut states = ProducerStates::default();
    let mut offset = 100;
    for &(epoch, sequence, count) in batches {
        let header = header(epoch, sequence, count);
        assert_eq!(states.check(&header), Ok(SequenceCheck::Append), "{sequence}");
        states.note(&header, offset, 0, None);
        offset += count as i64;
    }
    states
}

#[test]
fn the_last_five_batches_are_answered_with_their_offsets() {
    let states = states(&[(0, 0, 2), (0, 2, 1), (0, 3, 1), (0, 4, 1), (0, 5, 1), (0, 6, 1)]);
    for (sequence, offset) in [(2, 102), (3, 103), (4, 104), (5, 105), (6, 106)] {
        match states.check(&header(0, sequence, 1)) {
            Ok(SequenceCheck::Duplicate(place)) => assert_eq!(place.base_offset, offset),
            other => panic!("sequence {sequence}: {other:?}"),
        }
    }
    // Older than the window, and a batch that only begins like one of it.
    assert_eq!(states.check(&header(0, 0, 2)).unwrap_err().code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(states.check(&header(0, 5, 2)).unwrap_err().code, ErrorCode::OutOfOrderSequenceNumber);
}

#[test]
fn a_gap_is_refused_and_says_what_was_expected() {
    let states = states(&[(0, 0, 3)]);
    let refusal = states.check(&header(0, 4, 1)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::OutOfOrderSequenceNumber);
    assert!(refusal.detail.contains("expected sequence 3, found 4"), "{refusal}");
}

#[test]
fn an_older_epoch_is_fenced_and_a_newer_one_begins_at_zero() {
    let states = states(&[(3, 0, 1)]);
    assert_eq!(states.check(&header(2, 1, 1)).unwrap_err().code, ErrorCode::InvalidProducerEpoch);
    assert_eq!(states.check(&header(4, 1, 1)).unwrap_err().code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(states.check(&header(4, 0, 1)), Ok(SequenceCheck::Append));
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    assert_eq!(ProducerStates::default().check(&header(0, 17, 1)), Ok(SequenceCheck::Append));
}

#[test]
fn sequences_wrap_inside_the_window() {
    let states = states(&[(0, i32::MAX - 1, 3)]);
    assert_eq!(states.check(&header(0, 1, 1)), Ok(SequenceCheck::Append));
    assert_eq!(states.check(&header(0, 2, 1)).unwrap_err().code, ErrorCode::OutOfOrderSequenceNumber);
}

#[test]
fn silent_producers_are_forgotten() {
    let mut states = states(&[(0, 0, 1)]);
    states.expire(10, 10);
    assert_eq!(states.entries().count(), 1);
    states.expire(11, 10);
    assert_eq!(states.entries().count(), 0);
}

#[test]
fn a_producer_known_from_the_log_alone_counts_as_writing_when_the_clock_is_first_seen() {
    let mut states = ProducerStates::default();
    states.note(&header(0, 0, 1), 0, UNKNOWN_MS, None);
    states.expire(1_000_000, 10);
    states.expire(1_000_010, 10);
    assert_eq!(states.entries().count(), 1);
    states.expire(1_000_011, 10);
    assert_eq!(states.entries().count(), 0);
}
