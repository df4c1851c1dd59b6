//! `image_text`: an image and the text that goes with it.
use serde::{Deserialize, Serialize};

use super::{Encoded, SampleKernel, caption_tokens::CaptionTokens, image_views::ImageViews};
use crate::{
    augment::{
        BadSample,
        image::recipe::{RecipeProblem, RecipePurpose},
        recipe::AugmentSettings,
    },
    seed::ItemKey,
};

/// `[pair.image_text]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageTextSettings {
    /// Column with the encoded image.
    #[serde(default = "super::default_column")]
    pub column: String,
    /// Column with the text, of the shards or of what the query returns; of a list of texts one is drawn in every pass.
    /// A sample without a text is bad.
    #[serde(default = "default_caption")]
    pub caption: String,
    /// What stands between several texts of one value, of which one is drawn in every pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// Tokens of a text at most, start and end included; default: as many as the method's text tower reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<usize>,
}
fn default_caption() -> String {
    "caption".into()
}

/// One view of an image under the training recipe, `[1, 3, side, side]`, and the ids of its text.
#[derive(Debug, Clone)]
pub struct ImageText {
    image: ImageViews<1>,
    captions: CaptionTokens,
}

impl ImageText {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "image_text";

    /// From the settings of `[pair.image_text]` and `[augment]`.
    ///
    /// # Errors
    /// Every problem of the training recipe.
    pub fn new(settings: &ImageTextSettings, augment: &AugmentSettings) -> Result<Self, Vec<RecipeProblem>> {
        let ImageTextSettings { column, caption, separator, context_tokens } = settings;
        Ok(Self {
            image: ImageViews::resolve(Self::NAME, column, augment, RecipePurpose::Training)?,
            captions: CaptionTokens::new(caption, separator.as_deref(), *context_tokens),
        })
    }
}

impl SampleKernel for ImageText {
    fn name(&self) -> &str {
        self.image.name()
    }

    fn column(&self) -> &str {
        self.image.column()
    }

    fn shape(&self) -> &[usize] {
        self.image.shape()
    }

    fn captions(&self) -> Option<&CaptionTokens> {
        Some(&self.captions)
    }

    fn describe(&self) -> String {
        format!("{} {}", self.image.describe(), self.captions.describe())
    }

    fn apply(
        &self,
        encoded: Encoded<'_>,
        seed: u64,
        pass: u64,
        item: ItemKey,
        out: &mut [u8],
    ) -> Result<(), BadSample> {
        self.image.apply(encoded, seed, pass, item, out)
    }
}
