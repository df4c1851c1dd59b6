//! Optimizers against `tests/golden/optimizers.json`: float64 from the formulas, and PyTorch's own where it has them.
use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use diptych::train::optimizer::Optimizer;
use diptych::train::parameters::Gradient;
use diptych::train::state::collect;
use diptych::train::{Compat, OptimizerSettings};
use serde::Deserialize;

/// Relative to the largest entry of a tensor.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Tensors {
    weight: Vec<f64>,
    bias: Vec<f64>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    compat_torch: bool,
    start: Tensors,
    optimizer: OptimizerSettings,
    steps: Vec<Tensors>,
}

#[derive(Deserialize)]
struct Golden {
    rows: usize,
    columns: usize,
    rates: Vec<f64>,
    gradients: Vec<Tensors>,
    cases: Vec<Case>,
}

#[derive(Module, Debug)]
struct Pair {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

fn data(values: &[f64], shape: &[usize]) -> TensorData {
    TensorData::new(values.iter().map(|&x| x as f32).collect::<Vec<f32>>(), shape.to_vec())
}

fn assert_close(found: &TensorData, expected: &[f64], what: &str) {
    let found = found.as_slice::<f32>().expect("f32");
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() <= TOLERANCE * largest, "{what}, element {i}: {a} instead of {b}");
    }
}

#[test]
fn every_step_equals_the_golden_one() {
    let golden: Golden = serde_json::from_str(include_str!("../golden/optimizers.json")).expect("golden file");
    let device = Device::flex().autodiff();
    let (rows, columns) = (golden.rows, golden.columns);
    assert_eq!(golden.cases.len(), 7);
    for case in &golden.cases {
        let mut pair = Pair {
            weight: Param::from_data(data(&case.start.weight, &[rows, columns]), &device),
            bias: Param::from_data(data(&case.start.bias, &[columns]), &device),
        };
        let compat = case.compat_torch.then_some(Compat::Torch);
        let mut optimizer = Optimizer::new(&case.optimizer, compat, &pair, &device);
        for (index, expected) in case.steps.iter().enumerate() {
            let plain = device.clone().inner();
            let gradient = |values: &[f64], rows| Gradient {
                values: Tensor::from_data(data(values, &[values.len()]), &plain),
                rows,
            };
            let gradients = BTreeMap::from([
                ("weight".to_owned(), gradient(&golden.gradients[index].weight, rows)),
                ("bias".to_owned(), gradient(&golden.gradients[index].bias, 1)),
            ]);
            pair = optimizer.step(pair, gradients, golden.rates[index], index as u64 + 1);
            let what = |tensor: &str| format!("{}, step {}, {tensor}", case.name, index + 1);
            let now = collect(&pair);
            assert_close(&now["weight"], &expected.weight, &what("weight"));
            assert_close(&now["bias"], &expected.bias, &what("bias"));
        }
    }
}
