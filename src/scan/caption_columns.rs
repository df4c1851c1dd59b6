//! Names of the columns by which the texts of images reach the trainer.

/// List of UInt32: the ids of the item's text, start and end included.
pub const TOKENS: &str = "caption_tokens";
/// UInt64: XXH3 of the encoded image, equal for images of the same bytes.
pub const IMAGE_HASH: &str = "image_hash";
