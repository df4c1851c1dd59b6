//! Losses over all pairs in tiles against the same losses on the whole matrix, and equal items worked out by hand.
use burn::tensor::{Device, Tensor, TensorData};
use diptych::loss::{DuplicatePolicy, Duplicates, NtXent, sigmoid_with, symmetric_with};
use diptych::seed;

const POLICIES: [DuplicatePolicy; 3] = [DuplicatePolicy::Keep, DuplicatePolicy::Mask, DuplicatePolicy::SoftTargets];

fn random(count: usize, name: u64) -> Vec<f32> {
    let mut draws = seed::draws(11, "test of tiles", &[name]);
    (0..count).map(|_| draws.normal() as f32).collect()
}

fn rows(values: &[f32], width: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / width, width]), device)
}

fn one(value: f32, device: &Device) -> Tensor<1> {
    Tensor::from_data([value], device)
}

fn floats<const D: usize>(of: Tensor<D>) -> Vec<f32> {
    of.into_data().try_into_vec::<f32>().expect("f32")
}

/// Value and gradients of one form of a loss.
type Found = (f32, Vec<Vec<f32>>);

/// Values within 1e-6 of the whole's, gradients within 1e-5, relative to their largest.
///
/// Logits near 100 have a last digit of 8e-6, and it is their differences that are exponentiated: there the bounds grow
/// with the logits.
fn close(whole: &Found, tiled: &Found, largest_logit: f32, what: &str) {
    let scale = whole.0.abs().max(1e-3);
    let of_value = 1e-6 * (largest_logit / 10.0).max(1.0);
    let of_gradients = 1e-5 * (largest_logit / 30.0).max(1.0);
    assert!((whole.0 - tiled.0).abs() <= of_value * scale, "{what}: {} in tiles, {} as a whole", tiled.0, whole.0);
    assert_eq!(whole.1.len(), tiled.1.len());
    for (index, (whole, tiled)) in whole.1.iter().zip(&tiled.1).enumerate() {
        let largest = whole.iter().fold(1e-30_f32, |largest, x| largest.max(x.abs()));
        let gap = whole.iter().zip(tiled).fold(0.0_f32, |gap, (a, b)| gap.max((a - b).abs()));
        assert!(gap <= of_gradients * largest, "{what}: gradient {index} is off by {gap} of {largest}");
    }
}

/// The second rows: like the first, so that there is something to find, with `noise` of their own.
fn paired(items: usize, width: usize, noise: f32) -> [Vec<f32>; 2] {
    let first = random(items * width, 1);
    let second = first.iter().zip(random(items * width, 2)).map(|(a, b)| a + noise * b).collect();
    [first, second]
}

/// Pairs, width, and rows of a tile: dividing the pairs or not, one, more than there are.
const CASES: [(usize, usize, &[usize]); 6] = [
    (1, 3, &[1, 4]),
    (2, 3, &[1, 2, 5]),
    (3, 2, &[1, 2, 3]),
    (13, 8, &[1, 4, 13, 64]),
    (64, 16, &[16, 7, 63]),
    (150, 32, &[64, 149, 1_000]),
];

#[test]
fn nt_xent_in_tiles_is_nt_xent() {
    let device = Device::flex().autodiff();
    for (items, width, tiles) in CASES.into_iter().filter(|(items, ..)| *items > 1) {
        for (temperature, noise) in [(0.5, 1.0), (0.1, 0.3), (0.05, 0.02), (0.01, 2.0)] {
            let [a, b] = paired(items, width, noise);
            let run = |tile_rows: Option<usize>| -> Found {
                let (x, y) = (rows(&a, width, &device).require_grad(), rows(&b, width, &device).require_grad());
                let loss = NtXent::new(temperature).expect("above 0").with_tile_rows(tile_rows);
                let loss = loss.forward(x.clone(), y.clone()).expect("two items").loss;
                // Whatever stands behind the loss scales its gradients.
                let gradients = (loss.clone() * 3.0).backward();
                let of = |z: Tensor<2>| floats(z.grad(&gradients).expect("tracked"));
                (floats(loss)[0], vec![of(x), of(y)])
            };
            let whole = run(None);
            for &tile in tiles {
                let what = format!("{items} items at {temperature}, tiles of {tile}");
                close(&whole, &run(Some(tile)), 1.0 / temperature as f32, &what);
            }
        }
    }
}

#[test]
fn both_losses_of_pairs_in_tiles_are_those_of_the_whole() {
    let device = Device::flex().autodiff();
    for (pairs, width, tiles) in CASES {
        let [a, b] = paired(pairs, width, 0.5);
        let images: Vec<u64> = (0..pairs as u64).map(|i| i / 3).collect();
        let texts: Vec<u64> = (0..pairs as u64).map(|i| i % 5).collect();
        for (siglip, policy) in [false, true].into_iter().flat_map(|siglip| POLICIES.map(|policy| (siglip, policy))) {
            if !siglip && pairs < 2 {
                continue;
            }
            let duplicates = Duplicates::new(policy, [Some(&images), Some(&texts)]).expect("pairs");
            for scale in [1.0_f32, 2.659_26, 4.605_17] {
                let run = |tile_rows: Option<usize>| -> Found {
                    let (x, y) = (rows(&a, width, &device).require_grad(), rows(&b, width, &device).require_grad());
                    let (s, t) = (one(scale, &device).require_grad(), one(-2.0, &device).require_grad());
                    let loss = if siglip {
                        let behind = [s.clone(), t.clone()];
                        sigmoid_with(x.clone(), y.clone(), behind, &duplicates, tile_rows).expect("pairs")
                    } else {
                        symmetric_with(x.clone(), y.clone(), s.clone(), &duplicates, tile_rows).expect("pairs").loss
                    };
                    let gradients = loss.backward();
                    let of = |z: &Tensor<2>| floats(z.grad(&gradients).expect("tracked"));
                    let scalar = |z: &Tensor<1>| floats(z.grad(&gradients).expect("tracked"));
                    let mut all = vec![of(&x), of(&y), scalar(&s)];
                    if siglip {
                        all.push(scalar(&t));
                    }
                    (floats(loss)[0], all)
                };
                let whole = run(None);
                for &tile in tiles {
                    let what = format!("{pairs} pairs, SigLIP {siglip}, {policy:?}, ln s = {scale}, tiles of {tile}");
                    close(&whole, &run(Some(tile)), scale.exp(), &what);
                }
            }
        }
    }
}

#[test]
fn tiles_without_a_graph_give_the_value_alone() {
    let device = Device::flex();
    let [a, b] = paired(7, 4, 0.5);
    let (x, y) = (rows(&a, 4, &device), rows(&b, 4, &device));
    let none = Duplicates::unknown();
    let whole = symmetric_with(x.clone(), y.clone(), one(2.0, &device), &none, None).expect("pairs");
    let tiled = symmetric_with(x, y, one(2.0, &device), &none, Some(3)).expect("pairs");
    for (whole, tiled) in [
        (whole.loss, tiled.loss),
        (whole.image_to_text, tiled.image_to_text),
        (whole.text_to_image, tiled.text_to_image),
    ] {
        let (whole, tiled) = (floats(whole)[0], floats(tiled)[0]);
        assert!((whole - tiled).abs() < 1e-6, "{whole} {tiled}");
    }
}

#[test]
fn a_side_that_is_not_trained_takes_no_gradient_and_the_other_keeps_its_own() {
    let device = Device::flex().autodiff();
    let [a, b] = paired(9, 4, 0.5);
    let run = |tile_rows| {
        let (x, y) = (rows(&a, 4, &device), rows(&b, 4, &device).require_grad());
        let loss = symmetric_with(x, y.clone(), one(2.0, &device), &Duplicates::unknown(), tile_rows).expect("pairs");
        let gradients = loss.loss.backward();
        (floats(loss.loss)[0], vec![floats(y.grad(&gradients).expect("tracked"))])
    };
    close(&run(None), &run(Some(4)), 7.4, "locked images");
}

#[test]
fn equal_images_are_kept_left_out_or_shared_out_as_worked_out_by_hand() {
    // A = [[1, 0, −1], [0, 1, 0], [0, 1, 0]] with s = 1, and the images of pairs 0 and 2 are one.
    let images = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
    let texts = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
    let e = std::f64::consts::E;
    let wide = (e + 1.0 + 1.0 / e).ln();
    let (one_right, two_right) = ((e + 2.0).ln(), (2.0 * e + 1.0).ln());
    let apart = (e + 1.0).ln();
    let last = (2.0 + 1.0 / e).ln();
    // Rows: LSE − what is right, over what takes part; then columns.
    let expected = [
        (DuplicatePolicy::Keep, [wide - 1.0, one_right - 1.0, one_right], [one_right - 1.0, two_right - 1.0, last]),
        (DuplicatePolicy::Mask, [apart - 1.0, one_right - 1.0, apart], [apart - 1.0, two_right - 1.0, 2.0_f64.ln()]),
        // Rows 0 and 2 share out: (1 − 1)/2 and (0 + 0)/2. Columns: (1 + 0)/2 and (−1 + 0)/2.
        (
            DuplicatePolicy::SoftTargets,
            [wide, one_right - 1.0, one_right],
            [one_right - 0.5, two_right - 1.0, last + 0.5],
        ),
    ];
    let mean = |of: [f64; 3]| of.iter().sum::<f64>() / 3.0;
    for device in [Device::flex(), Device::flex().autodiff()] {
        for (policy, of_rows, of_columns) in expected {
            let duplicates = Duplicates::new(policy, [Some(&[4, 5, 4]), None]).expect("one side");
            assert_eq!((duplicates.pairs(), duplicates.items()), (1, 2));
            for tile_rows in [None, Some(1), Some(2), Some(3)] {
                let (x, y) = (rows(&images, 2, &device), rows(&texts, 2, &device));
                let found = symmetric_with(x, y, one(0.0, &device), &duplicates, tile_rows).expect("pairs");
                let (i, t) = (floats(found.image_to_text)[0], floats(found.text_to_image)[0]);
                assert!((f64::from(i) - mean(of_rows)).abs() < 1e-6, "{policy:?}, {tile_rows:?}: {i}");
                assert!((f64::from(t) - mean(of_columns)).abs() < 1e-6, "{policy:?}, {tile_rows:?}: {t}");
                let both = (mean(of_rows) + mean(of_columns)) / 2.0;
                assert!((f64::from(floats(found.loss)[0]) - both).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn equal_images_are_kept_left_out_or_decided_for_by_siglip_as_worked_out_by_hand() {
    // As above: A = [[1, 0, −1], [0, 1, 0], [0, 1, 0]] with s = 1 and b = 0.
    let images = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0];
    let texts = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
    let softplus = |x: f64| x.exp().ln_1p();
    // Diagonal 1, 1, 0; between different images 0, 0, 0, 1; between the equal ones −1 and 0.
    let rest = 2.0 * softplus(-1.0) + softplus(0.0) + 3.0 * softplus(0.0) + softplus(1.0);
    let device = Device::flex();
    for (policy, equal) in [
        (DuplicatePolicy::Keep, softplus(-1.0) + softplus(0.0)),
        (DuplicatePolicy::Mask, 0.0),
        (DuplicatePolicy::SoftTargets, softplus(1.0) + softplus(0.0)),
    ] {
        let duplicates = Duplicates::new(policy, [Some(&[4, 5, 4]), None]).expect("one side");
        for tile_rows in [None, Some(2)] {
            let (x, y) = (rows(&images, 2, &device), rows(&texts, 2, &device));
            let behind = [one(0.0, &device), one(0.0, &device)];
            let found = sigmoid_with(x, y, behind, &duplicates, tile_rows).expect("pairs");
            let found = f64::from(floats(found)[0]);
            assert!((found - (rest + equal) / 3.0).abs() < 1e-6, "{policy:?}, {tile_rows:?}: {found}");
        }
    }
}

/// Peak memory of one loss with its gradients, in a process of its own. Takes minutes and, whole, 2.4 GB:
/// `cargo test --release --test it -- --ignored --nocapture peak_memory_of_losses`.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "measures; takes minutes"]
fn peak_memory_of_losses_at_8192_pairs() {
    const FORM: &str = "DIPTYCH_LOSS_FORM";
    const WIDTH: usize = 128;
    let pairs = std::env::var("DIPTYCH_LOSS_PAIRS").ok().and_then(|n| n.parse().ok()).unwrap_or(8_192);
    if let Ok(form) = std::env::var(FORM) {
        let (loss, tile) = form.split_once(' ').expect("loss and tile");
        let tile_rows = tile.parse().ok();
        let device = Device::flex().autodiff();
        let (x, y) = (random(pairs * WIDTH, 1), random(pairs * WIDTH, 2));
        let (x, y) = (rows(&x, WIDTH, &device).require_grad(), rows(&y, WIDTH, &device).require_grad());
        let (scale, bias) = (one(2.659_26, &device).require_grad(), one(-10.0, &device).require_grad());
        let none = Duplicates::unknown();
        let before = peak_kilobytes();
        let began = std::time::Instant::now();
        let loss = match loss {
            "nt_xent" => {
                let loss = NtXent::new(0.1).expect("above 0").with_tile_rows(tile_rows);
                loss.forward(x.clone(), y.clone()).expect("items").loss
            }
            "symmetric" => symmetric_with(x.clone(), y.clone(), scale, &none, tile_rows).expect("pairs").loss,
            _ => sigmoid_with(x.clone(), y.clone(), [scale, bias], &none, tile_rows).expect("pairs"),
        };
        let gradients = loss.backward();
        let slope = floats(x.grad(&gradients).expect("tracked"));
        let seconds = began.elapsed().as_secs_f64();
        let (all, own) = (peak_kilobytes() / 1_024, (peak_kilobytes() - before) / 1_024);
        println!("{form}: {pairs} pairs, loss {}, {own} MiB of a peak of {all} MiB, {seconds:.1} s", floats(loss)[0]);
        assert!(slope.iter().all(|x| x.is_finite()));
        return;
    }
    for form in ["nt_xent", "symmetric", "sigmoid"] {
        for tile in ["all", "1024", "256"] {
            let this = std::env::current_exe().expect("a test binary");
            let words = ["--ignored", "--exact", "--nocapture", "tiled_loss::peak_memory_of_losses_at_8192_pairs"];
            let output = std::process::Command::new(this).args(words).env(FORM, format!("{form} {tile}")).output();
            let output = output.expect("it runs");
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().find(|line| line.contains("MiB")).map(str::to_owned);
            println!("{}", line.unwrap_or_else(|| format!("{form} {tile}: ended with {}", output.status)));
        }
    }
}

#[cfg(target_os = "linux")]
fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}
