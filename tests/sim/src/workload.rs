//! The records of a run: each knows its topic, partition, place in the partition and amount. Amounts are chosen so
//! that the sum of a key tells how often each single record was counted in: record `n` of a key has `256^n`.

use engine::partitioner::partition_for_key;
use engine::record::Timestamp;
use engine::testing::Seed;

/// Most records of one key: as many as a sum has bytes.
pub const RECORDS_PER_KEY: usize = 16;

/// One record of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Index of the source topic.
    pub topic: u32,
    pub partition: i32,
    /// Its place among the records of its topic and partition; the offset too, since nothing else is written there.
    pub sequence: u32,
    pub key: Vec<u8>,
    /// Its place among the records of its key.
    pub index: usize,
    pub timestamp: Timestamp,
}

impl Input {
    pub fn amount(&self) -> u128 {
        1 << (8 * self.index)
    }

    /// The record's value: topic, sequence and amount.
    pub fn value(&self) -> Vec<u8> {
        encode_value(self.topic, self.sequence, self.amount())
    }
}

fn encode_value(topic: u32, sequence: u32, amount: u128) -> Vec<u8> {
    [&topic.to_be_bytes()[..], &sequence.to_be_bytes(), &amount.to_be_bytes()].concat()
}

/// Topic, sequence and amount of a record's value.
pub fn decode_value(value: &[u8]) -> Option<(u32, u32, u128)> {
    let (topic, rest) = value.split_first_chunk::<4>()?;
    let (sequence, amount) = rest.split_first_chunk::<4>()?;
    let amount = u128::from_be_bytes(amount.try_into().ok()?);
    Some((u32::from_be_bytes(*topic), u32::from_be_bytes(*sequence), amount))
}

/// How often each record of a key is in a sum, by its index.
pub fn multiplicities(sum: u128) -> [u8; RECORDS_PER_KEY] {
    sum.to_le_bytes()
}

/// The name of a source topic.
pub fn source_topic(topic: u32) -> String {
    format!("in-{topic}")
}

/// The whole workload, in the order in which it is produced.
pub fn generate(seed: &mut Seed, topics: u32, partitions: i32, records: usize, start: Timestamp) -> Vec<Input> {
    let mut next_sequence = vec![vec![0; partitions as usize]; topics as usize];
    // Keys of one topic, with how many records they have.
    let mut keys: Vec<Vec<(Vec<u8>, usize)>> = (0..topics).map(|topic| keys_of(topic, records)).collect();
    let mut inputs = Vec::with_capacity(records);
    for n in 0..records {
        let topic = seed.below(u64::from(topics)) as u32;
        let of_topic = &mut keys[topic as usize];
        let chosen = seed.below(of_topic.len() as u64) as usize;
        let (key, used) = &mut of_topic[chosen];
        let partition = partition_for_key(key, partitions);
        let sequence = &mut next_sequence[topic as usize][partition as usize];
        // Mostly ascending, as real event times are.
        let timestamp = start + 25 * n as Timestamp - seed.below(60) as Timestamp;
        let input = Input { topic, partition, sequence: *sequence, key: key.clone(), index: *used, timestamp };
        *sequence += 1;
        *used += 1;
        if *used == RECORDS_PER_KEY {
            of_topic.swap_remove(chosen);
        }
        inputs.push(input);
    }
    inputs
}

/// Enough keys for `records` records, should all of them go to this topic.
fn keys_of(topic: u32, records: usize) -> Vec<(Vec<u8>, usize)> {
    let count = records / 6 + RECORDS_PER_KEY;
    (0..count).map(|n| (format!("t{topic}k{n}").into_bytes(), 0)).collect()
}
