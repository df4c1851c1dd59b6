//! `two_views`: two augmented views of one image, from one decode.
use super::{TwoViewsSettings, image_views::ImageViews};
use crate::augment::{
    image::recipe::{RecipeProblem, RecipePurpose},
    recipe::AugmentSettings,
};

/// Two views of one image under the training recipe, `[2, 3, side, side]`.
pub type TwoViews = ImageViews<2>;

impl TwoViews {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "two_views";

    /// From the settings of `[pair.two_views]` and `[augment]`.
    ///
    /// # Errors
    /// Every problem of the training recipe.
    pub fn new(settings: &TwoViewsSettings, augment: &AugmentSettings) -> Result<Self, Vec<RecipeProblem>> {
        Self::resolve(Self::NAME, &settings.column, augment, RecipePurpose::Training)
    }
}
