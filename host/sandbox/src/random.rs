//! Randomness that repeats: a stream of numbers that depends only on its seed, so that a call that runs again sees the
//! same numbers (S9). Not for secrets; a guest's randomness is known to anyone who knows the record.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

/// FNV-1a over everything that identifies a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(u64);

impl Seed {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        Self(bytes.iter().fold(self.0, step)).number(bytes.len() as i64)
    }

    pub fn number(self, number: i64) -> Self {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(number.to_le_bytes().into_iter().fold(self.0, step))
    }
}

impl Random {
    pub fn new(seed: Seed) -> Self {
        Self { state: seed.0 }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let word = self.next_u64().to_le_bytes();
            bytes.extend_from_slice(&word[..word.len().min(length - bytes.len())]);
        }
        bytes
    }
}
