//! CLIP (Radford et al. 2021, arXiv 2103.00020): an image and its text attract, every other pair of the batch repels.
//!
//! With SigLIP's loss (Zhai et al. 2023) every image and text is a decision of its own.
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use super::{BatchRows, Embedded, Method, MethodOutput, Reading};
use crate::augment::image::preprocess::{CLIP_DEVIATION, CLIP_MEAN};
use crate::batch::{Input, PairCaptions, Pairs};
use crate::error::{Error, Result, Stage};
use crate::loss::duplicates::{DuplicatePolicy, Duplicates};
use crate::loss::symmetric::MOST_LOGIT_SCALE;
use crate::loss::tower_loss::TowerLoss;
use crate::model::clip::{
    Activation, Captions, Clip, ClipSettings, Dropout, TextSettings, VisionSettings, patch_dropout,
};
use crate::model::{InitOptions, NormSettings};

/// `[method.clip]`; the defaults are ViT-B/32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Columns that images and texts share.
    pub embedding_width: usize,
    /// Inside every perceptron of both towers.
    pub activation: Activation,
    /// The image tower: exactly one.
    pub vision: VisionSettings,
    /// The text tower.
    pub text: TextSettings,
    /// Share of an image's patches that a step does not look at (Li et al. 2023).
    pub patch_dropout: f64,
    /// Share of what each block of both transformers adds that is dropped in training; the papers drop nothing.
    pub dropout: f64,
    /// Which loss.
    pub loss: TowerLoss,
    /// What becomes of texts and images that stand in a batch twice.
    pub duplicates: DuplicatePolicy,
    /// Rows of the matrix of logits that the loss holds at a time; default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_tile_rows: Option<usize>,
    /// Taken from red, green and blue, which are in [0, 1].
    pub pixel_mean: [f64; 3],
    /// What they are divided by.
    pub pixel_deviation: [f64; 3],
    /// What evaluation takes from an image.
    pub features: Features,
}
impl Default for Settings {
    fn default() -> Self {
        let ClipSettings { embedding_width, activation, vision, text, .. } = ClipSettings::default();
        // Through their shortest decimals, which files then show.
        let decimal = |values: [f32; 3]| values.map(|value| value.to_string().parse().unwrap_or(f64::from(value)));
        Self {
            embedding_width,
            activation,
            vision,
            text,
            patch_dropout: 0.0,
            dropout: 0.0,
            loss: TowerLoss::Softmax,
            duplicates: DuplicatePolicy::Keep,
            loss_tile_rows: None,
            pixel_mean: decimal(CLIP_MEAN),
            pixel_deviation: decimal(CLIP_DEVIATION),
            features: Features::BeforeProjection,
        }
    }
}

/// One vector of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Features {
    /// What is projected into the embedding: what the paper's linear probes see.
    BeforeProjection,
    /// What is compared with texts.
    Embedding,
}

impl Settings {
    /// Sizes and choices of the towers.
    pub fn towers(&self) -> ClipSettings {
        ClipSettings {
            embedding_width: self.embedding_width,
            activation: self.activation,
            vision: self.vision.clone(),
            text: self.text.clone(),
            logit_bias: self.loss.has_bias(),
        }
    }

    /// Why a batch cannot be taken in chunks: what is normalised over a batch would be normalised over a chunk.
    pub fn refuses_chunks(&self) -> Option<String> {
        match &self.vision {
            VisionSettings::ModifiedResnet(vision) if vision.norm == NormSettings::Batch => Some(
                "vision.modified_resnet.norm = \"batch\" normalises over the batch, so that chunks of it would give other \
                 embeddings; set vision.modified_resnet.norm = \"group\" (or \"frozen\" for trained weights)"
                    .to_owned(),
            ),
            VisionSettings::ModifiedResnet(_) | VisionSettings::VisionTransformer(_) => None,
        }
    }
}

/// Both towers, their scale, and the loss between them.
#[derive(Module, Debug)]
pub struct CLIP {
    towers: Clip,
    #[module(skip)]
    settings: Settings,
    /// For patches and states that are dropped.
    #[module(skip)]
    seed: u64,
}

impl CLIP {
    /// A new model with weights as the paper starts them.
    ///
    /// # Errors
    /// Sizes that contradict each other.
    pub fn new(settings: &Settings, init: InitOptions, device: &Device) -> Result<Self> {
        let towers = Clip::new(&settings.towers(), init, device)?;
        Ok(Self { towers, settings: settings.clone(), seed: init.seed })
    }

    /// Both towers.
    pub fn towers(&self) -> &Clip {
        &self.towers
    }

    /// Images as the tower takes them, from floats in [0, 1]. `[images, 3, side, side]` to the same.
    fn normalized(&self, pixels: Tensor<4>) -> Tensor<4> {
        let device = pixels.device();
        let channels = |values: [f64; 3]| {
            Tensor::<1>::from_floats(values.map(|value| value as f32), &device).reshape([1, 3, 1, 1])
        };
        (pixels - channels(self.settings.pixel_mean)) / channels(self.settings.pixel_deviation)
    }

    /// The patches that are looked at in these rows; all where it is `None`.
    fn kept(&self, rows: BatchRows, images: usize, device: &Device) -> Option<Tensor<2, Int>> {
        let VisionSettings::VisionTransformer(vision) = &self.settings.vision else { return None };
        let (patches, share) = (vision.patches(), self.settings.patch_dropout);
        (share > 0.0).then(|| patch_dropout::kept(self.seed, rows.step, rows.first, images, patches, share, device))
    }

    fn dropout(&self, rows: BatchRows) -> Option<Dropout> {
        let share = self.settings.dropout;
        (share > 0.0).then_some(Dropout { share, seed: self.seed, step: rows.step, first_row: rows.first })
    }

    fn check(&self, images: &Tensor<4>, tokens: &[Vec<u32>]) -> Result<()> {
        let side = self.settings.vision.image_side_pixels();
        let [_, _, height, width] = images.dims();
        if [height, width] != [side, side] {
            let reason = format!("images of {width}x{height} pixels; the tower looks at {side}x{side}");
            return Err(Error::at(Stage::Model, "clip", reason));
        }
        let known = self.settings.text.vocabulary_tokens;
        match tokens.iter().flatten().find(|&&id| id as usize >= known) {
            Some(id) => Err(Error::at(Stage::Model, "clip", format!("token {id} of a vocabulary of {known}"))),
            None => Ok(()),
        }
    }
}

impl Method for CLIP {
    fn name(&self) -> &'static str {
        "clip"
    }

    fn feature_width(&self) -> usize {
        match self.settings.features {
            Features::BeforeProjection => self.settings.vision.pooled_width(),
            Features::Embedding => self.settings.embedding_width,
        }
    }

    fn features_in_words(&self) -> &'static str {
        match self.settings.features {
            Features::BeforeProjection => "the image tower's, in front of the projection",
            Features::Embedding => "the image's embedding",
        }
    }

    fn least_items(&self) -> usize {
        2
    }

    /// open_clip has a group without decay for whatever has fewer than two dimensions, the scale and the bias among them.
    fn decays_vectors_in_torch(&self) -> bool {
        false
    }

    fn train_loss(&mut self, input: Input, step: u64) -> Result<MethodOutput> {
        let embedded = self.embed(input, BatchRows::whole(step))?;
        self.loss_of(embedded)
    }

    fn refuses_chunks(&self) -> Option<String> {
        self.settings.refuses_chunks()
    }

    fn embed(&mut self, input: Input, rows: BatchRows) -> Result<Embedded> {
        let Pairs { images, captions } = input.into_pairs(self.name())?;
        let PairCaptions { tokens, images: of_images, texts: of_texts } = captions;
        self.check(&images, &tokens)?;
        let device = images.device();
        let dropout = self.dropout(rows);
        let texts = self.towers.encode_texts_train(&Captions::new(&tokens, &device)?, dropout.as_ref())?;
        let kept = self.kept(rows, images.dims()[0], &device);
        let images = self.normalized(images);
        let images = self.towers.encode_images_train(images, kept, dropout.as_ref());
        Ok(Embedded { sides: [images, texts], identities: [Some(of_images), Some(of_texts)] })
    }

    fn loss_of(&self, embedded: Embedded) -> Result<MethodOutput> {
        let pairs = embedded.items();
        let Embedded { sides, identities } = embedded;
        let known = [identities[0].as_deref(), identities[1].as_deref()];
        let Settings { loss, duplicates: policy, loss_tile_rows, .. } = self.settings;
        let duplicates = Duplicates::new(policy, known)?;
        let (scale, bias) = (self.towers.logit_scale.val(), self.towers.logit_bias.as_ref().map(|bias| bias.val()));
        let compared = loss.forward(sides, scale.clone(), bias.clone(), &duplicates, loss_tile_rows)?;
        let [images, texts] = duplicates.repeated().map(|repeated| vec![repeated as f64]);
        let mut readings = vec![
            Reading::measured("logit_scale", scale.without_autodiff().exp()),
            Reading::measured("image_to_text_accuracy", compared.image_to_text_accuracy),
            Reading::measured("text_to_image_accuracy", compared.text_to_image_accuracy),
            Reading::known("duplicate_images", images),
            Reading::known("duplicate_captions", texts),
        ];
        readings.extend(bias.map(|bias| Reading::measured("logit_bias", bias.without_autodiff())));
        Ok(MethodOutput {
            loss: compared.loss,
            embeddings: compared.embeddings,
            no_signal_loss: loss.no_signal(&duplicates, pairs),
            readings,
        })
    }

    fn features(&self, input: Input) -> Result<Tensor<2>> {
        let pixels = input.into_images(self.name())?.without_autodiff();
        self.check(&pixels, &[])?;
        let (towers, pixels) = (self.towers.valid(), self.normalized(pixels));
        Ok(match self.settings.features {
            Features::BeforeProjection => towers.pooled_images(pixels),
            Features::Embedding => towers.encode_images(pixels),
        })
    }

    /// Brings the scale back to 100 at most, as the paper does. In the parameter, not in the forward pass: there the
    /// gradient would end, and the scale could never fall again. SigLIP's has no bound.
    fn after_step(&mut self) {
        if self.settings.loss == TowerLoss::Sigmoid {
            return;
        }
        self.towers.logit_scale = self.towers.logit_scale.clone().map(|scale| {
            let (strategy, is_trained) = (scale.gradient_checkpointing_strategy(), scale.is_require_grad());
            let clamped = scale.without_autodiff().clamp_max(MOST_LOGIT_SCALE);
            match strategy {
                None => clamped,
                Some(strategy) => {
                    clamped.autodiff().with_gradient_checkpointing_strategy(strategy).set_require_grad(is_trained)
                }
            }
        });
    }
}
