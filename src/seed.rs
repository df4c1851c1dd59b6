//! Randomness has a name, never a stream: every draw is a pure function of a [`DrawKey`].
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), with our own
//! conversions to floats and integers: distributions of general crates may change between versions, a run may not.

use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// One thing the order counts: a row of a shard, and which of its repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemKey {
    /// The first 16 bytes, little endian, of the shard's fingerprint: independent of paths and of other shards.
    pub shard: u128,
    /// Row within the shard.
    pub row: u64,
    /// 0 for the first time the row occurs in a selection, 1 for its first repeat, ….
    pub occurrence: u32,
}

/// The name of one random draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DrawKey<'a> {
    /// The run's seed.
    pub seed: u64,
    /// Pass over the item's source: the epoch where there is one source.
    pub pass: u64,
    /// Which item.
    pub item: ItemKey,
    /// Which view of it, from 0.
    pub view: u32,
    /// The op's name as a pipeline writes it, such as `horizontal_flip`.
    pub op: &'a str,
    /// 0 for the first op of that name in a recipe, 1 for the next.
    pub op_occurrence: u32,
}

impl DrawKey<'_> {
    /// The draws under this name, from the first.
    pub fn draws(&self) -> Draws {
        let mut bytes = [0_u8; 48];
        bytes[0..8].copy_from_slice(&self.seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.pass.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.item.shard.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.item.row.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.item.occurrence.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.view.to_le_bytes());
        Draws::from_parts(&[&bytes, self.op.as_bytes(), &self.op_occurrence.to_le_bytes()])
    }
}

/// Draws for a purpose that is no augmentation of an item: initial weights, the order of an epoch, a sample of labels.
///
/// `numbers` are whatever tells two draws of one purpose apart.
pub fn draws(seed: u64, purpose: &str, numbers: &[u64]) -> Draws {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    Draws::from_parts(&[&seed.to_le_bytes(), purpose.as_bytes(), &bytes])
}

/// An endless sequence of draws that share one key.
#[derive(Clone)]
pub struct Draws {
    key: [u32; 2],
    /// Low 64 bits count blocks, high 64 bits belong to the name.
    high: [u32; 2],
    block: u64,
    buffer: [u32; 4],
    used: usize,
}

impl fmt::Debug for Draws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draws").field("key", &self.key).field("block", &self.block).finish_non_exhaustive()
    }
}

impl Draws {
    fn from_parts(parts: &[&[u8]]) -> Self {
        // Lengths go in, so that no two lists of parts read the same.
        let mut bytes = Vec::with_capacity(96);
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        let hash = xxh3_128(&bytes);
        let word = |n: u32| (hash >> (32 * n)) as u32;
        Self { key: [word(0), word(1)], high: [word(2), word(3)], block: 0, buffer: [0; 4], used: 4 }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [self.block as u32, (self.block >> 32) as u32, self.high[0], self.high[1]];
            self.buffer = philox4x32_10(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    /// The next 64 random bits, low word first.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | (u64::from(self.next_u32()) << 32)
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform in [`low`, `high`); `low` where both are equal.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with this probability: never for 0, always for 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Uniform in 0..`bound` without bias (Lemire's multiply-and-reject); 0 for a bound of 0 or 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound < 2 {
            return 0;
        }
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Standard normal, by Box and Muller's transform with `libm`: the same bits on every machine.
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// The Philox4x32-10 block function: 128 counter bits and 64 key bits to 128 random bits.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: ItemKey = ItemKey { shard: 7, row: 3, occurrence: 0 };
    const KEY: DrawKey<'static> =
        DrawKey { seed: 1, pass: 2, item: ITEM, view: 0, op: "horizontal_flip", op_occurrence: 0 };

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let key = [0xa409_3822, 0x299f_31d0];
        assert_eq!(philox4x32_10(counter, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn every_part_of_the_name_changes_the_draws() {
        let base = KEY.draws().next_u64();
        let others = [
            DrawKey { seed: 2, ..KEY },
            DrawKey { pass: 3, ..KEY },
            DrawKey { item: ItemKey { shard: 8, ..ITEM }, ..KEY },
            DrawKey { item: ItemKey { row: 4, ..ITEM }, ..KEY },
            DrawKey { item: ItemKey { occurrence: 1, ..ITEM }, ..KEY },
            DrawKey { view: 1, ..KEY },
            DrawKey { op: "grayscale", ..KEY },
            DrawKey { op_occurrence: 1, ..KEY },
        ];
        for other in others {
            assert_ne!(other.draws().next_u64(), base, "{other:?}");
        }
        assert_eq!(KEY.draws().next_u64(), base);
    }

    #[test]
    fn uniform_below_and_normal_have_their_moments() {
        let mut draws = draws(0, "moments", &[]);
        let n = 200_000;
        let (mut sum, mut squares, mut uniform) = (0.0, 0.0, 0.0);
        let mut counts = [0_u32; 7];
        for _ in 0..n {
            let x = draws.normal();
            sum += x;
            squares += x * x;
            uniform += draws.uniform();
            counts[draws.below(7) as usize] += 1;
        }
        let n = f64::from(n);
        assert!((sum / n).abs() < 0.01 && (squares / n - 1.0).abs() < 0.02 && (uniform / n - 0.5).abs() < 0.005);
        assert!(counts.iter().all(|&c| (f64::from(c) / n - 1.0 / 7.0).abs() < 0.005), "{counts:?}");
    }

    #[test]
    fn shuffle_is_a_permutation_and_a_function_of_its_name() {
        let shuffled = |number| {
            let mut items: Vec<u32> = (0..100).collect();
            draws(5, "order", &[number]).shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(1), shuffled(1));
        assert_ne!(shuffled(1), shuffled(2));
        let mut sorted = shuffled(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
