//! Captions with their best images, small enough for a page: what `matches.json` of a run holds.
use serde::{Deserialize, Serialize};

/// All that are shown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Matches {
    /// In the order of the query.
    pub captions: Vec<CaptionMatches>,
    /// Images that there are to choose from.
    pub images: usize,
}

/// One caption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptionMatches {
    /// The text.
    pub caption: String,
    /// Rank of its own image among all, from 1.
    pub own_rank: f64,
    /// The best first.
    pub images: Vec<MatchedImage>,
}

/// One of its best images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatchedImage {
    /// A small JPEG in base64; empty where none could be made.
    pub jpeg: String,
    /// How alike image and caption are.
    pub cosine: f32,
    /// Whether it is the caption's own.
    pub is_right: bool,
}
