//! Which things meet in a batch.
pub mod image_views;
pub mod one_view;
pub mod two_views;
pub mod two_views_function;

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::{augment::BadSample, seed::ItemKey};

/// `[pair.*]` of a pipeline: exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairSettings {
    /// Two augmented views of one image.
    TwoViews(TwoViewsSettings),
}

/// `[pair.two_views]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TwoViewsSettings {
    /// Column with the encoded image.
    #[serde(default = "default_column")]
    pub column: String,
}
fn default_column() -> String {
    "image".into()
}

/// What fills one sample's slot of a batch tensor: a pure function of the bytes and the key.
pub trait SampleKernel: Debug + Send + Sync {
    /// As a pipeline writes it, such as `two_views`.
    fn name(&self) -> &str;
    /// Column whose bytes it reads.
    fn column(&self) -> &str;
    /// Shape of one sample's slot, such as `[2, 3, 224, 224]` (views, channels, height, width), u8.
    fn shape(&self) -> &[usize];
    /// Every setting and version that decides the pixels, as one line: goes into the item digest.
    fn describe(&self) -> String;
    /// Fills `out`, whose length is the product of [`Self::shape`].
    ///
    /// # Errors
    /// The sample is bad: it goes to the quarantine and a substitute takes its slot.
    fn apply(&self, encoded: &[u8], seed: u64, pass: u64, item: ItemKey, out: &mut [u8]) -> Result<(), BadSample>;
}
