//! One encoded image into the pixels of its views: one decode, every view straight into the batch.
use super::{
    Scratch,
    planes::Planes,
    precise_resize::Interpolation,
    recipe::{ImageOp, ImageRecipe},
    region::Region,
    resample::{resample, resample_image},
    scratch::guarded,
    source::Source,
};
use crate::{
    augment::{BadClass, BadSample},
    seed::{DrawKey, Draws, ItemKey},
};

/// Whose views: the part of the draws' name that an op does not choose.
#[derive(Debug, Clone, Copy)]
pub struct ViewKey {
    /// The run's seed.
    pub seed: u64,
    /// Pass over the source.
    pub pass: u64,
    /// Which item.
    pub item: ItemKey,
}

/// Fills `out`, `[views, 3, side, side]` u8, with `views` views of one encoded image.
///
/// A pure function of bytes, recipe and key: threads, earlier images and other items have no part in it.
///
/// # Errors
/// The sample is bad. Whatever a decoder does with hostile bytes, a panic included, arrives here as [`BadClass::Decode`].
pub fn render_views(
    recipe: &ImageRecipe,
    encoded: &[u8],
    key: ViewKey,
    views: usize,
    out: &mut [u8],
) -> Result<(), BadSample> {
    guarded(|scratch| render(recipe, encoded, key, views, out, scratch))
}

fn render(
    recipe: &ImageRecipe,
    encoded: &[u8],
    key: ViewKey,
    views: usize,
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), BadSample> {
    let source = Source::open(encoded, recipe.max_pixels, recipe.exif_orientation)?;
    let size = source.size();
    let view_bytes = 3 * recipe.side_pixels * recipe.side_pixels;
    if out.len() != views * view_bytes {
        return Err(BadSample::undecodable("the slot has another size than the recipe"));
    }
    // Every view's box first: together they decide how little is decoded.
    let plans: Vec<Plan> = (0..views as u32).map(|view| Plan::of(recipe, size, key, view)).collect();
    let regions: Vec<Region> = plans.iter().map(|plan| plan.region).collect();
    source.decode(&regions, &mut scratch.decoders, &mut scratch.decoded)?;
    for (plan, slot) in plans.iter().zip(out.chunks_exact_mut(view_bytes)) {
        plan.render(recipe, key, slot, scratch)?;
    }
    Ok(())
}

/// How one view comes about.
struct Plan {
    view: u32,
    /// What the leading geometric ops take from the image.
    region: Region,
    /// How many ops that covers.
    done: usize,
}

impl Plan {
    fn of(recipe: &ImageRecipe, (width, height): (usize, usize), key: ViewKey, view: u32) -> Self {
        let mut plan = Self { view, region: Region::whole(width, height), done: 0 };
        for (index, op) in recipe.ops.iter().enumerate() {
            let ImageOp::Geometry(op) = op else { break };
            let (from_width, from_height) = (plan.region.out_width, plan.region.out_height);
            let next = op.region(from_width, from_height, &mut draws(recipe, key, view, index));
            if index == 0 && next.lies_within(width, height) {
                plan.region = next;
            } else if let Some(both) = plan.region.then(&next, width, height).filter(|_| index > 0) {
                plan.region = both;
            } else {
                break;
            }
            plan.done = index + 1;
        }
        plan
    }

    fn render(
        &self,
        recipe: &ImageRecipe,
        key: ViewKey,
        slot: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), BadSample> {
        let side = recipe.side_pixels;
        check_room(recipe, &self.region)?;
        let rest = &recipe.ops[self.done..];
        let mut out = Planes::new(side, side, slot).ok_or_else(|| BadSample::undecodable("the slot is too small"))?;
        if rest.iter().all(|op| matches!(op, ImageOp::Pixel(_))) {
            if !resample(&mut scratch.resampler, &scratch.decoded, &self.region, &mut out) {
                return Err(BadSample::undecodable("the region is not within the decoded image"));
            }
            self.apply(recipe, key, self.done, &mut out, scratch);
            return Ok(());
        }
        // A geometric op among the others: through an image of its own.
        let mut image = std::mem::take(&mut scratch.image);
        let mut spare = std::mem::take(&mut scratch.spare);
        image.resize(self.region.out_width, self.region.out_height);
        let mut within = resample(&mut scratch.resampler, &scratch.decoded, &self.region, &mut image.planes());
        for (index, op) in recipe.ops.iter().enumerate().skip(self.done) {
            let mut draws = draws(recipe, key, self.view, index);
            match op {
                ImageOp::Pixel(op) => op.apply(&mut image.planes(), &mut draws, scratch),
                ImageOp::Geometry(op) => {
                    let region = op.region(image.width(), image.height(), &mut draws);
                    check_room(recipe, &region)?;
                    spare.resize(region.out_width, region.out_height);
                    within &= resample_image(&mut scratch.resampler, &image, &region, &mut spare.planes());
                    std::mem::swap(&mut image, &mut spare);
                }
            }
        }
        let fits = image.pixels().len() == out.pixels().len();
        if fits {
            out.pixels().copy_from_slice(image.pixels());
        }
        (scratch.image, scratch.spare) = (image, spare);
        if fits && within { Ok(()) } else { Err(BadSample::undecodable("the region is not within the image")) }
    }

    fn apply(&self, recipe: &ImageRecipe, key: ViewKey, from: usize, out: &mut Planes<'_>, scratch: &mut Scratch) {
        for (index, op) in recipe.ops.iter().enumerate().skip(from) {
            if let ImageOp::Pixel(op) = op {
                op.apply(out, &mut draws(recipe, key, self.view, index), scratch);
            }
        }
    }
}

fn draws(recipe: &ImageRecipe, key: ViewKey, view: u32, index: usize) -> Draws {
    let (op, op_occurrence) = (recipe.ops[index].name(), recipe.occurrences[index]);
    DrawKey { seed: key.seed, pass: key.pass, item: key.item, view, op, op_occurrence }.draws()
}

/// A strip of 30,000x1 pixels, its shorter side enlarged to 224, is an image of 1.5 gigapixels: the limit holds for what
/// ops make as well, and for the rows of the final width that a cubic filter makes on the way.
fn check_room(recipe: &ImageRecipe, region: &Region) -> Result<(), BadSample> {
    let on_the_way = if region.interpolation == Interpolation::Bicubic { region.height as u64 } else { 0 };
    let (width, height) = (region.out_width as u64, on_the_way.max(region.out_height as u64));
    if width.saturating_mul(height) <= recipe.max_pixels {
        return Ok(());
    }
    let message = format!("would become {width}x{height} pixels, more than the limit of {}", recipe.max_pixels);
    Err(BadSample { class: BadClass::TooManyPixels, message })
}
