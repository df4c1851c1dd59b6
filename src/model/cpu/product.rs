//! Matrix products on slices: the one place that calls the `gemm` crate.

/// A matrix of `f32` somewhere in a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The first `rows` · `columns` values, row after row.
    pub(super) fn row_major(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows of `columns` values each, which start `row_stride` values apart.
    pub(super) fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = extent(rows, columns, row_stride);
        assert!(needed <= values.len(), "a matrix of {rows}x{columns}, {row_stride} apart, in {} values", values.len());
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same values read the other way round.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Values from the first of a matrix to its last.
fn extent(rows: usize, columns: usize, row_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns }
}

/// `out` (row-major) = `a` · `b`, or `out` + `a` · `b` when it `accumulate`s.
///
/// Runs on the calling thread: the callers already share their tiles among all threads, and the result must not depend
/// on how many there are.
pub(super) fn product(out: &mut [f32], accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    product_into(out, b.columns, accumulate, a, b);
}

/// [`product`] into rows that start `row_stride` values apart; what lies between them stays as it is.
pub(super) fn product_into(out: &mut [f32], row_stride: usize, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner sizes of a product");
    assert!(n <= row_stride, "rows of {n} values, {row_stride} apart");
    assert!(extent(m, n, row_stride) <= out.len(), "a product of {m}x{n} into {} values", out.len());
    // SAFETY: `strided` made sure that both factors lie within their slices (transposing swaps sizes with strides), the
    // assertions above do so for `out`, whose rows do not overlap, and `out` is borrowed mutably, so it overlaps neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row_stride as isize,
            accumulate,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: usize, phase: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
    }

    #[test]
    fn product_equals_the_triple_loop_plain_transposed_and_accumulated() {
        let (m, n, k) = (5, 7, 3);
        let (a, b) = (filled(m * k, 0.1), filled(k * n, 0.4));
        let transpose = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
            (0..rows * columns).map(|i| x[(i % rows) * columns + i / rows]).collect()
        };
        let expected: Vec<f32> =
            (0..m * n).map(|i| (0..k).map(|t| a[(i / n) * k + t] * b[t * n + i % n]).sum()).collect();
        let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
        let mut out = vec![f32::NAN; m * n];
        product(&mut out, false, Matrix::row_major(&a, m, k), Matrix::row_major(&b, k, n));
        assert!(out.iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-6), "{out:?}");
        product(&mut out, true, Matrix::row_major(&at, k, m).transposed(), Matrix::row_major(&bt, n, k).transposed());
        assert!(out.iter().zip(&expected).all(|(x, y)| (x - 2.0 * y).abs() < 1e-6), "{out:?}");
    }

    #[test]
    fn strided_products_read_and_write_their_own_columns_only() {
        let (m, n, k) = (4, 3, 5);
        let (a, b) = (filled(m * 9, 0.1), filled(k * 7, 0.4));
        let mut out = filled(m * 8, 0.9);
        let before = out.clone();
        let (left, right) = (Matrix::strided(&a[2..], m, k, 9), Matrix::strided(&b[1..], k, n, 7));
        product_into(&mut out[4..], 8, false, left, right);
        for (place, (after, before)) in out.iter().zip(&before).enumerate() {
            let (row, column) = (place / 8, place % 8);
            let expected = match column {
                4..7 => (0..k).map(|t| a[2 + row * 9 + t] * b[1 + t * 7 + column - 4]).sum(),
                _ => *before,
            };
            assert!((after - expected).abs() < 1e-6, "row {row}, column {column}: {after} {expected}");
        }
    }
}
