//! Views of one image from one decode: what `one_view` and `two_views` share.
use super::{Encoded, SampleKernel};
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

/// `VIEWS` views of one image under one recipe, `[VIEWS, 3, side, side]`.
#[derive(Debug, Clone)]
pub struct ImageViews<const VIEWS: usize> {
    name: &'static str,
    column: String,
    recipe: ImageRecipe,
    shape: [usize; 4],
}

impl<const VIEWS: usize> ImageViews<VIEWS> {
    pub(super) fn resolve(
        name: &'static str,
        column: &str,
        augment: &AugmentSettings,
        purpose: RecipePurpose,
    ) -> Result<Self, Vec<RecipeProblem>> {
        let recipe = ImageRecipe::resolve(augment, purpose)?;
        let side = recipe.side_pixels();
        Ok(Self { name, column: column.to_owned(), recipe, shape: [VIEWS, 3, side, side] })
    }

    /// The recipe of every view.
    pub fn recipe(&self) -> &ImageRecipe {
        &self.recipe
    }
}

impl<const VIEWS: usize> SampleKernel for ImageViews<VIEWS> {
    fn name(&self) -> &str {
        self.name
    }

    fn column(&self) -> &str {
        &self.column
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn describe(&self) -> String {
        format!("{} v1 column={} {}", self.name, self.column, self.recipe.describe())
    }

    fn apply(
        &self,
        encoded: Encoded<'_>,
        seed: u64,
        pass: u64,
        item: ItemKey,
        out: &mut [u8],
    ) -> Result<(), BadSample> {
        render_views(&self.recipe, encoded.bytes, ViewKey { seed, pass, item }, VIEWS, out)
    }
}
