//! A CLIP's weights with the settings beside them.
//!
//! Weights say how wide a model is, not how it computes: with another activation, another crop, they still run, only worse.
//! So what was trained is read from the configuration beside them, compared with the notes in the file and with the other
//! library's configuration where that is there as well, and a contradiction is an error.
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::{Described, open_clip, transformers};
use crate::augment::image::preprocess::{Preprocess, ResizeTo};
use crate::error::{Context as _, Error, Result, Stage};
use crate::model::clip::{Activation, Clip, Naming};
use crate::train::checkpoint::CHECKPOINTS_FOLDER;
use crate::train::safetensors::{from_owned_bytes, to_bytes_with};
use crate::train::state::collect;

/// Names of files with weights that a folder may have, those of both libraries.
const WEIGHTS: [(&str, Naming); 3] = [
    ("model.safetensors", Naming::Transformers),
    ("open_clip_model.safetensors", Naming::OpenClip),
    ("open_clip_pytorch_model.safetensors", Naming::OpenClip),
];

/// Notes in the header of a file that Diptych wrote.
const ACTIVATION_NOTE: &str = "activation";
const TOKENIZER_NOTE: &str = "tokenizer";
const POOLING_NOTE: &str = "text_pooling";
const PREPROCESS_NOTE: &str = "preprocess";

/// The one tokenizer and the one way to read a text off that are known here.
const TOKENIZER: &str = "clip_bpe_49408";
const POOLING: &str = "end_of_text";

/// Means and deviations of two files that differ by no more are the same, rounded: a quarter of a level of 255.
const ROUNDED: f32 = 1e-3;

/// Sides to which images are resized; a larger one is no side but damage.
const MOST_SIDE_PIXELS: usize = 1 << 14;

/// A model that is ready, and where it comes from.
#[derive(Debug)]
pub struct Checkpoint {
    /// The model.
    pub clip: Clip,
    /// Its settings.
    pub described: Described,
    /// Whose names its file has.
    pub naming: Naming,
    /// Entries of the file that are no weights.
    pub left_out: Vec<String>,
    /// What a user should know of the configuration, a sentence with its place.
    pub warning: Option<String>,
}

/// Reads weights and the configuration beside them.
///
/// `weights` is a safetensors file or its folder. `activation` is what the caller takes for granted; it is compared.
///
/// # Errors
/// No weights of a CLIP; no configuration; one that cannot be read, or contradicts the weights, the notes in the file, the other
/// library's, or `activation`.
pub fn read(weights: &Path, activation: Option<Activation>, device: &Device) -> Result<Checkpoint> {
    let weights = file_of(weights)?;
    let place = weights.display().to_string();
    let bytes = fs::read(&weights).context(Stage::Checkpoint, &place, "cannot be read")?;
    let (entries, notes) = from_owned_bytes(&place, bytes)?;
    let naming = Naming::of(&entries).map_err(|error| at(&place, error))?;
    let folder = weights.parent().unwrap_or(Path::new(""));
    let (described, warning) = describe(folder, naming)?;
    let found = described.settings.activation;
    if let Some(note) = notes.get(ACTIVATION_NOTE).filter(|note| *note != found.name()) {
        return Err(mismatch(&place, &format!("the header of the file says {note}"), found));
    }
    if let Some(wanted) = activation.filter(|wanted| *wanted != found) {
        return Err(mismatch(&place, &format!("--activation says {}", wanted.name()), found));
    }
    if let Some(reason) = contradiction(&described) {
        return Err(Error::at(Stage::Checkpoint, folder.display().to_string(), reason));
    }
    let (entries, left_out) = naming.to_open_clip(entries);
    let clip = Clip::load(&described.settings, entries, device).map_err(|error| at(&place, error))?;
    Ok(Checkpoint { clip, described, naming, left_out, warning })
}

/// Writes weights and configuration, as `naming`'s library reads them, into a folder; gives the file with the weights.
///
/// # Errors
/// The library has no such model; the folder cannot be written.
pub fn write(folder: &Path, naming: Naming, clip: &Clip, described: &Described) -> Result<PathBuf> {
    let entries = naming.lay_out(collect(clip))?;
    let preprocess = transformers::preprocessor_config(&described.preprocess).to_string();
    let notes = HashMap::from([
        (ACTIVATION_NOTE.to_owned(), described.settings.activation.name().to_owned()),
        (TOKENIZER_NOTE.to_owned(), TOKENIZER.to_owned()),
        (POOLING_NOTE.to_owned(), POOLING.to_owned()),
        (PREPROCESS_NOTE.to_owned(), preprocess.clone()),
    ]);
    let bytes = to_bytes_with(&entries, notes)?;
    let mut files = match naming {
        Naming::Transformers => vec![
            (transformers::CONFIG, transformers::config(&described.settings)?.to_string().into_bytes()),
            (transformers::PREPROCESSOR_CONFIG, preprocess.into_bytes()),
        ],
        Naming::OpenClip => vec![(open_clip::CONFIG, open_clip::config(described)?.to_string().into_bytes())],
    };
    let name = if naming == Naming::Transformers { WEIGHTS[0].0 } else { WEIGHTS[1].0 };
    // Last, so that weights are never without their configuration.
    files.push((name, bytes));
    fs::create_dir_all(folder).context(Stage::Checkpoint, folder.display().to_string(), "cannot be made")?;
    for (name, bytes) in files {
        let path = folder.join(name);
        fs::write(&path, bytes).context(Stage::Checkpoint, path.display().to_string(), "cannot be written")?;
    }
    Ok(folder.join(name))
}

/// The file with the weights: the one named, or that of a folder.
///
/// # Errors
/// The folder has none of the usual names.
pub fn file_of(weights: &Path) -> Result<PathBuf> {
    if !weights.is_dir() {
        return Ok(weights.to_owned());
    }
    let there = WEIGHTS.iter().map(|(name, _)| weights.join(name)).find(|path| path.is_file());
    there.ok_or_else(|| {
        let reason = if weights.join(CHECKPOINTS_FOLDER).is_dir() {
            "is a run folder: name it with --run where the command has that, or, if it is a CLIP's, have `diptych export` \
             write its weights"
                .to_owned()
        } else {
            format!("has none of {}; name the file with the weights", WEIGHTS.map(|(name, _)| name).join(", "))
        };
        Error::at(Stage::Checkpoint, weights.display().to_string(), reason)
    })
}

/// What one library's files say.
struct Found {
    described: Described,
    /// Names of the files: of the model, and of its images, if there is one.
    model: &'static str,
    images: Option<&'static str>,
    warning: Option<String>,
}

/// The text of a file in a folder, with its place; `None` where it is not there.
fn text_of(folder: &Path, name: &str) -> Result<Option<(String, String)>> {
    let path = folder.join(name);
    let place = path.display().to_string();
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some((place, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::at(Stage::Checkpoint, place, "cannot be read").caused_by(error)),
    }
}

/// What the files beside the weights say, and what is to be told of them. Where both libraries' are there, the one of the
/// weights' own names counts, and the other must not contradict it.
fn describe(folder: &Path, naming: Naming) -> Result<(Described, Option<String>)> {
    let theirs = text_of(folder, transformers::CONFIG)?.map(|config| of_transformers(folder, &config));
    let ours = text_of(folder, open_clip::CONFIG)?.map(|(place, text)| of_open_clip(&place, &text));
    let (own, other) = match naming {
        Naming::Transformers => (theirs, ours),
        Naming::OpenClip => (ours, theirs),
    };
    let found = match (own, other) {
        (Some(own), other) => {
            let mut own = own?;
            // A configuration that says nothing of this model contradicts nothing.
            if let Some(other) = other.and_then(Result::ok) {
                if let Some(reason) = disagreement(&own, &other) {
                    return Err(Error::at(Stage::Checkpoint, folder.display().to_string(), reason));
                }
                if own.images.is_none() && other.images.is_some() {
                    // What is written down is better than what is assumed.
                    own.described.preprocess = other.described.preprocess;
                    own.warning = None;
                }
            }
            own
        }
        (None, Some(other)) => other?,
        (None, None) => {
            let reason = format!(
                "has neither {} nor {} beside the weights, and weights do not tell their activation; fetch it from where \
                 they come from",
                transformers::CONFIG,
                open_clip::CONFIG
            );
            return Err(Error::at(Stage::Checkpoint, folder.display().to_string(), reason));
        }
    };
    Ok((found.described, found.warning))
}

fn of_open_clip(place: &str, text: &str) -> Result<Found> {
    let described = open_clip::described(place, text)?;
    Ok(Found { described, model: open_clip::CONFIG, images: Some(open_clip::CONFIG), warning: None })
}

/// Settings of images come from the file of their own, as in transformers 4, else from the processor's.
fn of_transformers(folder: &Path, config: &(String, String)) -> Result<Found> {
    let (alone, nested) = (transformers::PREPROCESSOR_CONFIG, transformers::PROCESSOR_CONFIG);
    let path = folder.join(alone);
    let preprocess =
        text_of(folder, alone)?.map(|(place, text)| transformers::preprocess(&place, &text)).transpose()?;
    let below = match text_of(folder, nested)? {
        Some((place, text)) => transformers::nested_preprocess(&place, &text),
        None => Ok(None),
    };
    let (preprocess, images, mut warning) = match preprocess {
        Some(preprocess) => {
            // What cannot be read is not the same, either.
            let same = below.is_ok_and(|below| below.is_none_or(|below| below == preprocess));
            let warning = (!same).then(|| {
                format!(
                    "{} and image_processor of {nested} beside it differ in what images go through; {alone} counts, as \
                     in transformers 4, where 5 reads {nested}; correct or delete one of them",
                    path.display()
                )
            });
            (Some(preprocess), Some(alone), warning)
        }
        None => {
            let below = below?;
            let images = below.is_some().then_some(nested);
            (below, images, None)
        }
    };
    let described = transformers::described((&config.0, &config.1), preprocess)?;
    if images.is_none() {
        let Preprocess { mean, deviation, .. } = &described.preprocess;
        warning = Some(format!(
            "{} is missing, and no {nested} with image_processor is beside it; CLIP's own settings of images are assumed: \
             {}, mean {mean:?}, deviation {deviation:?}; fetch the file from where the weights come from",
            path.display(),
            described.preprocess
        ));
    }
    Ok(Found { described, model: transformers::CONFIG, images, warning })
}

/// In what the files of two libraries contradict each other.
fn disagreement(own: &Found, other: &Found) -> Option<String> {
    let differ = |what: &str, (file, value): (&str, String), (other_file, other_value): (&str, String)| {
        format!(
            "{file} says {what} {value}, but {other_file} beside it says {other_value}: with the wrong one a CLIP runs and \
             is silently worse; correct or delete one of the files"
        )
    };
    let (one, two) = (&own.described.settings, &other.described.settings);
    let model = [
        ("activation", one.activation.name().to_owned(), two.activation.name().to_owned()),
        ("image side", side_of(one.vision.image_side_pixels()), side_of(two.vision.image_side_pixels())),
    ];
    if let Some((what, one, two)) = model.into_iter().find(|(_, one, two)| one != two) {
        return Some(differ(what, (own.model, one), (other.model, two)));
    }
    // What is assumed contradicts nothing.
    let (own_file, other_file) = (own.images?, other.images?);
    let (one, two) = (&own.described.preprocess, &other.described.preprocess);
    if one.crop_side_pixels != two.crop_side_pixels {
        let (one, two) = (side_of(one.crop_side_pixels), side_of(two.crop_side_pixels));
        return Some(differ("crop", (own_file, one), (other_file, two)));
    }
    let is_far = |one: &[f32; 3], two: &[f32; 3]| !one.iter().zip(two).all(|(a, b)| (a - b).abs() <= ROUNDED);
    let channels = [("mean", one.mean, two.mean), ("deviation", one.deviation, two.deviation)];
    let (what, one, two) = channels.into_iter().find(|(_, one, two)| is_far(one, two))?;
    Some(differ(what, (own_file, format!("{one:?}")), (other_file, format!("{two:?}"))))
}

fn side_of(pixels: usize) -> String {
    format!("{pixels} pixels")
}

fn mismatch(place: &str, says: &str, found: Activation) -> Error {
    let reason = format!(
        "{says}, but the configuration says {}: with the wrong activation a CLIP runs and is silently worse; correct one \
         of them",
        found.name()
    );
    Error::at(Stage::Checkpoint, place, reason)
}

/// What of the images' preprocessing fits neither the model nor any image.
fn contradiction(described: &Described) -> Option<String> {
    let (preprocess, side) = (&described.preprocess, described.settings.vision.image_side_pixels());
    let crop = preprocess.crop_side_pixels;
    let (ResizeTo::ShorterSidePixels(resized) | ResizeTo::SquarePixels(resized)) = preprocess.resize;
    if crop != side {
        return Some(format!("images are cropped to {crop} pixels, but the model looks at {side}"));
    }
    if resized < crop || resized > MOST_SIDE_PIXELS {
        let bounds = format!("between these {crop} and {MOST_SIDE_PIXELS}");
        return Some(format!(
            "images are resized to {resized} pixels and cropped to {crop}; the first must be {bounds}"
        ));
    }
    let is_usable = |deviation: &f32| deviation.is_finite() && *deviation > 0.0;
    let usable = preprocess.deviation.iter().all(is_usable) && preprocess.mean.iter().all(|mean| mean.is_finite());
    (!usable).then(|| {
        format!("a mean of {:?} or a deviation of {:?} normalises no image", preprocess.mean, preprocess.deviation)
    })
}

/// The same error at a place, behind which the inner one's stands, if it has one.
fn at(place: &str, error: Error) -> Error {
    match error {
        Error::Stage { stage, place: inner, reason, source } => {
            let reason = if inner.is_empty() { reason } else { format!("{inner}: {reason}") };
            Error::Stage { stage, place: place.to_owned(), reason, source }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clip::VisionSettings;

    const ALONE: &str = transformers::PREPROCESSOR_CONFIG;
    const NESTED: &str = transformers::PROCESSOR_CONFIG;

    /// A folder with `config.json`, which says no more than that it is a CLIP's, and other files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [(transformers::CONFIG, r#"{"model_type": "clip"}"#)].iter().chain(files) {
            fs::write(folder.path().join(name), text).expect("written");
        }
        folder
    }

    fn images(mean: f32) -> String {
        format!(r#"{{"image_mean": [{mean}, {mean}, {mean}]}}"#)
    }

    fn below(images: &str) -> String {
        format!(r#"{{"image_processor": {images}, "processor_class": "CLIPProcessor"}}"#)
    }

    fn found(files: &[(&str, &str)]) -> (Described, Option<String>) {
        describe(folder(files).path(), Naming::Transformers).expect("files of one model")
    }

    fn open_clip_config(change: fn(&mut Described)) -> String {
        let (mut described, _) = found(&[(ALONE, "{}")]);
        change(&mut described);
        open_clip::config(&described).expect("words").to_string()
    }

    #[test]
    fn images_settings_are_read_from_either_file_and_assumed_with_a_warning_without_one() {
        let (assumed, warning) = found(&[]);
        let warning = warning.expect("nothing says what images go through");
        for part in [ALONE, NESTED, "assumed", "shorter side to 224", "0.48145467"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        // transformers before 5 writes no settings of images there.
        assert_eq!(found(&[(NESTED, r#"{"processor_class": "CLIPProcessor"}"#)]).0, assumed);
        assert!(found(&[(NESTED, "{}")]).1.is_some());
        assert_eq!(found(&[(ALONE, "{}")]), (assumed, None));

        let (described, warning) = found(&[(NESTED, &below(&images(0.5)))]);
        assert_eq!((described.preprocess.mean, warning), ([0.5; 3], None));
        assert_eq!(found(&[(ALONE, &images(0.5))]), (described, None));
        let wrong = folder(&[(NESTED, &below(r#"{"resample": 1}"#))]);
        let error = describe(wrong.path(), Naming::Transformers).expect_err("no such filter here").to_string();
        assert!(error.contains(NESTED) && error.contains("resample is 1"), "{error}");
    }

    #[test]
    fn of_two_files_of_images_the_one_of_their_own_counts_and_a_difference_is_told() {
        let alone = images(0.25);
        for differs in [images(0.5), r#"{"resample": 1}"#.to_owned()] {
            let (described, warning) = found(&[(ALONE, &alone), (NESTED, &below(&differs))]);
            assert_eq!(described.preprocess.mean, [0.25; 3]);
            let warning = warning.expect("they differ");
            assert!(warning.contains(ALONE) && warning.contains(NESTED) && warning.contains("differ"), "{warning}");
        }
        for same in [below(&alone), "{}".to_owned()] {
            assert_eq!(found(&[(ALONE, &alone), (NESTED, &same)]).1, None);
        }
    }

    #[test]
    fn files_of_two_libraries_that_contradict_each_other_are_named_with_their_values() {
        let change_side = |described: &mut Described| {
            if let VisionSettings::VisionTransformer(vision) = &mut described.settings.vision {
                vision.image_side_pixels = 336;
            }
        };
        let change_size = |described: &mut Described| {
            described.preprocess.crop_side_pixels = 256;
            described.preprocess.resize = ResizeTo::ShorterSidePixels(256);
        };
        type Case<'a> = (fn(&mut Described), &'a str, &'a [&'a str]);
        let cases: [Case<'_>; 5] = [
            (|found| found.settings.activation = Activation::Gelu, transformers::CONFIG, &["quick_gelu", "says gelu"]),
            (change_side, transformers::CONFIG, &["image side", "224 pixels", "336 pixels"]),
            (change_size, ALONE, &["crop", "224 pixels", "256 pixels"]),
            (|found| found.preprocess.mean = [0.5; 3], ALONE, &["mean", "[0.5, 0.5, 0.5]", "0.48145467"]),
            (|found| found.preprocess.deviation[2] = 0.5, ALONE, &["deviation", "0.5]", "0.2757771]"]),
        ];
        for (change, file, parts) in cases {
            let other = open_clip_config(change);
            let folder = folder(&[(ALONE, "{}"), (open_clip::CONFIG, &other)]);
            let error = describe(folder.path(), Naming::Transformers).expect_err(&other).to_string();
            for part in [file, open_clip::CONFIG].iter().chain(parts) {
                assert!(error.contains(part), "{part}: {error}");
            }
            let error = describe(folder.path(), Naming::OpenClip).expect_err(&other).to_string();
            assert!(error.contains(&format!("{} says", open_clip::CONFIG)) && error.contains(file), "{error}");
        }
    }

    #[test]
    fn rounded_numbers_and_what_is_assumed_contradict_nothing() {
        let rounded = open_clip_config(|found| found.preprocess.mean = [0.481, 0.458, 0.408]);
        let (described, warning) = found(&[(ALONE, "{}"), (open_clip::CONFIG, &rounded)]);
        assert_eq!((described, warning), found(&[(ALONE, "{}")]));
        let other = open_clip_config(|found| found.preprocess.mean = [0.5; 3]);
        let folder = folder(&[(open_clip::CONFIG, &other)]);
        for naming in [Naming::Transformers, Naming::OpenClip] {
            // One of the two files says what images go through.
            let (described, warning) = describe(folder.path(), naming).expect("no contradiction");
            assert_eq!((described.preprocess.mean, warning), ([0.5; 3], None));
        }
    }

    #[test]
    fn a_folder_of_a_run_names_both_ways() {
        let run = tempfile::tempdir().expect("a folder");
        fs::create_dir(run.path().join(CHECKPOINTS_FOLDER)).expect("made");
        let error = file_of(run.path()).expect_err("no weights").to_string();
        assert!(error.contains("name it with --run") && error.contains("`diptych export`"), "{error}");
    }
}
