//! `diptych export RUN`: a run's CLIP as a folder that other programs load.
use std::path::{Path, PathBuf};

use super::{folder::RunFolder, methods::PlannedMethod, output, progress};
use crate::{
    augment::{
        image::preprocess::{CropRounding, Preprocess, ResizeTo, RgbConversion},
        recipe::ImageOpSettings,
    },
    device,
    error::{Context as _, Error, Result, Stage},
    evaluate::clip::{Described, checkpoint},
    method::MethodSettings,
    model::clip::{ClipSettings, Naming, VisionSettings},
    pipeline::Plan,
    train::{checkpoint::latest, state::restore},
};

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// The run's folder.
    pub run: PathBuf,
    /// A new folder.
    pub to: PathBuf,
    /// Whose files; default: transformers', where it has such a model.
    pub naming: Option<Naming>,
}

/// Writes the newest checkpoint of a run, averaged weights where it has some, with the configuration beside them.
///
/// # Errors
/// There is no such run or checkpoint, it is of another method, a configuration cannot say what its images go through, or
/// the folder holds something.
pub fn run(request: &Request) -> Result<()> {
    let (folder, plan) = RunFolder::open(&request.run, &[])?;
    let mut described = described(&plan)?;
    check_new(&request.to)?;
    let Some((newest, damaged)) = latest(folder.path())? else {
        let named = request.run.display().to_string();
        let reason = format!("there is no checkpoint yet; go on with diptych train --resume {named}");
        return Err(Error::at(Stage::Checkpoint, named, reason));
    };
    damaged.iter().for_each(|damage| progress::log(&format!("warning: {damage}")));
    let weights = newest.tensors.ema.as_ref().unwrap_or(&newest.tensors.weights);
    let method = restore(PlannedMethod::new(&plan, &device::parse("cpu")?)?, weights)?;
    let clip = method.clip().ok_or_else(|| Error::internal("settings of CLIP made another method"))?;
    let naming = request.naming.unwrap_or_else(|| naming_of(&described.settings));
    described.preprocess.crop_rounding = crop_rounding_of(naming);
    let file = checkpoint::write(&request.to, naming, clip.towers(), &described)?;
    let (step, averaged) = (newest.state.progress.step, if newest.tensors.ema.is_some() { ", averaged" } else { "" });
    output::line(&format!("{}: weights of step {step}{averaged}, as {} names them", file.display(), naming.name()))
}

/// What a configuration says of a run's model and its images.
///
/// Images are RGB before the resize, as they were in training. No configuration says so: who reads open_clip's converts
/// afterwards, here as elsewhere, which shows in images with alpha, a palette or one bit.
///
/// # Errors
/// The run is of another method; its evaluation recipe is no resize and crop.
pub fn described(plan: &Plan) -> Result<Described> {
    let MethodSettings::Clip(settings) = &plan.pipeline.method else {
        let reason = "this run's method is not CLIP; other weights are in its checkpoints, weights.safetensors";
        return Err(Error::at(Stage::CommandLine, plan.named.as_str(), reason));
    };
    let [ImageOpSettings::Resize(resize), ImageOpSettings::CenterCrop(crop)] =
        plan.pipeline.augment.evaluation.as_slice()
    else {
        let reason =
            "is not resize and then center_crop, which is all that a model's configuration can say of its images";
        return Err(Error::at(Stage::CommandLine, "augment.evaluation", reason));
    };
    let narrow = |values: [f64; 3]| values.map(|value| value as f32);
    let towers = settings.towers();
    let preprocess = Preprocess {
        resize: ResizeTo::ShorterSidePixels(resize.side_pixels as usize),
        interpolation: resize.interpolation,
        crop_side_pixels: crop.side_pixels as usize,
        crop_rounding: crop_rounding_of(naming_of(&towers)),
        rgb_conversion: RgbConversion::BeforeResize,
        mean: narrow(settings.pixel_mean),
        deviation: narrow(settings.pixel_deviation),
    };
    Ok(Described { settings: towers, preprocess })
}

/// What a configuration of this kind is taken to mean.
fn crop_rounding_of(naming: Naming) -> CropRounding {
    match naming {
        Naming::Transformers => CropRounding::Down,
        Naming::OpenClip => CropRounding::HalfToEven,
    }
}

/// transformers' `CLIPModel` has neither the paper's ResNets nor a bias.
fn naming_of(settings: &ClipSettings) -> Naming {
    match &settings.vision {
        VisionSettings::VisionTransformer(_) if !settings.logit_bias => Naming::Transformers,
        _ => Naming::OpenClip,
    }
}

fn check_new(folder: &Path) -> Result<()> {
    let named = folder.display().to_string();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        entries => match entries.context(Stage::CommandLine, &named, "cannot be read; name a new folder")?.next() {
            None => Ok(()),
            Some(_) => Err(Error::at(Stage::CommandLine, named, "is not empty; name a new folder")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::recipe::Interpolation;

    #[test]
    fn a_configuration_says_what_the_evaluation_recipe_does() {
        let plan = |name: &str, sets: &[&str]| {
            Plan::read(name, &sets.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
        };
        let found = described(&plan("clip", &["augment.evaluation=[]"])).unwrap();
        // Without a recipe a border of an eighth is left out.
        assert_eq!(found.preprocess.resize, ResizeTo::ShorterSidePixels(74));
        assert_eq!((found.preprocess.crop_side_pixels, found.preprocess.mean), (64, [0.5; 3]));
        // The filter is that of the training crop.
        assert_eq!(found.preprocess.interpolation, Interpolation::Bicubic);
        assert_eq!(found.preprocess.rgb_conversion, RgbConversion::BeforeResize);
        assert_eq!(naming_of(&found.settings), Naming::Transformers);
        assert_eq!(naming_of(&described(&plan("siglip", &[])).unwrap().settings), Naming::OpenClip);
        let crop = "augment.evaluation=[{ center_crop = { side_pixels = 64 } }]";
        assert!(described(&plan("clip", &[crop])).unwrap_err().to_string().contains("augment.evaluation"));
        assert!(described(&plan("simclr_small", &[])).unwrap_err().to_string().contains("not CLIP"));
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_new(&folder.path().join("new")).is_ok() && check_new(folder.path()).is_ok());
        std::fs::write(folder.path().join("x"), "x").unwrap();
        assert!(check_new(folder.path()).unwrap_err().to_string().contains("not empty"));
    }
}
