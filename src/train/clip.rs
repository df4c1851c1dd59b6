//! The global norm of all gradients, and scaling down to it.
use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::flat;
use super::parameters::Gradient;

/// Keeps the division finite, as `torch.nn.utils.clip_grad_norm_` does.
const EPSILON: f64 = 1e-6;

/// Euclidean norm of a flat tensor that has `rows` rows. `[1]`
///
/// Rows are summed first, then the sums: a plain `sum` over 4,194,304 elements or more adds in the order in which threads
/// finish, with other bits from run to run, and one long sum in f32 is less exact.
pub fn norm(values: &Tensor<1>, rows: usize) -> Tensor<1> {
    squared_norm(values, rows).sqrt()
}

fn squared_norm(values: &Tensor<1>, rows: usize) -> Tensor<1> {
    flat::squared_norm(values).unwrap_or_else(|| composed_squared_norm(values, rows))
}

/// The same from Burn's own operations.
fn composed_squared_norm(values: &Tensor<1>, rows: usize) -> Tensor<1> {
    let elements = values.dims()[0];
    let squares = values.clone() * values.clone();
    let sums = squares.reshape([rows, elements / rows]).sum_dim(1); // [rows, 1]
    sums.reshape([rows]).sum_dim(0) // [1]
}

/// Euclidean norm of all gradients together. `[1]`; `None` where there are none.
pub fn global_norm(gradients: &BTreeMap<String, Gradient>) -> Option<Tensor<1>> {
    let squares: Vec<Tensor<1>> = gradients.values().map(|g| squared_norm(&g.values, g.rows)).collect();
    if squares.is_empty() {
        return None;
    }
    Some(Tensor::cat(squares, 0).sum_dim(0).sqrt())
}

/// Scales all gradients by `maximum / norm` where `norm` (`[1]`) is larger, without reading it back from the device.
pub fn clip(gradients: BTreeMap<String, Gradient>, norm: &Tensor<1>, maximum: f64) -> BTreeMap<String, Gradient> {
    let factor = ((norm.clone() + EPSILON).recip() * maximum).clamp_max(1.0); // [1]
    let scale = |(path, Gradient { values, rows })| (path, Gradient { values: flat::scaled(values, &factor), rows });
    gradients.into_iter().map(scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn gradients() -> BTreeMap<String, Gradient> {
        let device = Device::flex();
        let of = |values: &[f32], rows| Gradient { values: Tensor::from_data(values, &device), rows };
        BTreeMap::from([("a".into(), of(&[3.0, 0.0, 0.0, 4.0], 2)), ("b".into(), of(&[12.0], 1))])
    }

    fn read(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn the_norm_is_over_all_tensors_together() {
        assert_eq!(read(&global_norm(&gradients()).unwrap()), [13.0]);
        assert!(global_norm(&BTreeMap::new()).is_none());
    }

    #[test]
    fn norms_of_rows_are_those_of_pieces() {
        let values = Tensor::<1>::from_data([3.0, 1.0, 2.0, 4.0, 5.0, 6.0], &Device::flex());
        assert_eq!(read(&squared_norm(&values, 3)), [91.0]);
        assert_eq!(read(&composed_squared_norm(&values, 3)), [91.0]);
    }

    #[test]
    fn larger_norms_are_scaled_to_the_maximum_and_smaller_ones_left() {
        let norm = global_norm(&gradients()).unwrap();
        let scaled = clip(gradients(), &norm, 6.5);
        assert!((read(&global_norm(&scaled).unwrap())[0] - 6.5).abs() < 1e-5);
        assert!((read(&scaled["a"].values)[3] - 2.0).abs() < 1e-6);
        let left = clip(gradients(), &norm, 100.0);
        assert_eq!(read(&left["a"].values), read(&gradients()["a"].values));
    }
}
