//! CLIP: an image tower, a text tower, and the temperature between them (Radford et al. 2021).
//!
//! Field names are open_clip's, so a parameter's path is its name in their files; [`naming`] has transformers' names.

pub mod attention_pool;
pub mod captions;
pub mod dropout;
pub mod modified_resnet;
pub mod naming;
pub mod patch_dropout;
pub mod residual_block;
pub mod settings;
pub mod text_transformer;
pub mod transformer;
pub mod vision_transformer;

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

pub use captions::Captions;
pub use dropout::Dropout;
pub use naming::Naming;
pub use settings::{
    Activation, ClipSettings, ModifiedResnetSettings, TextSettings, VisionSettings, VisionTransformerSettings,
};

use self::modified_resnet::ModifiedResnet;
use self::residual_block::{BlockPlan, BlockStarts, ResidualBlock, norm};
use self::text_transformer::{TokenEmbedding, read};
use self::transformer::Transformer;
use self::vision_transformer::VisionTransformer;
use super::layer_norm::LayerNorm;
use super::parameters::{Loaded, Parameters, Start};
use super::{InitOptions, Initializer};
use crate::error::{Error, Result, Stage};
use crate::loss::l2_normalize;

/// ln(1 / 0.07): the logarithm of the scale that training starts with.
pub const INITIAL_LOGIT_SCALE: f32 = 2.659_26;

/// SigLIP's logits start with a scale of 10 and a bias of −10 (Zhai et al. 2023).
pub const SIGLIP_LOGIT_SCALE: f32 = std::f32::consts::LN_10;
/// See [`SIGLIP_LOGIT_SCALE`].
pub const SIGLIP_LOGIT_BIAS: f32 = -10.0;

/// Deviations of the text tower's embeddings at the start.
const TOKEN_DEVIATION: f64 = 0.02;
const POSITION_DEVIATION: f64 = 0.01;

/// Both towers. The text tower's fields stand at the top, as in the files.
#[derive(Module, Debug)]
pub struct Clip {
    visual: Visual,
    transformer: Transformer,
    token_embedding: TokenEmbedding,
    positional_embedding: Param<Tensor<2>>,
    ln_final: LayerNorm,
    /// `[text width, embedding]`
    text_projection: Param<Tensor<2>>,
    /// Logarithm of the scale, `[1]`; in files it has no axis.
    pub logit_scale: Param<Tensor<1>>,
    /// `[1]`; in files it has no axis.
    pub logit_bias: Option<Param<Tensor<1>>>,
}

#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one; a box would only add a hop")]
enum Visual {
    VisionTransformer(VisionTransformer),
    ModifiedResnet(ModifiedResnet),
}

impl Clip {
    /// With weights as the paper starts them.
    ///
    /// # Errors
    /// Sizes that contradict each other.
    pub fn new(settings: &ClipSettings, init: InitOptions, device: &Device) -> Result<Self> {
        settings.check()?;
        Ok(Self::build(settings, &mut Parameters::Drawn(Initializer::new(init, device))))
    }

    /// With weights from a file, under open_clip's names.
    ///
    /// # Errors
    /// Sizes that contradict each other; every missing, unused and misshapen entry at once.
    pub fn load(settings: &ClipSettings, entries: BTreeMap<String, TensorData>, device: &Device) -> Result<Self> {
        settings.check()?;
        let mut parameters = Parameters::Loaded(Loaded::new(entries, device));
        let clip = Self::build(settings, &mut parameters);
        let Parameters::Loaded(loaded) = parameters else { return Ok(clip) };
        let problems = loaded.problems();
        if problems.is_empty() {
            return Ok(clip);
        }
        let (count, list) = (problems.len(), problems.join("\n  "));
        let reason = format!("the weights do not fit the configuration, {count} entries differ\n  {list}");
        Err(Error::at(Stage::Checkpoint, "", reason))
    }

    fn build(settings: &ClipSettings, parameters: &mut Parameters<'_>) -> Self {
        let (text, embedding) = (&settings.text, settings.embedding_width);
        let width = text.width;
        let visual = match &settings.vision {
            VisionSettings::VisionTransformer(vision) => Visual::VisionTransformer(VisionTransformer::new(
                "visual",
                vision,
                embedding,
                settings.activation,
                parameters,
            )),
            VisionSettings::ModifiedResnet(vision) => {
                Visual::ModifiedResnet(ModifiedResnet::new("visual", vision, embedding, parameters))
            }
        };
        let plan = BlockPlan {
            width,
            perceptron_width: text.perceptron_width,
            heads: text.heads,
            causal: true,
            activation: settings.activation,
            starts: BlockStarts::text(width, text.blocks),
        };
        let resblocks = (0..text.blocks)
            .map(|index| ResidualBlock::new(&format!("transformer.resblocks.{index}"), &plan, parameters))
            .collect();
        let scale = if settings.logit_bias { SIGLIP_LOGIT_SCALE } else { INITIAL_LOGIT_SCALE };
        Self {
            visual,
            transformer: Transformer { resblocks },
            token_embedding: TokenEmbedding {
                weight: parameters.trained(
                    "token_embedding.weight",
                    [text.vocabulary_tokens, width],
                    Start::Normal(TOKEN_DEVIATION),
                ),
            },
            positional_embedding: parameters.trained(
                "positional_embedding",
                [text.context_tokens, width],
                Start::Normal(POSITION_DEVIATION),
            ),
            ln_final: norm("ln_final", width, parameters),
            text_projection: parameters.trained(
                "text_projection",
                [width, embedding],
                Start::Normal((width as f64).sqrt().recip()),
            ),
            logit_scale: parameters.trained("logit_scale", [1], Start::Constant(scale)),
            logit_bias: settings
                .logit_bias
                .then(|| parameters.trained("logit_bias", [1], Start::Constant(SIGLIP_LOGIT_BIAS))),
        }
    }

    /// Images as they are compared with texts, not normalised; BatchNorm uses its running statistics.
    ///
    /// # Shapes
    /// `[images, 3, side, side]`, normalised, to `[images, embedding]`.
    pub fn encode_images(&self, pixels: Tensor<4>) -> Tensor<2> {
        match &self.visual {
            Visual::VisionTransformer(tower) => tower.forward(pixels, None),
            Visual::ModifiedResnet(tower) => tower.forward_eval(pixels),
        }
    }

    /// What [`Self::encode_images`] projects into the embedding: what the paper's linear probes are trained on.
    ///
    /// # Shapes
    /// `[images, 3, side, side]`, normalised, to `[images, VisionSettings::pooled_width]`.
    pub fn pooled_images(&self, pixels: Tensor<4>) -> Tensor<2> {
        match &self.visual {
            Visual::VisionTransformer(tower) => tower.pooled(pixels, None),
            Visual::ModifiedResnet(tower) => tower.pooled_eval(pixels),
        }
    }

    /// [`Self::encode_images`] in training: BatchNorm uses the batch's statistics, and a vision transformer sees only the
    /// patches `kept`, `[images, patches kept]`, where there are some, and has dropout where there is one.
    pub fn encode_images_train(
        &mut self,
        pixels: Tensor<4>,
        kept: Option<Tensor<2, Int>>,
        dropout: Option<&Dropout>,
    ) -> Tensor<2> {
        match &mut self.visual {
            Visual::VisionTransformer(tower) => tower.forward_train(pixels, kept, dropout),
            Visual::ModifiedResnet(tower) => tower.forward_train(pixels),
        }
    }

    /// Texts as they are compared with images, not normalised.
    ///
    /// # Shapes
    /// `[texts]` to `[texts, embedding]`.
    ///
    /// # Errors
    /// A text is longer than the context.
    pub fn encode_texts(&self, captions: &Captions) -> Result<Tensor<2>> {
        self.encode_texts_train(captions, None)
    }

    /// [`Self::encode_texts`] in training, with dropout where there is one.
    ///
    /// # Errors
    /// As of [`Self::encode_texts`].
    pub fn encode_texts_train(&self, captions: &Captions, dropout: Option<&Dropout>) -> Result<Tensor<2>> {
        let positions = self.positional_embedding.val(); // [context, width]
        let ([_, longest], [context, _]) = (captions.tokens.dims(), positions.dims());
        if longest > context {
            let reason = format!("a text of {longest} tokens; this model reads {context}, so cut it to these");
            return Err(Error::at(Stage::Model, "captions", reason));
        }
        let x = read(&self.token_embedding, captions, positions); // [texts, longest, width]
        let [texts, longest, width] = x.dims();
        let ends = |x: Tensor<3>| x.reshape([texts * longest, width]).select(0, captions.ends.clone());
        let ends = self.transformer.read(x, "transformer", dropout, ends); // [texts, width]
        Ok(self.ln_final.forward(ends).matmul(self.text_projection.val()))
    }

    /// How alike embeddings are.
    ///
    /// # Shapes
    /// `[images, embedding]`, `[texts, embedding]` to `[images, texts]`.
    pub fn cosines(&self, images: Tensor<2>, texts: Tensor<2>) -> Tensor<2> {
        l2_normalize(images).matmul(l2_normalize(texts).transpose())
    }

    /// Cosines, scaled, and shifted where there is a bias.
    ///
    /// # Shapes
    /// `[images, texts]` to the same.
    pub fn logits(&self, cosines: Tensor<2>) -> Tensor<2> {
        let logits = cosines * self.logit_scale.val().exp().unsqueeze::<2>();
        match &self.logit_bias {
            Some(bias) => logits + bias.val().unsqueeze::<2>(),
            None => logits,
        }
    }
}
