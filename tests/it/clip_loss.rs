//! Golden numbers of CLIP's and SigLIP's losses, and their gradients against finite differences.
#![expect(clippy::disallowed_methods, reason = "tests read single values as they go")]

use burn::tensor::{Device, Tensor, TensorData};
use diptych::loss::{sigmoid, symmetric};

/// Input of the golden vectors: four rows of three, the texts shifted by .15 in phase.
fn input(phase: f64) -> Vec<f64> {
    let value = |i: f64, j: f64| (phase + 0.7 * i + 1.3 * j).sin() + 0.1 * (3.1 * i * (j + 1.0)).cos();
    (0..12).map(|index| value(f64::from(index / 3), f64::from(index % 3))).collect()
}

fn rows(values: &[f64], width: usize, device: &Device) -> Tensor<2> {
    let floats: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(floats, [values.len() / width, width]), device)
}

fn one(value: f64, device: &Device) -> Tensor<1> {
    Tensor::from_data([value as f32], device)
}

fn scalar(of: Tensor<1>) -> f64 {
    f64::from(of.into_scalar::<f32>())
}

fn close(ours: f64, expected: f64) -> bool {
    (ours - expected).abs() < 1e-5 * expected.max(1e-3)
}

/// Cosines of all rows, and both losses written out, in double precision.
fn twins(a: &[f64], b: &[f64], scale: f64, bias: f64) -> (f64, f64, f64) {
    let unit = |values: &[f64]| -> Vec<Vec<f64>> {
        let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        values.chunks(3).map(|row| row.iter().map(|x| x / norm(row)).collect()).collect()
    };
    let (a, b) = (unit(a), unit(b));
    let count = a.len();
    let logit = |i: usize, j: usize| scale * a[i].iter().zip(&b[j]).map(|(a, b)| a * b).sum::<f64>();
    let row = |i: usize| (0..count).filter(|&j| j != i).map(|j| (logit(i, j) - logit(i, i)).exp()).sum::<f64>().ln_1p();
    let column =
        |j: usize| (0..count).filter(|&i| i != j).map(|i| (logit(i, j) - logit(j, j)).exp()).sum::<f64>().ln_1p();
    let decision = |i: usize, j: usize| {
        let x = (logit(i, j) + bias) * if i == j { -1.0 } else { 1.0 };
        x.max(0.0) + (-x.abs()).exp().ln_1p()
    };
    let n = count as f64;
    let decisions: f64 = (0..count).flat_map(|i| (0..count).map(move |j| (i, j))).map(|(i, j)| decision(i, j)).sum();
    ((0..count).map(row).sum::<f64>() / n, (0..count).map(column).sum::<f64>() / n, decisions / n)
}

#[test]
fn clip_gives_its_golden_numbers() {
    let device = Device::flex();
    let (a, b) = (input(1.0), input(1.15));
    for (scale, image_to_text, text_to_image) in
        [(1.0_f64 / 0.07, 0.1246130607984104, 0.1228471811462525), (100.0, 8.676886109367597e-5, 6.589622142568113e-5)]
    {
        let (rows_twin, columns_twin, _) = twins(&a, &b, scale, 0.0);
        assert!((rows_twin - image_to_text).abs() < 1e-12 && (columns_twin - text_to_image).abs() < 1e-12);
        let found = symmetric(rows(&a, 3, &device), rows(&b, 3, &device), one(scale.ln(), &device)).expect("pairs");
        let (i, t, mean) = (scalar(found.image_to_text), scalar(found.text_to_image), scalar(found.loss));
        assert!(close(i, image_to_text) && close(t, text_to_image), "{i} {t} at {scale}");
        assert!(close(mean, (image_to_text + text_to_image) / 2.0), "{mean}");
    }
}

#[test]
fn siglip_gives_its_golden_numbers() {
    let device = Device::flex();
    let (a, b) = (input(1.0), input(1.15));
    for (scale, bias, expected) in [(10.0_f64, -10.0, 0.9504031072788241), (1.0, 0.0, 3.14821343734578)] {
        assert!((twins(&a, &b, scale, bias).2 - expected).abs() < 1e-12);
        let scale = one(scale.ln(), &device);
        let found = sigmoid(rows(&a, 3, &device), rows(&b, 3, &device), scale, one(bias, &device)).expect("pairs");
        let found = scalar(found);
        assert!(close(found, expected), "{found}");
    }
}

#[test]
fn equal_rows_give_the_logarithm_of_their_number_and_sides_change_places() {
    let device = Device::flex();
    let same = rows(&[0.2, -0.7, 0.4].repeat(4), 3, &device);
    let found = symmetric(same.clone(), same, one(3.0, &device)).expect("pairs");
    assert!((scalar(found.loss) - 4.0_f64.ln()).abs() < 2e-5);
    let (a, b) = (rows(&input(1.0), 3, &device), rows(&input(2.0), 3, &device));
    let one_way = symmetric(a.clone(), b.clone(), one(2.0, &device)).expect("pairs");
    let other_way = symmetric(b, a, one(2.0, &device)).expect("pairs");
    assert_eq!(scalar(one_way.image_to_text), scalar(other_way.text_to_image));
    assert!((scalar(one_way.loss) - scalar(other_way.loss)).abs() < 1e-6);
}

#[test]
fn gradients_equal_finite_differences_of_the_definitions() {
    let device = Device::flex().autodiff();
    let (a, b, scale, bias) = (input(1.0), input(2.1), 5.0_f64, -2.0);
    for siglip in [false, true] {
        let (x, y) = (rows(&a, 3, &device).require_grad(), rows(&b, 3, &device).require_grad());
        let (s, t) = (one(scale.ln(), &device).require_grad(), one(bias, &device).require_grad());
        let loss = match siglip {
            true => sigmoid(x.clone(), y.clone(), s.clone(), t.clone()).expect("pairs"),
            false => symmetric(x.clone(), y.clone(), s.clone()).expect("pairs").loss,
        };
        let gradients = loss.backward();
        let twin = |a: &[f64], b: &[f64], log_scale: f64, bias: f64| {
            let (rows, columns, decisions) = twins(a, b, log_scale.exp(), bias);
            if siglip { decisions } else { (rows + columns) / 2.0 }
        };
        let h = 1e-5;
        let of = |z: &Tensor<2>| -> Vec<f32> {
            z.grad(&gradients).expect("tracked").into_data().try_into_vec::<f32>().expect("f32")
        };
        for (side, gradient) in [of(&x), of(&y)].iter().enumerate() {
            for at in 0..12 {
                let moved = |by: f64| {
                    let (mut a, mut b) = (a.clone(), b.clone());
                    if side == 0 {
                        a[at] += by;
                    } else {
                        b[at] += by;
                    }
                    twin(&a, &b, scale.ln(), bias)
                };
                let expected = (moved(h) - moved(-h)) / (2.0 * h);
                assert!((f64::from(gradient[at]) - expected).abs() < 2e-5, "{siglip} {side} {at}: {expected}");
            }
        }
        let slope = (twin(&a, &b, scale.ln() + h, bias) - twin(&a, &b, scale.ln() - h, bias)) / (2.0 * h);
        assert!((scalar(s.grad(&gradients).expect("tracked")) - slope).abs() < 2e-5, "{siglip}: {slope}");
        if siglip {
            let slope = (twin(&a, &b, scale.ln(), bias + h) - twin(&a, &b, scale.ln(), bias - h)) / (2.0 * h);
            assert!((scalar(t.grad(&gradients).expect("tracked")) - slope).abs() < 2e-5, "{slope}");
        }
    }
}

#[test]
fn batches_without_negatives_and_other_shapes_are_refused() {
    let device = Device::flex();
    let (row, two) = (rows(&[1.0, 2.0, 3.0], 3, &device), rows(&input(1.0)[..6], 3, &device));
    assert!(symmetric(row.clone(), row.clone(), one(1.0, &device)).is_err());
    assert!(symmetric(row.clone(), two.clone(), one(1.0, &device)).is_err());
    assert!(sigmoid(row, two, one(1.0, &device), one(0.0, &device)).is_err());
}
