//! Cholesky factors of small symmetric matrices, in f64.

/// L of A = L·Lᵀ, row-major; the upper half is not read.
#[derive(Debug, Clone)]
pub(crate) struct Cholesky {
    lower: Vec<f64>,
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
        Some(Self { lower: matrix, side })
    }

    /// Solves A·X = B in place; `columns` right-hand sides, B row-major `[side, columns]`.
    pub(crate) fn solve(&self, right: &mut [f64], columns: usize) {
        for i in 0..self.side {
            let (solved, rest) = right.split_at_mut(i * columns);
            let current = &mut rest[..columns];
            let factors = &self.lower[i * self.side..=i * self.side + i];
            for (j, factor) in factors[..i].iter().enumerate() {
                subtract(current, *factor, &solved[j * columns..(j + 1) * columns]);
            }
            current.iter_mut().for_each(|x| *x /= factors[i]);
        }
        for i in (0..self.side).rev() {
            let (before, rest) = right.split_at_mut(i * columns);
            let current = &mut rest[..columns];
            let factors = &self.lower[i * self.side..=i * self.side + i];
            current.iter_mut().for_each(|x| *x /= factors[i]);
            for (j, factor) in factors[..i].iter().enumerate() {
                subtract(&mut before[j * columns..(j + 1) * columns], *factor, current);
            }
        }
    }
}

fn subtract(from: &mut [f64], factor: f64, row: &[f64]) {
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

    #[test]
    fn solution_times_matrix_gives_the_right_hand_side() {
        let (side, columns) = (23, 3);
        let mut draws = seed::draws(3, "cholesky", &[]);
        let root: Vec<f64> = (0..side * side).map(|_| draws.normal()).collect();
        let entry = |i: usize, j: usize| (0..side).map(|k| root[i * side + k] * root[j * side + k]).sum::<f64>();
        let matrix: Vec<f64> =
            (0..side * side).map(|at| entry(at / side, at % side) + f64::from(at / side == at % side)).collect();
        let right: Vec<f64> = (0..side * columns).map(|_| draws.normal()).collect();
        let mut solution = right.clone();
        Cholesky::of(matrix.clone(), side).unwrap().solve(&mut solution, columns);
        for i in 0..side {
            for c in 0..columns {
                let back: f64 = (0..side).map(|j| matrix[i * side + j] * solution[j * columns + c]).sum();
                assert!((back - right[i * columns + c]).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn indefinite_matrix_has_no_factor() {
        assert!(Cholesky::of(vec![1.0, 0.0, 2.0, 1.0], 2).is_none());
    }
}
