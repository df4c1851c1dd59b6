//! Small CLIPs against transformers and open_clip: features, logits, every gradient, ten losses, files both ways.
//!
//! The numbers are written by `tests/golden/clip.py`; weights, pixels and tokens follow from names on both sides.
#![expect(clippy::disallowed_methods, reason = "tests read single values as they go")]

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use diptych::evaluate::clip::{Described, checkpoint, open_clip, transformers};
use diptych::loss::symmetric;
use diptych::model::clip::naming::Entries;
use diptych::model::clip::{Activation, Captions, Clip, Naming};
use diptych::train::safetensors::from_owned_bytes;
use diptych::train::state::collect;
use diptych::train::{parameters, safetensors};
use serde_json::Value;

use super::golden::{Descend, gap, start, uniform};

const ROWS: usize = 3;
const VOCABULARY: u32 = 50;
const WORDS: [usize; ROWS] = [4, 7, 1];
const CASES: [(&str, Naming); 4] = [
    ("transformers", Naming::Transformers),
    ("transformers_gelu", Naming::Transformers),
    ("open_clip", Naming::OpenClip),
    ("open_clip_resnet", Naming::OpenClip),
];

/// `value` of the script.
fn value(name: &str, shape: &[usize]) -> TensorData {
    if name == "logit_scale" {
        return TensorData::new(vec![2.0_f32], [0_usize; 0]);
    }
    TensorData::new(start(name, shape), shape.to_vec())
}

/// The golden tensors, and what the script noted of each case.
fn golden() -> (Entries, Value) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/clip.safetensors");
    let bytes = std::fs::read(path).expect("the golden file is in the repository");
    let (tensors, notes) = from_owned_bytes(path, bytes).expect("safetensors");
    (tensors, serde_json::from_str(&notes["cases"]).expect("JSON"))
}

/// A case's state dict, under the library's own names.
fn entries(case: &Value) -> Entries {
    let entries = case["entries"].as_object().expect("entries");
    let shape = |of: &Value| serde_json::from_value::<Vec<usize>>(of.clone()).expect("a shape");
    entries.iter().map(|(name, of)| (name.clone(), value(name, &shape(of)))).collect()
}

fn described(naming: Naming, case: &Value) -> Described {
    let text = case["config"].to_string();
    match naming {
        Naming::Transformers => transformers::described(("config", &text), None),
        Naming::OpenClip => open_clip::described("config", &text),
    }
    .expect("as the library writes it")
}

fn load(naming: Naming, case: &Value, device: &Device) -> Clip {
    let (entries, left_out) = naming.to_open_clip(entries(case));
    assert!(left_out.is_empty(), "{left_out:?}");
    Clip::load(&described(naming, case).settings, entries, device).expect("every entry has its place")
}

fn pixels(case: &Value, device: &Device) -> Tensor<4> {
    let side = case["side"].as_u64().expect("a side") as usize;
    let values: Vec<f32> = uniform("pixels", ROWS * 3 * side * side).iter().map(|u| (4.0 * u - 2.0) as f32).collect();
    Tensor::from_data(TensorData::new(values, [ROWS, 3, side, side]), device)
}

fn captions(device: &Device) -> Captions {
    let row = |(row, words): (usize, &usize)| -> Vec<u32> {
        let inner = uniform(&format!("tokens.{row}"), *words);
        let inner = inner.iter().map(|u| (u * f64::from(VOCABULARY - 2)) as u32);
        [VOCABULARY - 2].into_iter().chain(inner).chain([VOCABULARY - 1]).collect()
    };
    Captions::new(&WORDS.iter().enumerate().map(row).collect::<Vec<_>>(), device).expect("tokens")
}

fn values<const D: usize>(of: Tensor<D>) -> Vec<f32> {
    of.into_data().try_into_vec::<f32>().expect("f32")
}

fn floats(of: &TensorData) -> &[f32] {
    of.as_slice::<f32>().expect("f32")
}

/// Image features, text features, logits.
fn outputs(clip: &Clip, case: &Value, device: &Device) -> [Vec<f32>; 3] {
    let images = clip.encode_images(pixels(case, device));
    let texts = clip.encode_texts(&captions(device)).expect("short texts");
    let logits = clip.logits(clip.cosines(images.clone(), texts.clone()));
    [values(images), values(texts), values(logits)]
}

#[test]
fn features_and_logits_are_those_of_transformers_and_open_clip() {
    let device = Device::flex();
    let (golden, cases) = golden();
    for (name, naming) in CASES {
        let clip = load(naming, &cases[name], &device);
        let outputs = outputs(&clip, &cases[name], &device);
        for (output, of) in outputs.iter().zip(["image_features", "text_features", "logits_per_image"]) {
            let expected = floats(&golden[&format!("{name}.{of}")]);
            let furthest = output.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(output.len() == expected.len() && furthest < 1e-4, "{name}: {of} is off by {furthest}");
        }
    }
}

#[test]
fn the_other_activation_gives_other_logits() {
    let device = Device::flex();
    let (golden, cases) = golden();
    let case = &cases["transformers"];
    let mut described = described(Naming::Transformers, case);
    described.settings.activation = Activation::Gelu;
    let (entries, _) = Naming::Transformers.to_open_clip(entries(case));
    let clip = Clip::load(&described.settings, entries, &device).expect("the shapes are the same");
    let [_, _, logits] = outputs(&clip, case, &device);
    assert!(gap(&logits, floats(&golden["transformers.logits_per_image"])) > 1e-3);
}

#[test]
fn every_gradient_and_ten_losses_equal_those_of_pytorch() {
    let device = Device::flex().autodiff();
    let (golden, cases) = golden();
    let case = &cases["transformers"];
    let mut clip = load(Naming::Transformers, case, &device);
    let expected = floats(&golden["transformers.losses"]).to_vec();
    assert_eq!(expected.len(), 10);
    for (step, expected) in expected.iter().enumerate() {
        let images = clip.encode_images_train(pixels(case, &device), None, None);
        let texts = clip.encode_texts(&captions(&device)).expect("short texts");
        let loss = symmetric(images, texts, clip.logit_scale.val()).expect("three pairs").loss;
        let gradients = loss.backward();
        let found: f32 = loss.inner().into_scalar();
        assert!((found - expected).abs() < 1e-4, "loss {found} at step {step}, PyTorch {expected}");
        if step == 0 {
            let theirs = their_gradients(&clip, &gradients);
            let names: Vec<&String> = golden.keys().filter(|name| name.contains(".gradient.")).collect();
            assert_eq!(names.len(), theirs.len());
            // Attention does not see what is added to all keys: their bias has a gradient of nothing but rounding.
            for name in names.into_iter().filter(|name| !name.ends_with("k_proj.bias")) {
                let gap = gap(floats(&theirs[&name["transformers.gradient.".len()..]]), floats(&golden[name]));
                assert!(gap < 1e-4, "{name} is off by {gap} of its norm");
            }
        }
        clip = clip.map(&mut Descend(&gradients));
    }
}

/// Gradients under transformers' names and in its layout.
fn their_gradients(clip: &Clip, gradients: &Gradients) -> Entries {
    struct Take<'a>(&'a Gradients);
    impl ModuleMapper for Take<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let gradient = param.val().grad(self.0).expect("the loss depends on every parameter");
            Param::initialized(param.id, gradient)
        }
    }
    let as_weights = clip.clone().map(&mut Take(gradients));
    Naming::Transformers.lay_out(collect(&as_weights)).expect("a vision transformer")
}

#[test]
fn files_of_both_libraries_come_out_as_they_went_in_and_give_the_same_outputs() {
    let device = Device::flex();
    let (_, cases) = golden();
    let folder = tempfile::tempdir().expect("a folder");
    for (name, naming) in CASES {
        let case = &cases[name];
        let (clip, mut described) = (load(naming, case, &device), described(naming, case));
        described.settings.check().expect("sizes");
        let before = outputs(&clip, case, &device);
        for to in [Naming::Transformers, Naming::OpenClip] {
            let folder = folder.path().join(name).join(to.name());
            if to == Naming::Transformers && name == "open_clip_resnet" {
                assert!(checkpoint::write(&folder, to, &clip, &described).is_err(), "CLIPModel has no ResNet");
                continue;
            }
            let weights = checkpoint::write(&folder, to, &clip, &described).expect("written");
            let back = checkpoint::read(&folder, Some(described.settings.activation), &device).expect("read");
            assert_eq!((back.naming, &back.described.settings), (to, &described.settings));
            assert_eq!(outputs(&back.clip, case, &device), before, "{name} by way of {}", to.name());
            if to == naming {
                let (written, _) = from_owned_bytes("w", std::fs::read(&weights).expect("there")).expect("safetensors");
                // open_clip counts batches; a state dict without metadata loads strictly without the counters.
                assert_eq!(written, entries(case), "{name}");
            }
            described.preprocess = back.described.preprocess.clone();
        }
    }
    if let Some(kept) = std::env::var_os("DIPTYCH_KEEP_CLIP") {
        copy(folder.path(), Path::new(&kept));
    }
}

/// For `tests/golden/clip_read_back.py`, which loads the files with the libraries themselves.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("there") {
        let path = entry.expect("readable").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("copied");
        }
    }
}

#[test]
fn contradictions_and_gaps_in_files_are_errors_that_say_what_to_do() {
    let device = Device::flex();
    let (_, cases) = golden();
    let case = &cases["transformers"];
    let (clip, described) = (load(Naming::Transformers, case, &device), described(Naming::Transformers, case));
    let folder = tempfile::tempdir().expect("a folder");
    let weights = checkpoint::write(folder.path(), Naming::Transformers, &clip, &described).expect("written");
    let refused = |activation| checkpoint::read(&weights, activation, &device).expect_err("refused").to_string();
    let error = refused(Some(Activation::Gelu));
    assert!(error.contains("--activation says gelu") && error.contains("configuration says quick_gelu"), "{error}");

    let config = folder.path().join(transformers::CONFIG);
    let text = std::fs::read_to_string(&config).expect("there");
    std::fs::write(&config, text.replace("quick_gelu", "gelu")).expect("written");
    let error = refused(None);
    assert!(error.contains("header of the file says quick_gelu"), "{error}");

    std::fs::write(&config, text.replace("\"hidden_size\":12", "\"hidden_size\":14")).expect("written");
    let error = refused(None);
    assert!(error.contains("misshapen: token_embedding.weight is [50, 12], not [50, 14]"), "{error}");

    std::fs::write(&config, &text).expect("written");
    let other = folder.path().join(open_clip::CONFIG);
    let mut gelu = described.clone();
    gelu.settings.activation = Activation::Gelu;
    std::fs::write(&other, open_clip::config(&gelu).expect("words").to_string()).expect("written");
    let error = refused(None);
    let says = "config.json says activation quick_gelu, but open_clip_config.json beside it says gelu";
    assert!(error.contains(says), "{error}");
    std::fs::remove_file(other).expect("removed");
    assert!(checkpoint::read(&weights, None, &device).is_ok());

    std::fs::remove_file(&config).expect("removed");
    let error = refused(None);
    assert!(error.contains("has neither config.json nor open_clip_config.json"), "{error}");
}

#[test]
fn missing_and_unknown_entries_are_all_named() {
    let device = Device::flex();
    let (_, cases) = golden();
    let case = &cases["transformers"];
    let mut entries = entries(case);
    entries.remove("vision_model.encoder.layers.1.self_attn.k_proj.weight");
    entries.insert("vision_model.surprise".to_owned(), value("surprise", &[2]));
    entries.insert("text_model.embeddings.position_ids".to_owned(), TensorData::new(vec![0_i64, 1], [1, 2]));
    let (entries, left_out) = Naming::Transformers.to_open_clip(entries);
    assert_eq!(left_out, ["text_model.embeddings.position_ids"]);
    let settings = described(Naming::Transformers, case).settings;
    let error = Clip::load(&settings, entries, &device).expect_err("two gaps").to_string();
    for part in [
        "missing: visual.transformer.resblocks.1.attn.in_proj_weight",
        "unused: vision_model.encoder.layers.1.self_attn.q_proj.weight",
        "unused: vision_model.surprise",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn drawn_weights_depend_on_the_seed_and_have_the_names_of_loaded_ones() {
    let device = Device::flex();
    let (_, cases) = golden();
    for (name, naming) in CASES {
        let settings = described(naming, &cases[name]).settings;
        let draw = |seed| {
            let init = diptych::model::InitOptions { seed, compat_torch: false };
            collect(&Clip::new(&settings, init, &device).expect("sizes"))
        };
        let (drawn, loaded) = (draw(1), collect(&load(naming, &cases[name], &device)));
        let names = |of: &BTreeMap<String, TensorData>| {
            of.iter().map(|(name, data)| (name.clone(), data.shape().as_slice().to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(names(&drawn), names(&loaded), "{name}");
        assert_eq!(drawn, draw(1));
        assert_ne!(drawn, draw(2));
        assert!((floats(&drawn["logit_scale"])[0] - (1.0_f32 / 0.07).ln()).abs() < 1e-6);
    }
}

#[test]
fn trained_parameters_are_all_but_the_running_statistics() {
    let device = Device::flex().autodiff();
    let (_, cases) = golden();
    let clip = load(Naming::OpenClip, &cases["open_clip_resnet"], &device);
    let mut buffers = 0;
    parameters::visit(&clip, |parameter, _| {
        assert_eq!(parameter.trainable, !parameter.path.contains("running_"), "{}", parameter.path);
        buffers += usize::from(!parameter.trainable);
    });
    assert!(buffers > 20);
    let bytes = safetensors::to_bytes(&collect(&clip)).expect("floats");
    assert!(bytes.len() > 1_000_000);
}

#[test]
fn dropped_patches_are_not_looked_at_and_all_kept_is_none_dropped() {
    let device = Device::flex();
    let (_, cases) = golden();
    let case = &cases["open_clip"];
    let mut clip = load(Naming::OpenClip, case, &device);
    let pixels = pixels(case, &device);
    let whole = values(clip.encode_images(pixels.clone()));
    let kept = |rows: Vec<i64>, count: usize| {
        Tensor::<2, burn::tensor::Int>::from_data(TensorData::new(rows, [ROWS, count]), &device)
    };
    let all = clip.encode_images_train(pixels.clone(), Some(kept([0, 1, 2, 3].repeat(ROWS), 4)), None);
    assert!(gap(&values(all), &whole) < 1e-6);
    // Blackening the upper left patch of every image changes nothing where it is dropped.
    let half = kept([1, 3].repeat(ROWS), 2);
    let before = values(clip.encode_images_train(pixels.clone(), Some(half.clone()), None));
    let black = pixels.slice_assign([0..ROWS, 0..3, 0..4, 0..4], Tensor::zeros([ROWS, 3, 4, 4], &device));
    let after = values(clip.encode_images_train(black.clone(), Some(half), None));
    assert_eq!(before, after);
    assert!(gap(&values(clip.encode_images(black)), &whole) > 1e-3);
}

#[test]
fn a_text_is_read_at_its_end_whatever_it_is_batched_with() {
    let device = Device::flex();
    let (_, cases) = golden();
    let clip = load(Naming::OpenClip, &cases["open_clip"], &device);
    let encode =
        |texts: &[Vec<u32>]| values(clip.encode_texts(&Captions::new(texts, &device).expect("tokens")).expect("short"));
    let (short, long) = (vec![48, 7, 49], vec![48, 7, 9, 1, 30, 2, 2, 49]);
    let alone = encode(std::slice::from_ref(&short));
    let together = encode(&[long, short]);
    assert!(gap(&together[12..], &alone) < 1e-6);
    let too_long = Captions::new(&[vec![1; 10]], &device).expect("tokens");
    assert!(clip.encode_texts(&too_long).expect_err("10 of 9").to_string().contains("this model reads 9"));
    assert!(Captions::new(&[vec![]], &device).is_err());
}
