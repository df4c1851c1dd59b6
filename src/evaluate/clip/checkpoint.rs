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
use crate::augment::image::preprocess::ResizeTo;
use crate::error::{Context as _, Error, Result, Stage};
use crate::model::clip::{Activation, Clip, Naming};
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
}

/// Reads weights and the configuration beside them.
///
/// `weights` is a safetensors file or its folder. `activation` is what the caller takes for granted; it is compared.
///
/// # Errors
/// No weights of a CLIP; no configuration; one that contradicts the weights, the notes in the file, the other
/// library's, or `activation`.
pub fn read(weights: &Path, activation: Option<Activation>, device: &Device) -> Result<Checkpoint> {
    let weights = file_of(weights)?;
    let place = weights.display().to_string();
    let bytes = fs::read(&weights).context(Stage::Checkpoint, &place, "cannot be read")?;
    let (entries, notes) = from_owned_bytes(&place, bytes)?;
    let naming = Naming::of(&entries).map_err(|error| at(&place, error))?;
    let folder = weights.parent().unwrap_or(Path::new(""));
    let described = describe(folder, naming)?;
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
    Ok(Checkpoint { clip, described, naming, left_out })
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
        let reason = if weights.join("checkpoints").is_dir() {
            "is a run; `diptych export` writes its weights as a CLIP that can be named here".to_owned()
        } else {
            format!("has none of {}; name the file with the weights", WEIGHTS.map(|(name, _)| name).join(", "))
        };
        Error::at(Stage::Checkpoint, weights.display().to_string(), reason)
    })
}

/// What the files beside the weights say. Where both libraries' are there, the one of the weights' own names counts, and the
/// other must have the same activation.
fn describe(folder: &Path, naming: Naming) -> Result<Described> {
    let read = |name: &str| -> Result<Option<(String, String)>> {
        let path = folder.join(name);
        let place = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some((place, text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::at(Stage::Checkpoint, place, "cannot be read").caused_by(error)),
        }
    };
    let preprocessor = read(transformers::PREPROCESSOR_CONFIG)?;
    let preprocessor = preprocessor.as_ref().map(|(place, text)| (place.as_str(), text.as_str()));
    let theirs =
        read(transformers::CONFIG)?.map(|(place, text)| transformers::described((&place, &text), preprocessor));
    let ours = read(open_clip::CONFIG)?.map(|(place, text)| open_clip::described(&place, &text));
    let (own, other) = match naming {
        Naming::Transformers => (theirs, ours),
        Naming::OpenClip => (ours, theirs),
    };
    match (own, other) {
        (Some(own), other) => {
            let own = own?;
            // A configuration that says nothing of this model contradicts nothing.
            if let Some(Ok(other)) = other {
                let (a, b) = (own.settings.activation, other.settings.activation);
                if a != b {
                    let says = format!("the other library's configuration beside it says {}", b.name());
                    return Err(mismatch(&folder.display().to_string(), &says, a));
                }
            }
            Ok(own)
        }
        (None, Some(other)) => other,
        (None, None) => {
            let reason = format!(
                "has neither {} nor {} beside the weights, and weights do not tell their activation; fetch it from where \
                 they come from",
                transformers::CONFIG,
                open_clip::CONFIG
            );
            Err(Error::at(Stage::Checkpoint, folder.display().to_string(), reason))
        }
    }
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
