//! The CLIP that a command line names: released weights, or a run.
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::Device;

use super::methods::PlannedMethod;
use crate::{
    device,
    error::{Context as _, Error, Result, Stage},
    evaluate::clip::{
        checkpoint,
        clip_score::ClipScore,
        embedder::Embedder,
        pair_scores::{check_pairwise, pair_scores},
    },
    method::Method as _,
    pipeline::Plan,
    select::{
        functions::clip_score::{ClipScores, NAME},
        tables::TableProvenance,
    },
};

/// A model that embeds, and on which device.
#[derive(Debug, Clone)]
pub struct ClipModel {
    /// A safetensors file, or the folder in which it is.
    pub weights: PathBuf,
    /// As `--device` names it.
    pub device: String,
}

impl ClipModel {
    /// Reads the weights.
    ///
    /// # Errors
    /// The weights' and their configuration's.
    pub fn open(&self) -> Result<Embedder> {
        let device = device::parse(&self.device)?;
        let read = checkpoint::read(&self.weights, None, &device)?;
        Embedder::new(read, device)
    }

    /// What `clip_score` asks in SQL.
    ///
    /// # Errors
    /// As [`Self::open`]; a variant that says nothing of an image and one text.
    pub fn scores(&self, variant: ClipScore) -> Result<ClipScores> {
        check_pairwise(variant)?;
        let file = checkpoint::file_of(&self.weights)?;
        let provenance = TableProvenance {
            name: format!("{NAME} ({})", variant.name()),
            files: vec![file.display().to_string()],
            blake3: hash(&file, variant)?,
        };
        // Parts of a query take turns: the model has all cores anyway, and memory for one batch is enough.
        let embedder = Mutex::new(self.open()?);
        let scores = move |images: &[Option<&[u8]>], texts: &[Option<&str>]| {
            let embedder = embedder.lock().unwrap_or_else(PoisonError::into_inner);
            pair_scores(&embedder, variant, images, texts)
        };
        Ok(ClipScores::new(Arc::new(scores), provenance))
    }
}

/// The towers of a run's method.
///
/// # Errors
/// It has no text tower.
pub(super) fn of_method(plan: &Plan, method: &PlannedMethod, device: &Device) -> Result<Embedder> {
    let _ = device;
    let reason = format!(
        "is a run of {}, which has no text tower; zero_shot, retrieval and clip_score are of methods that embed texts",
        method.name()
    );
    Err(Error::at(Stage::Evaluate, plan.named.as_str(), reason))
}

/// Of the weights and of what is made of them.
fn hash(file: &Path, variant: ClipScore) -> Result<String> {
    let place = file.display().to_string();
    let mut hasher = blake3::Hasher::new();
    let opened = File::open(file).context(Stage::Checkpoint, &place, "cannot be read")?;
    hasher.update_reader(opened).context(Stage::Checkpoint, &place, "cannot be read")?;
    hasher.update(variant.name().as_bytes());
    Ok(hasher.finalize().to_hex().to_string())
}
