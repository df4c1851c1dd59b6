//! Image ops, one per file, and how an encoded image becomes the pixels of its views.
//!
//! ```text
//!  bytes ──▶ header ──▶ every view's region ──▶ source ──▶ decoded ──▶ resample ──▶ pixel ops, in place
//!            size,      drawn before a pixel    as few     planes as   only the     color_jitter, grayscale,
//!            limit      is decoded              rows as    stored      view's       gaussian_blur, solarize,
//!                                               needed                 pixels       horizontal_flip,
//!                                                                                   random_affine
//! ```
//!
//! A recipe's leading geometric ops (`random_resized_crop`, `resize`, `center_crop`) decide regions; the rest works on
//! three planes of u8 in the batch's own memory. All draws are named by `seed::DrawKey`; arithmetic is integers, or f32
//! without fused multiply-add, so the same key gives the same bits on every machine.
use std::fmt::Debug;

use crate::seed::Draws;

pub mod center_crop;
mod check;
pub mod color_jitter;
pub mod decode_check;
pub mod decoded;
pub mod encode;
mod filter;
pub mod gaussian_blur;
pub mod grayscale;
pub mod header;
pub mod horizontal_flip;
mod interleaved;
mod jpeg;
pub mod perceptual_hash;
mod pil_mode;
pub mod planes;
pub mod precise_resize;
pub mod preprocess;
pub mod random_affine;
pub mod random_resized_crop;
pub mod recipe;
pub mod region;
mod resample;
pub mod resize;
mod scratch;
mod simd;
pub mod solarize;
pub mod source;
pub mod thumbnail;
pub mod views;

use planes::Planes;
use region::Region;
pub use scratch::Scratch;

/// An op that decides which part of an image becomes which size.
pub trait GeometryOp: Debug + Send + Sync {
    /// As a pipeline writes it.
    fn name(&self) -> &'static str;
    /// Name, version of its arithmetic, settings: whatever decides its pixels.
    fn describe(&self) -> String;
    /// What of an image of this size becomes what. Only padding may lie outside the image.
    fn region(&self, width: usize, height: usize, draws: &mut Draws) -> Region;
}

/// An op that changes values and leaves the size as it is.
pub trait PixelOp: Debug + Send + Sync {
    /// As a pipeline writes it.
    fn name(&self) -> &'static str;
    /// Name, version of its arithmetic, settings: whatever decides its pixels.
    fn describe(&self) -> String;
    /// Works in place; allocates nothing once `scratch` has grown.
    fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws, scratch: &mut Scratch);
}
