//! Passes over flat tensors that lie in the CPU's memory: by all threads, in place, every value once.
//!
//! Burn's operations on `flex` are a pass each, on one thread; an embedding of a vocabulary would spend more time in them than its
//! gradient took. Pieces have one size, and their sums one order, so that bits do not depend on the number of threads.
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Tensor, TensorData};
use rayon::prelude::*;

/// Values of a piece.
const PIECE_VALUES: usize = 1 << 14;

/// Sums that a piece is added up in.
const LANES: usize = 16;

/// The tensors' values, to be changed in place where nobody else holds them; the tensors where they lie elsewhere.
pub(super) fn opened<const N: usize>(tensors: [Tensor<1>; N]) -> Result<[FlexTensor; N], [Tensor<1>; N]> {
    let is_here = |of: &Tensor<1>| {
        of.dtype() == DType::F32 && !of.is_autodiff() && of.clone().try_into_primitive::<Flex>().is_ok()
    };
    if !tensors.iter().all(is_here) {
        return Err(tensors);
    }
    Ok(tensors.map(|of| match of.try_into_primitive::<Flex>() {
        Ok(values) => values.to_contiguous(),
        Err(_) => unreachable!("it was here a moment ago"),
    }))
}

/// What [`opened`] opened.
pub(super) fn closed(values: FlexTensor) -> Tensor<1> {
    Tensor::from_primitive::<Flex>(values)
}

/// Σ x², `[1]`.
pub(super) fn squared_norm(values: &Tensor<1>) -> Option<Tensor<1>> {
    let [values] = opened([values.clone()]).ok()?;
    let pieces: Vec<f64> = values.storage::<f32>().par_chunks(PIECE_VALUES).map(squares).collect();
    let data = TensorData::new(vec![pieces.iter().sum::<f64>() as f32], [1]);
    Some(closed(FlexTensor::from_data(data)))
}

fn squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x * x);
    }
    lanes.iter().chain([&rest]).map(|&sum| f64::from(sum)).sum()
}

/// `values` times `factor`, `[1]`.
pub(super) fn scaled(values: Tensor<1>, factor: &Tensor<1>) -> Tensor<1> {
    let factor = match opened([factor.clone()]) {
        Ok([factor]) => factor.storage::<f32>()[0],
        Err(_) => return values * factor.clone(),
    };
    if factor == 1.0 {
        return values;
    }
    match opened([values]) {
        Ok([mut values]) => {
            let scale = |piece: &mut [f32]| piece.iter_mut().for_each(|value| *value *= factor);
            values.storage_mut::<f32>().par_chunks_mut(PIECE_VALUES).for_each(scale);
            closed(values)
        }
        Err([values]) => values * factor,
    }
}

/// Calls `update` with the pieces of a weight, its gradient and two moments, one after the other.
pub(super) fn update(
    weight: &mut FlexTensor,
    gradient: &FlexTensor,
    [first, second]: [&mut FlexTensor; 2],
    update: impl Fn(&mut [f32], &[f32], &mut [f32], &mut [f32]) + Sync,
) {
    let weights = weight.storage_mut::<f32>().par_chunks_mut(PIECE_VALUES);
    let gradients = gradient.storage::<f32>().par_chunks(PIECE_VALUES);
    let firsts = first.storage_mut::<f32>().par_chunks_mut(PIECE_VALUES);
    let seconds = second.storage_mut::<f32>().par_chunks_mut(PIECE_VALUES);
    weights.zip(gradients).zip(firsts.zip(seconds)).for_each(|((weight, gradient), (first, second))| {
        update(weight, gradient, first, second);
    });
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn tensor(count: usize, phase: f64) -> Tensor<1> {
        let values: Vec<f32> = (0..count).map(|i| (0.37 * i as f64 + phase).sin() as f32).collect();
        Tensor::from_data(TensorData::new(values, [count]), &Device::flex())
    }

    fn floats(of: Tensor<1>) -> Vec<f32> {
        of.into_data().try_into_vec::<f32>().expect("f32")
    }

    #[test]
    fn norms_and_scaled_values_are_those_of_tensor_operations_with_any_number_of_threads() {
        for count in [1, 15, 17, 3 * PIECE_VALUES + 5] {
            let values = tensor(count, 0.3);
            let expected: f64 = floats(values.clone()).iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                pool.install(|| floats(squared_norm(&values).expect("on flex")))
            };
            assert!((f64::from(on(1)[0]) / expected - 1.0).abs() < 1e-6, "{count}");
            assert_eq!(on(1), on(3));
            let factor = Tensor::<1>::from_floats([0.25], &Device::flex());
            // `values` is still held here, so its own values must stay.
            let quarters = floats(scaled(values.clone(), &factor));
            assert_eq!(quarters, floats(values.clone() * 0.25));
            assert_eq!(floats(scaled(values.clone(), &Tensor::ones([1], &Device::flex()))), floats(values));
        }
    }

    #[test]
    fn pieces_of_all_four_belong_together_and_only_what_is_held_alone_changes_in_place() {
        let count = 2 * PIECE_VALUES + 7;
        let tensors = [0.1, 0.2, 0.3, 0.4].map(|phase| tensor(count, phase));
        let held = tensors[0].clone();
        let before = tensors.clone().map(floats);
        let [mut weight, gradient, mut first, mut second] = opened(tensors).expect("on flex");
        update(&mut weight, &gradient, [&mut first, &mut second], |w, g, m, v| {
            for i in 0..w.len() {
                w[i] += g[i];
                m[i] = 2.0 * g[i];
                v[i] -= g[i];
            }
        });
        assert_eq!(floats(held), before[0]);
        let after = [weight, first, second].map(|of| floats(closed(of)));
        for i in 0..count {
            let g = before[1][i];
            assert_eq!([after[0][i], after[1][i], after[2][i]], [before[0][i] + g, 2.0 * g, before[3][i] - g]);
        }
    }
}
