//! Weighted nearest neighbours on frozen features (Wu et al. 2018, arXiv 1805.01978; lightly's protocol).
//!
//! Features are L2-normalised; the k bank samples with the largest cosine vote for their class with weight
//! exp(cos / t). The class with the largest sum wins; of equal sums the lowest class. Of equal cosines the sample that
//! comes first in the bank is the nearer one, so the result is a function of the features alone.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::features::{Features, gather};
use crate::{
    Result,
    error::{Error, Stage},
};

/// Queries whose running neighbours are in memory at once.
const QUERY_BLOCK_ROWS: usize = 16_384;
/// Queries and bank samples of one tile of cosines: 512 × 4,096 floats are 8 MB.
const QUERY_TILE_ROWS: usize = 512;
const BANK_TILE_ROWS: usize = 4_096;

/// Rows of length 1; rows of zeros stay zeros, with cosine 0 to everything.
#[derive(Debug, Clone)]
pub struct UnitRows {
    values: Vec<f32>,
    width: usize,
}

impl UnitRows {
    /// L2-normalises every row.
    pub fn of(features: &Features) -> Self {
        let width = features.width.max(1);
        let mut values = features.values.clone();
        values.par_chunks_mut(width).for_each(|row| {
            let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            }
        });
        Self { values, width }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// These rows, in this order.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Self {
        Self { values: gather(&self.values, self.width, rows), width: self.width }
    }

    /// Of two rows.
    pub fn cosine(&self, one: usize, other: usize) -> f64 {
        let [one, other] = [one, other].map(|row| &self.values[row * self.width..(row + 1) * self.width]);
        one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    /// `[end - start, width]`
    fn tensor(&self, start: usize, end: usize, device: &Device) -> Tensor<2> {
        let values = self.values[start * self.width..end * self.width].to_vec();
        Tensor::from_data(TensorData::new(values, [end - start, self.width]), device)
    }
}

/// The nearest bank samples of each query, nearest first.
#[derive(Debug, Clone)]
pub struct Neighbours {
    /// `[queries, per_query]`: position in the bank.
    positions: Vec<u32>,
    /// `[queries, per_query]`
    cosines: Vec<f32>,
    per_query: usize,
}

/// Finds the `neighbours` nearest bank samples of every query, at most all of the bank.
///
/// Memory beside the inputs: the bank's current tile, one tile of cosines, and 24 bytes per query and neighbour.
/// The result does not depend on the number of threads.
///
/// # Errors
/// Where either side is empty, the widths differ, or no neighbour is asked for.
pub fn nearest(queries: &UnitRows, bank: &UnitRows, neighbours: usize) -> Result<Neighbours> {
    let fail = |reason: &str| Err(Error::at(Stage::Evaluate, "kNN", reason));
    if queries.width != bank.width {
        return fail("bank and queries have features of different width");
    }
    if bank.rows() == 0 || neighbours == 0 || u32::try_from(bank.rows()).is_err() {
        return fail("it takes at least one neighbour and a bank of 1 to 2³² − 1 samples");
    }
    let per_query = neighbours.min(bank.rows());
    let mut found = Neighbours { positions: vec![], cosines: vec![], per_query };
    for start in (0..queries.rows()).step_by(QUERY_BLOCK_ROWS) {
        let end = (start + QUERY_BLOCK_ROWS).min(queries.rows());
        for mut best in nearest_of_block(queries, start, end, bank, per_query)? {
            best.settle();
            found.positions.extend(best.keys.iter().map(|&key| !(key as u32)));
            found.cosines.extend(best.keys.iter().map(|&key| unsortable((key >> 32) as u32)));
        }
    }
    Ok(found)
}

fn nearest_of_block(
    queries: &UnitRows,
    start: usize,
    end: usize,
    bank: &UnitRows,
    per_query: usize,
) -> Result<Vec<Best>> {
    // Cosines are host work whatever the training device: the same bits on every machine of a kind.
    let device = Device::flex();
    let tiles: Vec<Tensor<2>> = (start..end)
        .step_by(QUERY_TILE_ROWS)
        .map(|first| queries.tensor(first, (first + QUERY_TILE_ROWS).min(end), &device))
        .collect();
    let mut best: Vec<Best> = (start..end).map(|_| Best::new(per_query)).collect();
    for bank_start in (0..bank.rows()).step_by(BANK_TILE_ROWS) {
        let bank_end = (bank_start + BANK_TILE_ROWS).min(bank.rows());
        let columns = bank_end - bank_start;
        let bank_tile = bank.tensor(bank_start, bank_end, &device).transpose(); // [width, columns]
        for (tile, best) in tiles.iter().zip(best.chunks_mut(QUERY_TILE_ROWS)) {
            let cosines = tile.clone().matmul(bank_tile.clone()).into_data(); // [queries, columns]
            let cosines = cosines
                .as_slice::<f32>()
                .map_err(|error| Error::internal(format!("cosines are not f32: {error:?}")))?;
            cosines.par_chunks(columns).zip(best).for_each(|(row, best)| best.offer(row, bank_start as u32));
        }
    }
    Ok(best)
}

impl Neighbours {
    /// Neighbours per query.
    pub fn per_query(&self) -> usize {
        self.per_query
    }

    /// Class of each query by the votes of its `neighbours` nearest, at most all that were found.
    pub fn vote(&self, bank_classes: &[u32], classes: usize, neighbours: usize, temperature: f64) -> Vec<u32> {
        let k = neighbours.min(self.per_query);
        self.positions
            .par_chunks(self.per_query)
            .zip(self.cosines.par_chunks(self.per_query))
            .map_init(
                || vec![0.0_f64; classes],
                |sums, (positions, cosines)| {
                    sums.fill(0.0);
                    for (&position, &cosine) in positions.iter().zip(cosines).take(k) {
                        // Relative to the nearest: the same winner, and no overflow at low temperatures.
                        let weight = (f64::from(cosine - cosines[0]) / temperature).exp();
                        sums[bank_classes[position as usize] as usize] += weight;
                    }
                    let mut winner = 0;
                    for (class, &sum) in sums.iter().enumerate() {
                        if sum > sums[winner] {
                            winner = class;
                        }
                    }
                    winner as u32
                },
            )
            .collect()
    }
}

/// The best so far of one query. A key holds the cosine's order in its upper half and the inverted position below:
/// the larger key is the nearer sample, and of equal cosines the earlier.
struct Best {
    keys: Vec<u64>,
    limit: usize,
    /// Cosines up to here cannot enter: later positions lose ties.
    threshold: f32,
}

impl Best {
    fn new(limit: usize) -> Self {
        Self { keys: Vec::with_capacity(2 * limit), limit, threshold: f32::NEG_INFINITY }
    }

    fn offer(&mut self, cosines: &[f32], first_position: u32) {
        for (&cosine, position) in cosines.iter().zip(first_position..) {
            if cosine > self.threshold {
                self.keys.push((u64::from(sortable(cosine)) << 32) | u64::from(!position));
                if self.keys.len() == 2 * self.limit {
                    self.shrink();
                }
            }
        }
    }

    fn shrink(&mut self) {
        if self.keys.len() > self.limit {
            self.keys.select_nth_unstable_by(self.limit - 1, |a, b| b.cmp(a));
            self.keys.truncate(self.limit);
            self.threshold = unsortable((self.keys[self.limit - 1] >> 32) as u32);
        }
    }

    fn settle(&mut self) {
        self.shrink();
        self.keys.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// Bits whose order as integers is the float's order.
fn sortable(x: f32) -> u32 {
    let bits = (x + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn unsortable(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{evaluate::golden, seed};

    fn features(rows: usize, width: usize, seed: u64) -> Features {
        let mut draws = seed::draws(seed, "knn test", &[]);
        Features {
            values: (0..rows * width).map(|_| draws.normal() as f32).collect(),
            width,
            labels: vec![String::new(); rows],
            sample_ids: (0..rows as u64).collect(),
        }
    }

    #[test]
    fn tiles_find_what_a_full_sort_finds() {
        // More than one tile on both sides, and sizes that divide nothing.
        let (bank, queries) = (features(5_001, 7, 1), features(701, 7, 2));
        let (bank, queries) = (UnitRows::of(&bank), UnitRows::of(&queries));
        let found = nearest(&queries, &bank, 13).unwrap();
        for query in (0..701).step_by(50) {
            let mut all: Vec<(f64, usize)> = (0..5_001)
                .map(|row| {
                    let dot: f64 = (0..7)
                        .map(|j| f64::from(queries.values[query * 7 + j]) * f64::from(bank.values[row * 7 + j]))
                        .sum();
                    (dot, row)
                })
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (rank, &(cosine, row)) in all.iter().take(13).enumerate() {
                assert_eq!(found.positions[query * 13 + rank] as usize, row, "query {query}, rank {rank}");
                assert!((f64::from(found.cosines[query * 13 + rank]) - cosine).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn classes_equal_those_of_numpy() {
        let (bank, classes) = golden::features(0, golden::BANK_ROWS);
        let (queries, _) = golden::features(5_000, golden::QUERY_ROWS);
        let found = nearest(&UnitRows::of(&queries), &UnitRows::of(&bank), 200).unwrap();
        for case in golden::numbers()["knn"].as_array().unwrap() {
            let (k, t) = (case["k"].as_u64().unwrap() as usize, case["temperature"].as_f64().unwrap());
            assert_eq!(found.vote(&classes, 3, k, t), golden::integers(&case["predicted"]), "k = {k}, t = {t}");
        }
    }

    #[test]
    fn equal_cosines_are_taken_in_bank_order() {
        let row = [0.6_f32, 0.8];
        let bank = UnitRows { values: row.repeat(9_000), width: 2 };
        let found = nearest(&UnitRows { values: row.to_vec(), width: 2 }, &bank, 5).unwrap();
        assert_eq!(found.positions, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn equal_votes_go_to_the_lowest_class() {
        let found = Neighbours { positions: vec![0, 1, 2, 3], cosines: vec![0.5; 4], per_query: 4 };
        assert_eq!(found.vote(&[2, 1, 2, 1], 3, 4, 0.1), [1]);
        assert_eq!(found.vote(&[2, 1, 2, 1], 3, 3, 0.1), [2]);
    }

    #[test]
    fn one_near_neighbour_outweighs_several_far_ones() {
        let found = Neighbours { positions: vec![0, 1, 2], cosines: vec![0.9, 0.7, 0.7], per_query: 3 };
        // e² = 7.4 beats 2 at t = .1; e^.2 = 1.2 does not at t = 1.
        assert_eq!(found.vote(&[1, 0, 0], 2, 3, 0.1), [1]);
        assert_eq!(found.vote(&[1, 0, 0], 2, 3, 1.0), [0]);
        assert_eq!(found.vote(&[1, 0, 0], 2, 3, 1e-6), [1], "a low temperature must not overflow");
    }

    #[test]
    fn k_is_clipped_to_the_bank() {
        let found = nearest(&UnitRows::of(&features(3, 4, 1)), &UnitRows::of(&features(6, 4, 2)), 200).unwrap();
        assert_eq!(found.per_query(), 6);
        assert_eq!(found.vote(&[0, 0, 0, 1, 1, 1], 2, 200, 0.1).len(), 3);
    }

    #[test]
    fn sortable_bits_keep_the_order_and_come_back() {
        let ordered = [-1.0_f32, -0.5, -1e-30, 0.0, 1e-30, 0.25, 1.0];
        assert!(ordered.windows(2).all(|w| sortable(w[0]) < sortable(w[1])));
        assert!(ordered.iter().all(|&x| unsortable(sortable(x)) == x));
        assert_eq!(sortable(-0.0), sortable(0.0));
    }
}
