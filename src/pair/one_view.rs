//! `one_view`: one image under the evaluation recipe.
use super::image_views::ImageViews;
use crate::augment::{
    image::recipe::{RecipeProblem, RecipePurpose},
    recipe::AugmentSettings,
};

/// One view of one image under the evaluation recipe, `[1, 3, side, side]`: the same pixels whatever the key.
pub type OneView = ImageViews<1>;

impl OneView {
    /// As reports name it.
    pub const NAME: &'static str = "one_view";

    /// From the column's name and the settings of `[augment]`.
    ///
    /// # Errors
    /// Every problem of the evaluation recipe.
    pub fn new(column: &str, augment: &AugmentSettings) -> Result<Self, Vec<RecipeProblem>> {
        Self::resolve(Self::NAME, column, augment, RecipePurpose::Evaluation)
    }
}
