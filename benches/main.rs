//! Micro-benchmarks: what one image costs in each op, an epoch's order, a loss.
//!
//! They should show where a view's time goes (decode, crop, jitter, blur) and that planning an epoch costs microseconds per
//! row group, never per sample. `cargo bench --profile release`; whole-pipeline figures come from `diptych bench`.

use burn::tensor::{Device, Tensor, TensorData};
use diptych::{
    augment::recipe::{AugmentSettings, ImageOpSettings},
    device,
    loss::{Negatives, Sequences, nt_xent::NtXent},
    method::{
        CPC,
        cpc::{Pooling, Settings},
    },
    model::{
        AutoregressorSettings, FrameEncoderSettings, InitOptions, Initializer, autoregressor::GruSettings,
        conv1d_encoder::WaveformSettings, gru::Gru,
    },
    pair::{Encoded, SampleKernel, TwoViewsSettings, two_views::TwoViews},
    scan::{
        ScanSettings,
        order::{EpochOrder, GroupSize, Order, OrderKey},
    },
    seed::{ItemKey, draws},
};
use divan::{Bencher, counter::ItemsCount};

fn main() {
    divan::main();
}

const CROP: &str = "{ random_resized_crop = { side_pixels = 224 } }";

/// A 500x375 JPEG of smooth noise: the size of a web photograph.
fn photo() -> Vec<u8> {
    let mut grid = image::RgbImage::new(32, 24);
    let mut random = draws(0, "bench photo", &[]);
    for pixel in grid.pixels_mut() {
        *pixel = image::Rgb([0; 3].map(|_: u8| random.below(256) as u8));
    }
    let photo = image::imageops::resize(&grid, 500, 375, image::imageops::FilterType::CatmullRom);
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
    photo.write_with_encoder(encoder).expect("a JPEG of noise");
    bytes
}

#[derive(serde::Deserialize)]
struct Recipe {
    image: Vec<ImageOpSettings>,
}

fn kernel(ops: &str) -> TwoViews {
    let recipe: Recipe = toml::from_str(&format!("image = [{ops}]")).expect("a recipe");
    let augment = AugmentSettings { image: recipe.image, ..AugmentSettings::default() };
    TwoViews::new(&TwoViewsSettings { column: "image".into() }, &augment).expect("a checked recipe")
}

/// Both views of one photo: decode and crop, then one op more per line.
#[divan::bench(args = [
    "random_resized_crop",
    "horizontal_flip = { probability = 1.0 }",
    "color_jitter = { probability = 1.0, strength = 1.0 }",
    "grayscale = { probability = 1.0 }",
    "gaussian_blur = { probability = 1.0 }",
    "solarize = { probability = 1.0 }",
    "random_affine = { degrees = 15.0, scale = [0.8, 1.1] }",
])]
fn two_views(bencher: Bencher, op: &str) {
    let kernel = if op.contains('=') { kernel(&format!("{CROP}, {{ {op} }}")) } else { kernel(CROP) };
    let photo = photo();
    let mut slot = vec![0_u8; kernel.shape().iter().product()];
    let mut row = 0;
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        row += 1;
        kernel
            .apply(Encoded::image(&photo), 0, 0, ItemKey { shard: 1, row, occurrence: 0 }, &mut slot)
            .expect("a good photo");
    });
}

/// Planning an epoch over so many row groups of 256 rows; the count is rows.
#[divan::bench(args = [100, 10_000, 1_000_000])]
fn epoch_order(bencher: Bencher, groups: u64) {
    let sizes = vec![GroupSize { items: 256, bytes: 256 * 100_000 }; groups as usize];
    let scan: ScanSettings = toml::from_str("shards = []").expect("defaults");
    bencher.counter(ItemsCount::new(groups * 256)).bench(|| {
        EpochOrder::new(&sizes, &scan, Order::Shuffled, OrderKey { selection: [7; 32], seed: 1, epoch: 3 })
            .expect("an order")
    });
}

/// Forward and backward of NT-Xent on so many pairs of width 128, on the CPU.
#[divan::bench(args = [64, 256, 1_024])]
fn nt_xent(bencher: Bencher, pairs: usize) {
    let device = device::parse("cpu").expect("the CPU").autodiff();
    let mut random = draws(0, "bench embeddings", &[]);
    let mut embeddings = || {
        let values: Vec<f32> = (0..pairs * 128).map(|_| random.normal() as f32).collect();
        Tensor::<2>::from_data(TensorData::new(values, [pairs, 128]), &device).require_grad()
    };
    let (first, second) = (embeddings(), embeddings());
    let loss = NtXent::new(0.1).expect("a temperature");
    bencher.counter(ItemsCount::new(pairs)).bench(|| {
        let gradients = loss.forward(first.clone(), second.clone()).expect("two views of equal shape").loss.backward();
        first.grad(&gradients).expect("a gradient").into_data()
    });
}

const INIT: InitOptions = InitOptions { seed: 0, compat_torch: false };

fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let mut random = draws(0, "bench signal", &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Forward and backward of a recurrent unit of width 256 over 64 sequences of so many frames, on the CPU.
#[divan::bench(args = [16, 128])]
fn gru(bencher: Bencher, frames: usize) {
    let device = device::parse("cpu").expect("the CPU").autodiff();
    let gru = Gru::new("g_ar", 256, 256, &Initializer::new(INIT, &device));
    let inputs = normal([64, frames, 256], &device).require_grad();
    bencher.counter(ItemsCount::new(64 * frames)).bench_local(|| {
        let gradients = gru.forward(inputs.clone()).sum_dims(&[0, 1, 2]).backward();
        inputs.grad(&gradients).expect("a gradient").into_data()
    });
}

/// Forward and backward of CPC on 64 waveforms of 16 frames, 5 of them predicted, of so many channels, on the CPU.
#[divan::bench(args = [96, 512])]
fn cpc(bencher: Bencher, width_channels: usize) {
    let device = device::parse("cpu").expect("the CPU").autodiff();
    let settings = Settings {
        channels: 1,
        encoder: FrameEncoderSettings::Waveform(WaveformSettings { width_channels, ..WaveformSettings::default() }),
        context: AutoregressorSettings::Gru(GruSettings { width_channels: width_channels.min(256) }),
        predicted_frames: 5,
        negatives: Negatives::BatchAllTime,
        pooling: Pooling::Statistics,
    };
    let mut model = CPC::new(&settings, INIT, &device).expect("plain settings");
    let windows = normal([64, 1, 2_560], &device);
    bencher.counter(ItemsCount::new(64_usize)).bench_local(|| {
        let predicted = model.loss(windows.clone(), &Sequences::default()).expect("plain windows");
        let _gradients = predicted.loss.backward();
        predicted.step_losses.into_data()
    });
}
