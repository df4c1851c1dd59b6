//! Rows of unit length.
use burn::tensor::{DType, Tensor};

/// Least squared norm. Clamped before the root: a root of 0 has an infinite derivative, and ∞ · 0 is no number.
const LEAST_SQUARED_NORM: f64 = 1e-24;

/// Each row over its Euclidean norm, in `f32`. A zero row stays zero and has a finite gradient.
///
/// # Shapes
/// `[rows, width]` to the same.
pub fn l2_normalize(rows: Tensor<2>) -> Tensor<2> {
    let rows = rows.cast(DType::F32);
    let squared = rows.clone().square().sum_dim(1); // [rows, 1]
    rows * squared.clamp_min(LEAST_SQUARED_NORM).sqrt().recip()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn rows_have_unit_length_and_a_zero_row_a_finite_gradient() {
        let device = Device::flex().autodiff();
        let rows = Tensor::<2>::from_data([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]], &device).require_grad();
        let unit = l2_normalize(rows.clone());
        let values: Vec<f32> = unit.clone().into_data().try_into_vec::<f32>().expect("f32");
        assert!((values[0] - 0.6).abs() < 1e-6 && (values[1] - 0.8).abs() < 1e-6);
        assert_eq!(&values[2..4], &[0.0, 0.0]);
        let coefficients = Tensor::<2>::from_data([[1.0, -2.0], [1.0, -2.0], [1.0, -2.0]], &device);
        let gradients = (unit * coefficients).sum_dims(&[0, 1]).backward();
        let gradient: Vec<f32> =
            rows.grad(&gradients).expect("tracked").into_data().try_into_vec::<f32>().expect("f32");
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        // (I − uuᵀ) c / ‖z‖ with u = (.6, .8), c = (1, −2)
        assert!((gradient[0] - 0.32).abs() < 1e-6 && (gradient[1] + 0.24).abs() < 1e-6, "{gradient:?}");
    }
}
