//! `one_view`: one image, augmented in training, under the evaluation recipe otherwise.
use serde::{Deserialize, Serialize};

use super::image_views::ImageViews;
use crate::augment::{
    image::recipe::{RecipeProblem, RecipePurpose},
    recipe::AugmentSettings,
};

/// `[pair.one_view]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneViewSettings {
    /// Column with the encoded image.
    #[serde(default = "super::default_column")]
    pub column: String,
}

/// One view of one image, `[1, 3, side, side]`.
pub type OneView = ImageViews<1>;

impl OneView {
    /// As a pipeline writes it, and as reports name it.
    pub const NAME: &'static str = "one_view";

    /// What an evaluation sees, whatever the pairing of training: the same pixels whatever the key.
    ///
    /// # Errors
    /// Every problem of the evaluation recipe.
    pub fn new(column: &str, augment: &AugmentSettings) -> Result<Self, Vec<RecipeProblem>> {
        Self::resolve(Self::NAME, column, augment, RecipePurpose::Evaluation)
    }

    /// What training sees of `[pair.one_view]`: for methods that find their pairs inside an image.
    ///
    /// # Errors
    /// Every problem of the training recipe.
    pub fn training(settings: &OneViewSettings, augment: &AugmentSettings) -> Result<Self, Vec<RecipeProblem>> {
        Self::resolve(Self::NAME, &settings.column, augment, RecipePurpose::Training)
    }
}
