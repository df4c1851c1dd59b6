//! `one_view`: one image under the evaluation recipe.
use super::SampleKernel;
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

/// One view of one image under the evaluation recipe, `[1, 3, side, side]`: the same pixels whatever the key.
#[derive(Debug, Clone)]
pub struct OneView {
    column: String,
    recipe: ImageRecipe,
    shape: [usize; 4],
}

impl OneView {
    /// As reports name it.
    pub const NAME: &'static str = "one_view";

    /// From the column's name and the settings of `[augment]`.
    ///
    /// # Errors
    /// Every problem of the evaluation recipe.
    pub fn new(column: &str, augment: &AugmentSettings) -> Result<Self, Vec<RecipeProblem>> {
        Ok(Self::from_recipe(column.to_owned(), ImageRecipe::resolve(augment, RecipePurpose::Evaluation)?))
    }

    /// From a recipe that has been checked.
    pub fn from_recipe(column: String, recipe: ImageRecipe) -> Self {
        let side = recipe.side_pixels();
        Self { column, recipe, shape: [1, 3, side, side] }
    }

    /// The recipe.
    pub fn recipe(&self) -> &ImageRecipe {
        &self.recipe
    }
}

impl SampleKernel for OneView {
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
