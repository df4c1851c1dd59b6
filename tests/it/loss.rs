//! NT-Xent's golden numbers and ten steps of descent.
#![expect(clippy::disallowed_methods, reason = "tests read single values as they go")]

use burn::tensor::{Device, Tensor, TensorData};
use diptych::loss::NtXent;

/// Input of the golden vectors: four rows of three, the second view shifted by .15 in phase.
fn input(phase: f64) -> Vec<f64> {
    let value = |i: f64, j: f64| (phase + 0.7 * i + 1.3 * j).sin() + 0.1 * (3.1 * i * (j + 1.0)).cos();
    (0..12).map(|index| value(f64::from(index / 3), f64::from(index % 3))).collect()
}

fn tensor(values: &[f64], device: &Device) -> Tensor<2> {
    let floats: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(floats, [4, 3]), device)
}

/// Loss and gradients of the rows of both views in double precision, from the softmax written out.
fn reference(first: &[f64], second: &[f64], temperature: f64) -> (f64, Vec<f64>) {
    let rows: Vec<&[f64]> = first.chunks(3).chain(second.chunks(3)).collect();
    let count = rows.len();
    let norms: Vec<f64> = rows.iter().map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).collect();
    let unit: Vec<Vec<f64>> = rows.iter().zip(&norms).map(|(row, n)| row.iter().map(|x| x / n).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut loss, mut of_unit) = (0.0, vec![vec![0.0; 3]; count]);
    for i in 0..count {
        let positive = (i + count / 2) % count;
        let logit = |k: usize| dot(&unit[i], &unit[k]) / temperature;
        let negatives: f64 =
            (0..count).filter(|&k| k != i && k != positive).map(|k| (logit(k) - logit(positive)).exp()).sum();
        loss += negatives.ln_1p() / count as f64;
        for k in (0..count).filter(|&k| k != i) {
            let share = (logit(k) - logit(positive)).exp() / (1.0 + negatives);
            // Σ over the row is 0, so the positive's is written without cancellation.
            let slope = if k == positive { -negatives / (1.0 + negatives) } else { share };
            let slope = slope / (count as f64 * temperature);
            for axis in 0..3 {
                of_unit[i][axis] += slope * unit[k][axis];
                of_unit[k][axis] += slope * unit[i][axis];
            }
        }
    }
    let gradient = (0..count)
        .flat_map(|i| {
            let along = dot(&of_unit[i], &unit[i]);
            (0..3).map(|axis| (of_unit[i][axis] - along * unit[i][axis]) / norms[i]).collect::<Vec<f64>>()
        })
        .collect();
    (loss, gradient)
}

#[test]
#[expect(clippy::excessive_precision, reason = "the published digits, so that they can be found again")]
fn nt_xent_gives_its_golden_numbers() {
    let golden =
        [(0.5, 1.235823808933564), (0.1, 0.3519445120725293), (0.07, 0.2022454892346164), (0.01, 7.707486176032581e-5)];
    let device = Device::flex();
    let (a, b) = (input(1.0), input(1.15));
    for (temperature, expected) in golden {
        let (twin, _) = reference(&a, &b, temperature);
        assert!((twin - expected).abs() < 1e-12 * expected.max(1e-3), "twin at {temperature}: {twin}");
        let loss = NtXent::new(temperature).expect("above 0");
        let contrast = loss.forward(tensor(&a, &device), tensor(&b, &device)).expect("four items");
        let ours = f64::from(contrast.loss.into_scalar::<f32>());
        assert!((ours - expected).abs() < 1e-5 * expected.max(1e-3), "{ours} at {temperature}, not {expected}");
    }
}

#[test]
fn identical_rows_give_the_logarithm_of_seven() {
    let device = Device::flex();
    let rows = tensor(&[0.2, -0.7, 0.4].repeat(4), &device);
    for temperature in [0.5, 0.1, 0.07] {
        let loss = NtXent::new(temperature).expect("above 0");
        let loss: f32 = loss.forward(rows.clone(), rows.clone()).expect("four items").loss.into_scalar();
        assert!((f64::from(loss) - 1.945910149055313).abs() < 2e-5, "{loss}");
    }
}

#[test]
fn ten_steps_of_descent_follow_the_double_precision_twin() {
    let device = Device::flex().autodiff();
    let loss = NtXent::new(0.1).expect("above 0");
    let (mut a, mut b) = (input(1.0), input(1.15));
    let (mut x, mut y) = (tensor(&a, &device).require_grad(), tensor(&b, &device).require_grad());
    let rate = 0.1;
    let mut losses = vec![];
    for step in 0..10 {
        let (expected, gradient) = reference(&a, &b, 0.1);
        let ours = loss.forward(x.clone(), y.clone()).expect("four items").loss;
        let gradients = ours.backward();
        let ours = f64::from(ours.inner().into_scalar::<f32>());
        assert!((ours - expected).abs() < 2e-5 * expected.max(1e-3), "{ours} at step {step}, not {expected}");
        losses.push(ours);
        let down = |z: Tensor<2>| {
            let slope = z.grad(&gradients).expect("tracked");
            (z.inner() - slope * rate).autodiff().require_grad()
        };
        (x, y) = (down(x), down(y));
        a.iter_mut().zip(&gradient[..12]).for_each(|(value, slope)| *value -= rate * slope);
        b.iter_mut().zip(&gradient[12..]).for_each(|(value, slope)| *value -= rate * slope);
    }
    assert!(losses[9] < 0.8 * losses[0], "{losses:?}");
}
