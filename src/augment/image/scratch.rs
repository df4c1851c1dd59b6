//! What a thread keeps between images, and how a decoder's panic is kept from it.
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{decoded, planes::PlanarImage, region::Region, resample, source};
use crate::augment::BadSample;

/// What one thread keeps between images; after a larger one its memory is given back.
const KEPT_BYTES: usize = 64 << 20;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory that ops reuse, one per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) resampler: resample::Resampler,
    pub(super) decoders: source::Decoders,
    pub(super) decoded: decoded::Decoded,
    pub(super) blur_weights: Vec<u16>,
    pub(super) blur_source: Vec<u16>,
    pub(super) blur_row: Vec<u16>,
    pub(super) affine_source: Vec<u8>,
    pub(super) image: PlanarImage,
    pub(super) spare: PlanarImage,
}

impl Scratch {
    /// `region` of what was decoded last, as an image of its own; `None` where it does not lie within that.
    pub(super) fn resampled(&mut self, region: &Region) -> Option<PlanarImage> {
        let mut image = PlanarImage::default();
        image.resize(region.out_width, region.out_height);
        resample::resample(&mut self.resampler, &self.decoded, region, &mut image.planes()).then_some(image)
    }

    /// Gives back what a huge image has left.
    fn trim(&mut self) {
        let kept = self.decoders.capacity_bytes() + self.decoded.capacity_bytes();
        if kept > KEPT_BYTES {
            *self = Self::default();
        }
    }
}

/// Runs `work` with this thread's memory; `work` must not come back here.
///
/// # Errors
/// Those of `work`. Whatever a decoder does with hostile bytes, a panic included, arrives as [`crate::augment::BadClass::Decode`].
pub(super) fn guarded<T>(work: impl FnOnce(&mut Scratch) -> Result<T, BadSample>) -> Result<T, BadSample> {
    SCRATCH.with_borrow_mut(|scratch| match catch_unwind(AssertUnwindSafe(|| work(scratch))) {
        Ok(result) => {
            scratch.trim();
            result
        }
        Err(_) => {
            // What the panic left behind is in no state to be used again.
            *scratch = Scratch::default();
            Err(BadSample::undecodable("the decoder panicked"))
        }
    })
}
