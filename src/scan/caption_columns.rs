//! Names of the columns by which the texts of images reach the trainer.

/// List of UInt32: the ids of the item's text, start and end included.
pub const TOKENS: &str = "caption_tokens";
/// UInt32: a number for the item's image, dense within the batch, equal for images of the same bytes.
pub const IMAGE: &str = "image_ordinal";
