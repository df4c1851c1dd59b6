//! Tensors for the tests of layers: values that repeat in no direction, and their numbers.
use burn::tensor::{Device, Tensor, TensorData};

pub(crate) fn waves<const D: usize>(shape: [usize; D], phase: f64, device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (0.37 * i as f64 + phase).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(crate) fn values<const D: usize>(of: Tensor<D>) -> Vec<f32> {
    of.into_data().try_into_vec::<f32>().expect("f32")
}

/// The largest difference, relative to the largest of `expected`; ∞ where one is no number or there are not as many.
pub(crate) fn gap(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    let gaps = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale);
    let worst = gaps.fold(0.0_f32, |most, gap| if gap <= most { most } else { gap });
    if found.len() == expected.len() && worst.is_finite() { worst } else { f32::INFINITY }
}
