//! Cholesky factors of small symmetric matrices, in f64.
use rayon::prelude::*;

/// Right-hand sides that are solved together: their sums stay in registers while a row of L goes by.
const LANES: usize = 16;

/// L of A = L·Lᵀ.
#[derive(Debug, Clone)]
pub(crate) struct Cholesky {
    /// Row-major; what is above the diagonal is not read.
    lower: Vec<f64>,
    /// Lᵀ, row-major; what is below the diagonal is not read.
    upper: Vec<f64>,
    side: usize,
}

impl Cholesky {
    /// Factorises a `[side, side]` matrix given by its lower half; `None` where it is not positive definite.
    pub(crate) fn of(mut matrix: Vec<f64>, side: usize) -> Option<Self> {
        for i in 0..side {
            let (above, rest) = matrix.split_at_mut(i * side);
            let row = &mut rest[..side];
            for j in 0..i {
                let other = &above[j * side..(j + 1) * side];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            if pivot.is_nan() || pivot <= 0.0 {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        let mut upper = vec![0.0; side * side];
        for (i, row) in matrix.chunks_exact(side.max(1)).enumerate() {
            for (j, factor) in row[..=i].iter().enumerate() {
                upper[j * side + i] = *factor;
            }
        }
        Some(Self { lower: matrix, upper, side })
    }

    /// Solves A·X = B in place; `columns` right-hand sides, B row-major `[side, columns]`.
    ///
    /// Threads share the columns, each of which takes the same steps whatever stands beside it.
    pub(crate) fn solve(&self, right: &mut [f64], columns: usize) {
        let blocks: Vec<Vec<[f64; LANES]>> = (0..columns.div_ceil(LANES))
            .into_par_iter()
            .map(|block| {
                let first = block * LANES;
                let taken = LANES.min(columns - first);
                let mut lanes = vec![[0.0; LANES]; self.side];
                for (lanes, row) in lanes.iter_mut().zip(right.chunks_exact(columns)) {
                    lanes[..taken].copy_from_slice(&row[first..first + taken]);
                }
                self.solve_lanes(&mut lanes);
                lanes
            })
            .collect();
        for (block, lanes) in blocks.iter().enumerate() {
            let first = block * LANES;
            let taken = LANES.min(columns - first);
            for (row, lanes) in right.chunks_exact_mut(columns).zip(lanes) {
                row[first..first + taken].copy_from_slice(&lanes[..taken]);
            }
        }
    }

    fn solve_lanes(&self, lanes: &mut [[f64; LANES]]) {
        for i in 0..self.side {
            let factors = &self.lower[i * self.side..=i * self.side + i];
            let mut current = lanes[i];
            for (factor, solved) in factors[..i].iter().zip(&lanes[..i]) {
                subtract(&mut current, *factor, solved);
            }
            lanes[i] = current.map(|x| x / factors[i]);
        }
        for i in (0..self.side).rev() {
            let factors = &self.upper[i * self.side + i..(i + 1) * self.side];
            let mut current = lanes[i];
            for (factor, solved) in factors[1..].iter().zip(&lanes[i + 1..]).rev() {
                subtract(&mut current, *factor, solved);
            }
            lanes[i] = current.map(|x| x / factors[0]);
        }
    }
}

fn subtract(from: &mut [f64; LANES], factor: f64, row: &[f64; LANES]) {
    for (x, y) in from.iter_mut().zip(row) {
        *x -= factor * y;
    }
}

/// Four running sums: one alone would wait for every addition.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a_fours, b_fours) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a_fours.remainder().iter().zip(b_fours.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_fours.zip(b_fours) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;

    /// A symmetric positive definite matrix and right-hand sides.
    fn system(side: usize, columns: usize) -> (Vec<f64>, Vec<f64>) {
        let mut draws = seed::draws(3, "cholesky", &[]);
        let root: Vec<f64> = (0..side * side).map(|_| draws.normal()).collect();
        let entry = |i: usize, j: usize| (0..side).map(|k| root[i * side + k] * root[j * side + k]).sum::<f64>();
        let matrix: Vec<f64> =
            (0..side * side).map(|at| entry(at / side, at % side) + f64::from(at / side == at % side)).collect();
        let right: Vec<f64> = (0..side * columns).map(|_| draws.normal()).collect();
        (matrix, right)
    }

    #[test]
    fn solution_times_matrix_gives_the_right_hand_sides() {
        // Less than one block of columns, exactly one, more.
        for (side, columns) in [(23, 3), (9, LANES), (23, 2 * LANES + 5), (1, 1)] {
            let (matrix, right) = system(side, columns);
            let mut solution = right.clone();
            Cholesky::of(matrix.clone(), side).unwrap().solve(&mut solution, columns);
            for i in 0..side {
                for c in 0..columns {
                    let back: f64 = (0..side).map(|j| matrix[i * side + j] * solution[j * columns + c]).sum();
                    assert!((back - right[i * columns + c]).abs() < 1e-10, "{side} {columns}: row {i}, column {c}");
                }
            }
        }
    }

    #[test]
    fn a_column_has_the_same_bits_alone_and_among_others() {
        let (side, columns) = (17, LANES + 3);
        let (matrix, right) = system(side, columns);
        let factor = Cholesky::of(matrix, side).unwrap();
        let mut all = right.clone();
        factor.solve(&mut all, columns);
        for c in 0..columns {
            let mut alone: Vec<f64> = (0..side).map(|i| right[i * columns + c]).collect();
            factor.solve(&mut alone, 1);
            assert!((0..side).all(|i| alone[i].to_bits() == all[i * columns + c].to_bits()), "column {c}");
        }
    }

    #[test]
    fn indefinite_matrix_has_no_factor() {
        assert!(Cholesky::of(vec![1.0, 0.0, 2.0, 1.0], 2).is_none());
    }
}
