//! Sizes and choices of a CLIP.
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Stage};
use crate::model::norm::NormSettings;

/// A CLIP as a pipeline or a checkpoint's configuration describes it; the defaults are ViT-B/32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipSettings {
    /// Columns that images and texts share.
    pub embedding_width: usize,
    /// Inside every perceptron of both towers. Weights trained with one are silently worse with the other.
    pub activation: Activation,
    /// The image tower.
    pub vision: VisionSettings,
    /// The text tower.
    pub text: TextSettings,
    /// Whether logits have a learned bias, as SigLIP's.
    pub logit_bias: bool,
}
impl Default for ClipSettings {
    fn default() -> Self {
        Self {
            embedding_width: 512,
            activation: Activation::QuickGelu,
            vision: VisionSettings::VisionTransformer(VisionTransformerSettings::default()),
            text: TextSettings::default(),
            logit_bias: false,
        }
    }
}

/// Which activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x σ(1.702 x): OpenAI's weights.
    QuickGelu,
    /// x Φ(x), exactly: LAION's and DataComp's.
    Gelu,
}

impl Activation {
    /// As settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuickGelu => "quick_gelu",
            Self::Gelu => "gelu",
        }
    }
}

/// `vision.*`: exactly one image tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisionSettings {
    /// Dosovitskiy et al. 2021, with a normalisation in front of the blocks.
    VisionTransformer(VisionTransformerSettings),
    /// The paper's ResNet.
    ModifiedResnet(ModifiedResnetSettings),
}

impl VisionSettings {
    /// Pixels per side of an image.
    pub fn image_side_pixels(&self) -> usize {
        match self {
            Self::VisionTransformer(settings) => settings.image_side_pixels,
            Self::ModifiedResnet(settings) => settings.image_side_pixels,
        }
    }

    /// Columns in front of the projection into the embedding.
    pub fn pooled_width(&self) -> usize {
        match self {
            Self::VisionTransformer(settings) => settings.width,
            Self::ModifiedResnet(settings) => 32 * settings.width,
        }
    }
}

/// `vision.vision_transformer`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VisionTransformerSettings {
    /// Pixels per side of an image.
    pub image_side_pixels: usize,
    /// Pixels per side of a patch.
    pub patch_side_pixels: usize,
    /// Columns of a token.
    pub width: usize,
    /// Blocks.
    pub blocks: usize,
    /// Parts that attend by themselves; they share the width.
    pub heads: usize,
    /// Columns inside a block's perceptron.
    pub perceptron_width: usize,
}
impl Default for VisionTransformerSettings {
    fn default() -> Self {
        Self {
            image_side_pixels: 224,
            patch_side_pixels: 32,
            width: 768,
            blocks: 12,
            heads: 12,
            perceptron_width: 3_072,
        }
    }
}

impl VisionTransformerSettings {
    /// Patches of an image.
    pub fn patches(&self) -> usize {
        (self.image_side_pixels / self.patch_side_pixels).pow(2)
    }
}

/// `vision.modified_resnet`; the defaults are RN50.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModifiedResnetSettings {
    /// Pixels per side of an image.
    pub image_side_pixels: usize,
    /// Channels of the first stage.
    pub width: usize,
    /// Bottlenecks per stage.
    pub blocks: [usize; 4],
    /// Parts of the attention that pools.
    pub heads: usize,
    /// Which normalisation.
    #[serde(skip_serializing_if = "NormSettings::is_batch")]
    pub norm: NormSettings,
}
impl Default for ModifiedResnetSettings {
    fn default() -> Self {
        Self { image_side_pixels: 224, width: 64, blocks: [3, 4, 6, 3], heads: 32, norm: NormSettings::Batch }
    }
}

/// `text`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextSettings {
    /// Tokens of a text at most, start and end included.
    pub context_tokens: usize,
    /// Tokens there are.
    pub vocabulary_tokens: usize,
    /// Columns of a token.
    pub width: usize,
    /// Blocks.
    pub blocks: usize,
    /// Parts that attend by themselves; they share the width.
    pub heads: usize,
    /// Columns inside a block's perceptron.
    pub perceptron_width: usize,
}
impl Default for TextSettings {
    fn default() -> Self {
        Self {
            context_tokens: 77,
            vocabulary_tokens: 49_408,
            width: 512,
            blocks: 12,
            heads: 8,
            perceptron_width: 2_048,
        }
    }
}

impl ClipSettings {
    /// Finds sizes that contradict each other, before anything is allocated.
    ///
    /// # Errors
    /// The first of them.
    pub fn check(&self) -> Result<()> {
        /// Larger ones are no sizes but damage; products of a few of these stay within a `usize`.
        const MOST: usize = 1 << 20;
        const MOST_BLOCKS: usize = 1 << 10;
        let mut sizes = vec![("embedding_width", self.embedding_width)];
        let text = &self.text;
        sizes.extend([
            ("text.context_tokens", text.context_tokens),
            ("text.vocabulary_tokens", text.vocabulary_tokens),
            ("text.width", text.width),
            ("text.blocks", text.blocks),
            ("text.heads", text.heads),
            ("text.perceptron_width", text.perceptron_width),
        ]);
        let mut divisions = vec![("text.width", text.width, "text.heads", text.heads)];
        match &self.vision {
            VisionSettings::VisionTransformer(vision) => {
                sizes.extend([
                    ("vision.image_side_pixels", vision.image_side_pixels),
                    ("vision.patch_side_pixels", vision.patch_side_pixels),
                    ("vision.width", vision.width),
                    ("vision.blocks", vision.blocks),
                    ("vision.heads", vision.heads),
                    ("vision.perceptron_width", vision.perceptron_width),
                ]);
                let (image, patch) = (vision.image_side_pixels, vision.patch_side_pixels);
                divisions.push(("vision.width", vision.width, "vision.heads", vision.heads));
                divisions.push(("vision.image_side_pixels", image, "vision.patch_side_pixels", patch));
            }
            VisionSettings::ModifiedResnet(vision) => {
                sizes.extend([
                    ("vision.image_side_pixels", vision.image_side_pixels),
                    ("vision.width", vision.width),
                    ("vision.heads", vision.heads),
                ]);
                sizes.extend(vision.blocks.map(|blocks| ("vision.blocks", blocks)));
                divisions.push(("vision.image_side_pixels", vision.image_side_pixels, "the strides' product", 32));
                divisions.push(("32 x vision.width", 32 * vision.width.min(MOST), "vision.heads", vision.heads));
                divisions.push(("vision.width", vision.width, "the stem's halving", 2));
            }
        }
        for (name, size) in sizes {
            let most = if name.ends_with("blocks") { MOST_BLOCKS } else { MOST };
            if size == 0 || size > most {
                return Err(Error::at(Stage::Model, name, format!("{size} is not between 1 and {most}")));
            }
        }
        for (name, size, by, divisor) in divisions {
            if !size.is_multiple_of(divisor) {
                return Err(Error::at(Stage::Model, name, format!("{size} is no multiple of {by}, {divisor}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_found_and_named() {
        assert!(ClipSettings::default().check().is_ok());
        let resnet = VisionSettings::ModifiedResnet(ModifiedResnetSettings::default());
        assert!(ClipSettings { vision: resnet, ..ClipSettings::default() }.check().is_ok());
        let text = |change: fn(&mut TextSettings)| {
            let mut settings = ClipSettings::default();
            change(&mut settings.text);
            settings.check().expect_err("wrong").to_string()
        };
        assert!(text(|text| text.heads = 7).contains("512 is no multiple of text.heads, 7"));
        assert!(text(|text| text.blocks = 0).contains("text.blocks"));
        assert!(text(|text| text.vocabulary_tokens = usize::MAX).contains("not between"));
        let vision = VisionTransformerSettings { patch_side_pixels: 30, ..VisionTransformerSettings::default() };
        let settings = ClipSettings { vision: VisionSettings::VisionTransformer(vision), ..ClipSettings::default() };
        assert!(settings.check().expect_err("wrong").to_string().contains("224 is no multiple"));
    }
}
