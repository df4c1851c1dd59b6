//! How rows are shared out, and what the shares have in common, by shapes alone: never by the number of threads.
use rayon::prelude::*;

/// Groups at most: each has its own sum of weight gradients.
const GROUPS: usize = 16;

/// Values that the groups' sums may hold together, where that leaves [`LEAST_GROUPS`].
const SUMS_VALUES: usize = 1 << 24;
const LEAST_GROUPS: usize = 4;

/// Rows of a tile, about: enough for a product near a core's peak, few enough to stay in its cache.
const TILE_ROWS: usize = 512;

/// Weights per piece when the groups are summed.
const PIECE_VALUES: usize = 4_096;

/// Values from which on a matrix is turned by all threads.
const LARGE_MATRIX: usize = 1 << 17;

/// Items in groups, which are gone through in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    /// Items of a tile.
    pub(super) tile: usize,
    /// Tiles of a group.
    pub(super) tiles: usize,
}

impl Partition {
    /// For `items` of `rows` rows each and gradients of `weights` values.
    pub(super) fn new(items: usize, rows: usize, weights: usize) -> Self {
        let groups = (SUMS_VALUES / weights.max(1)).clamp(LEAST_GROUPS, GROUPS);
        let group = items.div_ceil(groups).max(1);
        let tiles = ((group * rows + TILE_ROWS / 2) / TILE_ROWS).clamp(1, group);
        let tile = group.div_ceil(tiles);
        Self { tile, tiles: group.div_ceil(tile) }
    }

    /// Items of a group.
    pub(super) fn group(&self) -> usize {
        self.tile * self.tiles
    }
}

/// The groups' sums of gradients added up in their order, and cut into parts of these lengths.
pub(super) fn total<const N: usize>(groups: &[Vec<f32>], lengths: [usize; N]) -> [Vec<f32>; N] {
    let mut start = 0;
    lengths.map(|length| {
        let mut sum = vec![0.0; length];
        sum.par_chunks_mut(PIECE_VALUES).enumerate().for_each(|(index, sum)| {
            for group in groups {
                let group = &group[start + index * PIECE_VALUES..];
                sum.iter_mut().zip(group).for_each(|(sum, value)| *sum += value);
            }
        });
        start += length;
        sum
    })
}

/// Parts of these lengths, which follow each other in `values`.
pub(super) fn parts<const N: usize>(mut values: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|length| {
        let (part, rest) = std::mem::take(&mut values).split_at_mut(length);
        values = rest;
        part
    })
}

/// `row` as each row of `out`.
pub(super) fn fill_rows(out: &mut [f32], row: &[f32]) {
    out.chunks_exact_mut(row.len()).for_each(|out| out.copy_from_slice(row));
}

/// So many rows that are all `row`.
pub(super) fn repeated(row: &[f32], rows: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * row.len());
    (0..rows).for_each(|_| out.extend_from_slice(row));
    out
}

/// `[rows, columns]` as `[columns, rows]`, a square at a time.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const SIDE: usize = 16;
    let mut out = vec![0.0; rows * columns];
    let stripe = |(index, out): (usize, &mut [f32])| {
        for first in (0..rows).step_by(SIDE) {
            for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                let column = index * SIDE + column;
                for row in first..rows.min(first + SIDE) {
                    out[row] = values[row * columns + column];
                }
            }
        }
    };
    if out.len() < LARGE_MATRIX {
        out.chunks_mut((SIDE * rows).max(1)).enumerate().for_each(stripe);
    } else {
        out.par_chunks_mut(SIDE * rows).enumerate().for_each(stripe);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_all_items_in_few_and_even_shares() {
        for items in [1, 2, 15, 16, 17, 255, 256, 16_640] {
            for (rows, weights) in [(1, 10), (65, 65_536), (50, 1 << 23)] {
                let partition = Partition::new(items, rows, weights);
                let groups = items.div_ceil(partition.group());
                assert!(groups <= GROUPS && partition.tile >= 1, "{items} of {rows}: {partition:?}");
                assert!(partition.tile == 1 || partition.tile * rows < 2 * TILE_ROWS, "{partition:?}");
            }
        }
        assert_eq!(Partition::new(256, 65, 65_536), Partition { tile: 8, tiles: 2 });
        assert_eq!(Partition::new(256, 65, 1 << 24).group(), 64);
    }

    #[test]
    fn transposing_swaps_axes() {
        for (rows, columns) in [(1, 1), (3, 40), (33, 17), (16, 32), (400, 333)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let turned = transposed(&values, rows, columns);
            for row in 0..rows {
                for column in 0..columns {
                    assert_eq!(turned[column * rows + row], values[row * columns + column]);
                }
            }
            assert_eq!(transposed(&turned, columns, rows), values);
        }
    }

    #[test]
    fn parts_and_totals_follow_each_other() {
        let mut values = [1.0, 2.0, 3.0, 4.0];
        let [first, second] = parts(&mut values, [1, 3]);
        assert!(first == [1.0] && second == [2.0, 3.0, 4.0]);
        let groups = vec![vec![1.0, 2.0, 3.0], vec![10.0, 20.0, 30.0]];
        assert_eq!(total(&groups, [1, 2]), [vec![11.0], vec![22.0, 33.0]]);
    }
}
