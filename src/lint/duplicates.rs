//! Images that are there more than once: byte for byte, or to the eye.
use crate::augment::image::perceptual_hash::PerceptualHash;

/// Hashes with more near neighbours in one band than this are compared with that many only.
const LARGEST_BAND_RUN: usize = 20_000;
/// More bits would mean bands of fewer than eight bits, in which everything meets everything.
pub const MOST_NEAR_BITS: u32 = 7;

/// A sample that repeats an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repeat {
    /// The later one.
    pub sample_id: u64,
    /// The earliest one that it repeats, or the nearest.
    pub of: u64,
    /// Bits in which their hashes differ; 0 for exact ones.
    pub bits: u32,
}

/// Samples with equal hashes: each but the first repeats the first. `rows` are `(hash of the bytes, sample_id)`.
pub fn exact(rows: &mut [(u64, u64)]) -> Vec<Repeat> {
    rows.sort_unstable();
    let mut repeats: Vec<Repeat> = rows
        .chunk_by(|a, b| a.0 == b.0)
        .flat_map(|same| same[1..].iter().map(|&(_, sample_id)| Repeat { sample_id, of: same[0].1, bits: 0 }))
        .collect();
    repeats.sort_unstable();
    repeats
}

/// Near duplicates and whether the search left anything out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Near {
    /// By sample.
    pub repeats: Vec<Repeat>,
    /// Bands of hashes so common that not every pair was compared.
    pub bands_cut: u64,
}

/// Samples whose hashes differ in at most `bits` bits, each with the nearest earlier one. `rows` are `(hash, sample_id)`.
///
/// Hashes are cut into `bits + 1` bands: two that differ in at most `bits` bits agree in one of them (pigeonhole), so only
/// hashes that share a band are compared. Within 3 bits, n hashes cost about n²/16,384 comparisons.
pub fn near(rows: &mut [(PerceptualHash, u64)], bits: u32) -> Near {
    rows.sort_unstable();
    // One per hash, with its earliest sample; the others repeat that at distance 0.
    let mut repeats = vec![];
    let mut firsts: Vec<(PerceptualHash, u64)> = vec![];
    for same in rows.chunk_by(|a, b| a.0 == b.0) {
        firsts.push(same[0]);
        repeats.extend(same[1..].iter().map(|&(_, sample_id)| Repeat { sample_id, of: same[0].1, bits: 0 }));
    }
    let bands = bits.min(MOST_NEAR_BITS) + 1;
    let width = 64 / bands;
    let mut nearest: Vec<Option<(u32, u64)>> = vec![None; firsts.len()];
    let mut bands_cut = 0;
    let mut order: Vec<u32> = (0..firsts.len() as u32).collect();
    for band in 0..bands {
        // The last band takes the bits that are left over.
        let mask = if band + 1 == bands { u64::MAX } else { (1 << width) - 1 };
        let key = |at: u32| (firsts[at as usize].0.0 >> (band * width)) & mask;
        order.sort_unstable_by_key(|&at| (key(at), at));
        for run in order.chunk_by(|&a, &b| key(a) == key(b)) {
            bands_cut += u64::from(run.len() > LARGEST_BAND_RUN);
            for (position, &a) in run.iter().enumerate() {
                for &b in run[position + 1..].iter().take(LARGEST_BAND_RUN) {
                    let ((hash_a, id_a), (hash_b, id_b)) = (firsts[a as usize], firsts[b as usize]);
                    let distance = hash_a.distance(hash_b);
                    if distance > bits {
                        continue;
                    }
                    let (later, earlier) = if id_a > id_b { (a, id_b) } else { (b, id_a) };
                    let slot = &mut nearest[later as usize];
                    if slot.is_none_or(|known| (distance, earlier) < known) {
                        *slot = Some((distance, earlier));
                    }
                }
            }
        }
    }
    let found = firsts.iter().zip(nearest);
    repeats.extend(found.filter_map(|(&(_, sample_id), near)| near.map(|(bits, of)| Repeat { sample_id, of, bits })));
    repeats.sort_unstable();
    Near { repeats, bands_cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::draws;

    #[test]
    fn equal_bytes_repeat_the_first() {
        let mut rows = [(7, 30), (9, 10), (7, 20), (7, 5)];
        let expected = [Repeat { sample_id: 20, of: 5, bits: 0 }, Repeat { sample_id: 30, of: 5, bits: 0 }];
        assert_eq!(exact(&mut rows), expected);
    }

    #[test]
    fn bands_find_what_comparing_all_pairs_finds() {
        let mut draws = draws(3, "near duplicates", &[]);
        let mut hashes: Vec<u64> = (0..150).map(|_| draws.next_u64()).collect();
        for at in 0..150 {
            let changed = (0..draws.below(6)).fold(hashes[at], |hash, _| hash ^ 1 << draws.below(64));
            hashes.push(changed);
        }
        for bits in [0, 1, 3, 5, 7] {
            let mut rows: Vec<_> = hashes.iter().zip(0..).map(|(&hash, id)| (PerceptualHash(hash), id)).collect();
            let found: Vec<u64> = near(&mut rows, bits).repeats.iter().map(|repeat| repeat.sample_id).collect();
            let is_near = |at: &usize| (0..*at).any(|before| (hashes[*at] ^ hashes[before]).count_ones() <= bits);
            let expected: Vec<u64> = (0..hashes.len()).filter(is_near).map(|at| at as u64).collect();
            assert_eq!(found, expected, "{bits} bits");
        }
    }
}
