//! What the tests share with the scripts under `tests/golden`: numbers that follow from names, and files of tensors.

use std::collections::BTreeMap;

use burn::module::{ModuleMapper, Param};
use burn::tensor::{Gradients, Tensor};

/// Of the scripts' SGD.
pub(crate) const RATE: f32 = 0.05;

/// `uniform` of the scripts: FNV-1a of the name, then SplitMix64's finaliser per index.
pub(crate) fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    (0..count as u64)
        .map(|index| {
            let mut h = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((h ^ (h >> 31)) >> 40) as f64 / f64::from(1 << 24)
        })
        .collect()
}

/// `start` of the scripts: vectors of weights about 1, other vectors about 0, matrices by He's rule.
pub(crate) fn start(name: &str, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let is_gain = name.ends_with("weight") || name.ends_with("running_var");
    let (base, spread) = match shape.len() {
        1 => (if is_gain { 1.0 } else { 0.0 }, 0.2),
        _ => (0.0, (6.0 / (count / shape[0]) as f64).sqrt()),
    };
    uniform(name, count).iter().map(|u| (base + spread * (2.0 * u - 1.0)) as f32).collect()
}

/// Tensors of `tests/golden/FILE.safetensors` whose names start with `prefix`, without it.
pub(crate) fn tensors(file: &str, prefix: &str) -> BTreeMap<String, Vec<f32>> {
    let path = format!("{}/tests/golden/{file}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("the golden file is in the repository");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let floats = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    file.tensors()
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), floats(tensor.data()))))
        .collect()
}

/// ‖a − b‖ over ‖b‖.
pub(crate) fn gap(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    apart / norm(&mut b.iter().map(|b| f64::from(*b))).max(1e-12)
}

/// One step of plain SGD.
pub(crate) struct Descend<'a>(pub(crate) &'a Gradients);

impl ModuleMapper for Descend<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match param.val().grad(self.0) {
            None => param,
            Some(gradient) => param.map(|old| (old.inner() - gradient * RATE).autodiff().require_grad()),
        }
    }
}
