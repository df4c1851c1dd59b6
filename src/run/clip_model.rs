//! The CLIP that a command line names: released weights, or a run.
use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use burn::tensor::Device;

use super::{export::described, folder::RunFolder, methods::PlannedMethod, progress};
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
    model::clip::{Activation, Naming},
    pipeline::Plan,
    scan::ClipScoreSettings,
    select::{
        functions::clip_score::{ClipScores, NAME},
        tables::TableProvenance,
    },
    train::{
        checkpoint::{Checkpoint, latest},
        state::restore,
    },
};

/// Where a model lies.
#[derive(Debug, Clone)]
pub enum Place {
    /// A safetensors file, or the folder in which it is.
    Weights(PathBuf),
    /// The folder of a run, of which the newest checkpoint counts.
    Run(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Weights(path) | Self::Run(path)) = self;
        path.display().fmt(f)
    }
}

/// A model that embeds, and on which device.
#[derive(Debug, Clone)]
pub struct ClipModel {
    /// Where it lies.
    pub place: Place,
    /// As `--device` names it.
    pub device: String,
}

impl ClipModel {
    /// The model that a pipeline's SQL asks, and for which score.
    ///
    /// # Errors
    /// Ours: the settings were checked before.
    pub fn of_pipeline(settings: &ClipScoreSettings, device: &str) -> Result<(Self, ClipScore)> {
        let ClipScoreSettings { weights, run, variant } = settings;
        let place = weights.as_ref().map(|path| Place::Weights(path.into()));
        let place = place.or(run.as_ref().map(|path| Place::Run(path.into())));
        let unchecked = || Error::internal("scan.clip_score was not checked");
        let model = Self { place: place.ok_or_else(unchecked)?, device: device.to_owned() };
        Ok((model, variant.parse().map_err(|_| unchecked())?))
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// The weights' and their configuration's; a run without a checkpoint, or of a method without a text tower.
    pub fn open(&self) -> Result<Embedder> {
        let device = device::parse(&self.device)?;
        match &self.place {
            Place::Weights(weights) => of_weights(weights, None, device),
            Place::Run(run) => Ok(of_run(run, &device)?.0),
        }
    }

    /// What `clip_score` asks in SQL.
    ///
    /// # Errors
    /// As [`Self::open`]; a variant that says nothing of an image and one text.
    pub fn scores(&self, variant: ClipScore) -> Result<ClipScores> {
        check_pairwise(variant)?;
        let (embedder, file, hash) = self.open_hashed()?;
        // A selection is read elsewhere.
        let file = std::path::absolute(&file).unwrap_or(file);
        // Parts of a query take turns: the model has all cores anyway, and memory for one batch is enough.
        let embedder = Mutex::new(embedder);
        let provenance = TableProvenance {
            name: format!("{NAME} ({})", variant.name()),
            files: vec![file.display().to_string()],
            blake3: blake3::hash(format!("{hash} {}", variant.name()).as_bytes()).to_hex().to_string(),
        };
        let scores = move |images: &[Option<&[u8]>], texts: &[Option<&str>]| {
            let embedder = embedder.lock().unwrap_or_else(PoisonError::into_inner);
            pair_scores(&embedder, variant, images, texts)
        };
        Ok(ClipScores::new(Arc::new(scores), provenance))
    }

    /// The same, where the weights are, and what was in them as they were read.
    fn open_hashed(&self) -> Result<(Embedder, PathBuf, String)> {
        match &self.place {
            Place::Weights(weights) => {
                let file = checkpoint::file_of(weights)?;
                let before = hash(&file)?;
                let embedder = self.open()?;
                if hash(&file)? != before {
                    let place = file.display().to_string();
                    return Err(Error::at(Stage::Checkpoint, place, "changed while it was read; try again"));
                }
                Ok((embedder, file, before))
            }
            Place::Run(run) => of_run(run, &device::parse(&self.device)?),
        }
    }
}

/// The model of a file or folder with weights; says on stderr what its configuration leaves open.
///
/// # Errors
/// The weights' and their configuration's.
pub(super) fn of_weights(weights: &Path, activation: Option<Activation>, device: Device) -> Result<Embedder> {
    let checkpoint = checkpoint::read(weights, activation, &device)?;
    checkpoint.warning.iter().for_each(|warning| progress::log(&format!("warning: {warning}")));
    Embedder::new(checkpoint, device)
}

/// The newest checkpoint of a run: its model, its folder, and the hashes of its files.
fn of_run(run: &Path, device: &Device) -> Result<(Embedder, PathBuf, String)> {
    let (folder, plan) = RunFolder::open(run, &[])?;
    let newest = newest(&folder)?;
    let weights = newest.tensors.ema.as_ref().unwrap_or(&newest.tensors.weights);
    let embedder = of_method(&plan, &restore(PlannedMethod::new(&plan, device)?, weights)?, device)?;
    // Optimizer and averages among them: other steps are other models anyway.
    let hashes: Vec<String> = newest.state.files.into_values().collect();
    Ok((embedder, newest.folder, hashes.join(" ")))
}

/// The newest checkpoint of a run that is whole.
///
/// # Errors
/// There is none.
pub(super) fn newest(folder: &RunFolder) -> Result<Checkpoint> {
    let named = folder.path().display().to_string();
    let Some((newest, damaged)) = latest(folder.path())? else {
        let reason = format!("there is no checkpoint yet; go on with diptych train --resume {named}");
        return Err(Error::at(Stage::Evaluate, named, reason));
    };
    damaged.iter().for_each(|damage| progress::log(&format!("warning: {damage}")));
    Ok(newest)
}

/// The towers of a run's method; images go through its evaluation recipe.
///
/// # Errors
/// It has no text tower; its evaluation recipe is no resize and crop.
pub(super) fn of_method(plan: &Plan, method: &PlannedMethod, device: &Device) -> Result<Embedder> {
    let Some(method) = method.clip() else {
        let reason = format!(
            "is a run of {}, which has no text tower; zero_shot, retrieval and embeddings of texts are of method.clip",
            method.name()
        );
        return Err(Error::at(Stage::CommandLine, plan.named.as_str(), reason));
    };
    let checkpoint = checkpoint::Checkpoint {
        clip: method.towers().clone(),
        described: described(plan)?,
        naming: Naming::OpenClip,
        left_out: vec![],
        warning: None,
    };
    Embedder::new(checkpoint, device.clone())
}

fn hash(file: &Path) -> Result<String> {
    let place = file.display().to_string();
    let mut hasher = blake3::Hasher::new();
    let opened = File::open(file).context(Stage::Checkpoint, &place, "cannot be read")?;
    hasher.update_reader(opened).context(Stage::Checkpoint, &place, "cannot be read")?;
    Ok(hasher.finalize().to_hex().to_string())
}
