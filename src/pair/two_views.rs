//! `two_views`: two augmented views of one image, from one decode.
use super::{SampleKernel, TwoViewsSettings};
use crate::{
    augment::{
        BadSample,
        image::{
            recipe::{ImageRecipe, RecipeProblem, RecipePurpose},
            views::{ViewKey, render_views},
        },
        recipe::AugmentSettings,
    },
    seed::ItemKey,
};

/// Two views of one image under the training recipe, `[2, 3, side, side]`.
#[derive(Debug, Clone)]
pub struct TwoViews {
    column: String,
    recipe: ImageRecipe,
    shape: [usize; 4],
}

impl TwoViews {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "two_views";

    /// From the settings of `[pair.two_views]` and `[augment]`.
    ///
    /// # Errors
    /// Every problem of the training recipe.
    pub fn new(settings: &TwoViewsSettings, augment: &AugmentSettings) -> Result<Self, Vec<RecipeProblem>> {
        Ok(Self::from_recipe(settings.column.clone(), ImageRecipe::resolve(augment, RecipePurpose::Training)?))
    }

    /// From a recipe that has been checked.
    pub fn from_recipe(column: String, recipe: ImageRecipe) -> Self {
        let side = recipe.side_pixels();
        Self { column, recipe, shape: [2, 3, side, side] }
    }

    /// The recipe of both views.
    pub fn recipe(&self) -> &ImageRecipe {
        &self.recipe
    }
}

impl SampleKernel for TwoViews {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn column(&self) -> &str {
        &self.column
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn describe(&self) -> String {
        format!("{} v1 column={} {}", Self::NAME, self.column, self.recipe.describe())
    }

    fn apply(&self, encoded: &[u8], seed: u64, pass: u64, item: ItemKey, out: &mut [u8]) -> Result<(), BadSample> {
        render_views(&self.recipe, encoded, ViewKey { seed, pass, item }, self.shape[0], out)
    }
}
