//! Embeddings of unit length, and their cosines in bits that depend on the two rows alone.
use crate::error::{Error, Result, Stage};

/// Sums that run side by side, so that the compiler can use vectors; the order of addition follows from the width.
const LANES: usize = 16;

/// Rows of length 1, all of one width.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// `[rows, width]`
    values: Vec<f32>,
    width: usize,
}

impl Embeddings {
    /// None yet.
    pub fn new(width: usize) -> Self {
        Self { values: Vec::new(), width }
    }

    /// Rows that somebody has laid out, `[rows, width]`; they become unit length.
    ///
    /// # Errors
    /// They are no rows of that width, or a number is not finite.
    pub fn of(values: &[f32], width: usize) -> Result<Self> {
        let mut all = Self::new(width);
        if width == 0 || !values.len().is_multiple_of(width) {
            return Err(Error::internal(format!("{} numbers are no rows of width {width}", values.len())));
        }
        values.chunks_exact(width).try_for_each(|row| all.push(row))?;
        Ok(all)
    }

    /// Adds a row, which becomes unit length; zeros stay zeros.
    ///
    /// # Errors
    /// It has another width, or a number that is not finite.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        if row.len() != self.width {
            return Err(Error::internal(format!(
                "an embedding of {} numbers among those of {}",
                row.len(),
                self.width
            )));
        }
        let start = self.values.len();
        self.values.extend_from_slice(row);
        unit(&mut self.values[start..])
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Numbers per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }

    /// Cosines of all rows with another unit row, in order.
    pub fn cosines(&self, with: &[f32]) -> Vec<f32> {
        self.values.chunks_exact(self.width.max(1)).map(|row| dot(row, with)).collect()
    }
}

/// Makes a row unit length; zeros stay zeros.
///
/// # Errors
/// A number is not finite.
pub fn unit(row: &mut [f32]) -> Result<()> {
    let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if !norm.is_finite() {
        let reason = "holds a number that is not finite; the weights are damaged, or training has diverged";
        return Err(Error::at(Stage::Evaluate, "an embedding", reason));
    }
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    Ok(())
}

/// Inner product; numbers past the shorter row are not looked at.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.iter().zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    let mut rest = 0.0;
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest += a * b;
    }
    sums.iter().fold(rest, |sum, lane| sum + lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_unit_length_and_zeros_stay() {
        let rows = Embeddings::of(&[3.0, 4.0, 0.0, 0.0], 2).expect("finite");
        assert_eq!((rows.rows(), rows.row(0), rows.row(1)), (2, &[0.6, 0.8][..], &[0.0, 0.0][..]));
        assert_eq!(rows.cosines(&[0.0, 1.0]), [0.8, 0.0]);
    }

    #[test]
    fn what_is_not_finite_or_of_another_width_is_refused() {
        let mut rows = Embeddings::new(2);
        assert!(rows.push(&[f32::NAN, 1.0]).expect_err("NaN").to_string().contains("not finite"));
        assert!(rows.push(&[f32::INFINITY, 1.0]).is_err());
        assert!(rows.push(&[1.0]).is_err() && Embeddings::of(&[1.0; 3], 2).is_err());
    }

    #[test]
    fn the_inner_product_is_that_of_all_numbers() {
        for width in [1, 15, 16, 17, 512, 515] {
            let a: Vec<f32> = (0..width).map(|at| (at % 7) as f32).collect();
            let b: Vec<f32> = (0..width).map(|at| (at % 5) as f32).collect();
            let expected: usize = (0..width).map(|at| (at % 7) * (at % 5)).sum();
            assert_eq!(dot(&a, &b), expected as f32, "{width}");
        }
    }
}
