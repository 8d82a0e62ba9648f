//! Damages bytes, from a seed: the same seed damages them in the same way. For the fuzz tests of what comes from
//! outside (requests, record batches, files).

/// A small generator; the numbers need no quality.
pub struct Numbers(u64);

impl Numbers {
    /// Any seed, 0 too.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`; 0 where there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Lengths that lie, in each form that the protocol has.
const LENGTHS: &[&[u8]] = &[
    &[0x7f, 0xff, 0xff, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0, 0, 0xff, 0xff],
    &[0, 1, 0, 0],
    &[0x7f, 0xff],
    &[0xff, 0xfe],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x04],
    &[0],
];

/// Damages `bytes` at or after `from`, in one to three ways; `other` is something else of the same kind.
pub fn mutate(numbers: &mut Numbers, bytes: &mut Vec<u8>, from: usize, other: &[u8]) {
    for _ in 0..1 + numbers.below(3) {
        let at = from + numbers.below(bytes.len().saturating_sub(from));
        let length = 1 + numbers.below(24);
        match numbers.below(8) {
            0 => {
                for _ in 0..1 + numbers.below(4) {
                    let at = from + numbers.below(bytes.len().saturating_sub(from));
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << numbers.below(8);
                    }
                }
            }
            1 => bytes.truncate(at),
            2 => {
                let start = numbers.below(other.len());
                let end = (start + length).min(other.len());
                let until = (at + numbers.below(24)).min(bytes.len());
                drop(bytes.splice(at.min(until)..until, other[start..end].iter().copied()));
            }
            3 | 4 => {
                let lie = LENGTHS[numbers.below(LENGTHS.len())];
                let until = (at + lie.len()).min(bytes.len());
                drop(bytes.splice(at.min(until)..until, lie.iter().copied()));
            }
            5 => {
                let end = (at + length).min(bytes.len());
                let repeated = bytes[at.min(end)..end].repeat(1 + numbers.below(40));
                drop(bytes.splice(at.min(end)..at.min(end), repeated));
            }
            6 => {
                let noise: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
                let at = at.min(bytes.len());
                drop(bytes.splice(at..at, noise));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = numbers.next() as u8;
                }
            }
        }
    }
}

/// Bytes as one can paste them.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
