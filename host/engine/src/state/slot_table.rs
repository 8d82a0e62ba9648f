//! A hash index from keys to the slots of a slab that owns the keys. Deterministic: the same calls give the same
//! slots in every process. Never holds a key of its own, never iterates, never shrinks below its initial size.

/// "No slot", in places where an `Option` would double the size.
pub(super) const NO_SLOT: u32 = u32::MAX;

const INITIAL_BUCKETS: usize = 16;

/// One bucket: the hash and the slot, `NO_SLOT` where it is empty.
#[derive(Clone, Copy)]
struct Bucket {
    hash: u32,
    slot: u32,
}

const EMPTY: Bucket = Bucket { hash: 0, slot: NO_SLOT };

/// Open addressing with linear probing and backward-shift deletion, at most three quarters full. A bucket keeps the
/// hash, so growing and deleting never touch a key.
pub(super) struct SlotTable {
    buckets: Vec<Bucket>,
    len: usize,
}

impl SlotTable {
    pub(super) fn new() -> Self {
        Self { buckets: vec![EMPTY; INITIAL_BUCKETS], len: 0 }
    }

    fn mask(&self) -> usize {
        self.buckets.len() - 1
    }

    /// The slot with this hash for which `equal` holds, or `NO_SLOT`.
    pub(super) fn find(&self, hash: u32, mut equal: impl FnMut(u32) -> bool) -> u32 {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        loop {
            let bucket = self.buckets[at];
            if bucket.slot == NO_SLOT {
                return NO_SLOT;
            }
            if bucket.hash == hash && equal(bucket.slot) {
                return bucket.slot;
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a slot whose key is not in the table.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        if (self.len + 1) * 4 > self.buckets.len() * 3 {
            self.grow();
        }
        self.place(Bucket { hash, slot });
        self.len += 1;
    }

    /// Removes a slot that is in the table.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let mask = self.mask();
        let mut at = hash as usize & mask;
        while self.buckets[at].slot != slot {
            if self.buckets[at].slot == NO_SLOT {
                debug_assert!(false, "slot {slot} is not in the table");
                return;
            }
            at = (at + 1) & mask;
        }
        self.len -= 1;
        let mut hole = at;
        loop {
            at = (at + 1) & mask;
            let bucket = self.buckets[at];
            if bucket.slot == NO_SLOT {
                break;
            }
            // A bucket may move into the hole only when its home does not lie between the hole and itself.
            let home = bucket.hash as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.buckets[hole] = bucket;
                hole = at;
            }
        }
        self.buckets[hole] = EMPTY;
    }

    fn place(&mut self, bucket: Bucket) {
        let mask = self.mask();
        let mut at = bucket.hash as usize & mask;
        while self.buckets[at].slot != NO_SLOT {
            at = (at + 1) & mask;
        }
        self.buckets[at] = bucket;
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.buckets.len() * 2];
        let old = std::mem::replace(&mut self.buckets, doubled);
        for bucket in old.into_iter().filter(|bucket| bucket.slot != NO_SLOT) {
            self.place(bucket);
        }
    }
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const FINISH: u64 = 0xd6e8_feb8_6659_fd93;

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

fn word(bytes: &[u8]) -> u64 {
    let mut buffer = [0; 8];
    buffer[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(buffer)
}

/// Hashes a key with folded multiplication. The state is fixed, because a run must be repeatable; a processor that
/// chooses keys which collide slows down its own task only.
pub(super) fn hash(key: &[u8]) -> u32 {
    let mut state = MIX ^ key.len() as u64;
    let mut chunks = key.chunks_exact(16);
    for chunk in &mut chunks {
        let (low, high) = chunk.split_at(8);
        state = fold(word(low) ^ state, word(high) ^ MIX).wrapping_add(state);
    }
    let rest = chunks.remainder();
    let (low, high) = rest.split_at(rest.len().min(8));
    state = fold(word(low) ^ state, word(high) ^ MIX).wrapping_add(state);
    let finished = fold(state ^ FINISH, FINISH);
    (finished ^ (finished >> 32)) as u32
}

#[cfg(test)]
mod tests;
