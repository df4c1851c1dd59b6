//! Which things meet in a batch.
pub mod caption_tokens;
pub mod context_future;
pub mod image_text;
pub mod image_views;
pub mod one_view;
pub mod past_future;
pub mod sentences;
pub mod series_source;
pub mod series_windows;
mod starts;
pub mod two_views;
pub mod two_views_function;

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::{augment::BadSample, scan::tensor_column::Element, seed::ItemKey};
use caption_tokens::CaptionTokens;
pub use context_future::ContextFutureSettings;
pub use image_text::ImageTextSettings;
pub use one_view::OneViewSettings;
pub use past_future::PastFutureSettings;
pub use sentences::SentencesSettings;

/// `[pair.*]` of a pipeline: exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairSettings {
    /// Two augmented views of one image.
    TwoViews(TwoViewsSettings),
    /// An image and the text that goes with it.
    ImageText(ImageTextSettings),
    /// One augmented view of one image, in which the method finds what to compare.
    OneView(OneViewSettings),
    /// Windows of series: what comes first in a window predicts what comes later.
    ContextFuture(ContextFutureSettings),
    /// The window before a point of a series and the window after it.
    PastFuture(PastFutureSettings),
    /// Consecutive sentences of documents: what comes first in a window predicts what comes later.
    Sentences(SentencesSettings),
}

impl PairSettings {
    /// As a pipeline writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TwoViews(_) => two_views::TwoViews::NAME,
            Self::ImageText(_) => image_text::ImageText::NAME,
            Self::OneView(_) => one_view::OneView::NAME,
            Self::ContextFuture(_) => context_future::ContextFuture::NAME,
            Self::PastFuture(_) => past_future::PastFuture::NAME,
            Self::Sentences(_) => sentences::Sentences::NAME,
        }
    }

    /// Rows of the trainer's batch that come of one item of the order.
    pub fn rows_per_item(&self) -> usize {
        match self {
            Self::ContextFuture(pair) => pair.windows_per_series.max(1),
            Self::Sentences(pair) => pair.windows_per_document.max(1),
            Self::TwoViews(_) | Self::OneView(_) | Self::ImageText(_) | Self::PastFuture(_) => 1,
        }
    }

    /// Column whose values say which items belong together.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::ContextFuture(pair) => pair.group.as_deref(),
            Self::Sentences(pair) => pair.group.as_deref(),
            Self::TwoViews(_) | Self::OneView(_) | Self::ImageText(_) | Self::PastFuture(_) => None,
        }
    }

    /// Column with the texts that go with images.
    pub fn caption(&self) -> Option<&str> {
        match self {
            Self::ImageText(pair) => Some(&pair.caption),
            Self::TwoViews(_)
            | Self::OneView(_)
            | Self::ContextFuture(_)
            | Self::PastFuture(_)
            | Self::Sentences(_) => None,
        }
    }

    /// Column that it reads.
    pub fn column(&self) -> &str {
        match self {
            Self::TwoViews(pair) => &pair.column,
            Self::ImageText(pair) => &pair.column,
            Self::OneView(pair) => &pair.column,
            Self::ContextFuture(pair) => &pair.column,
            Self::PastFuture(pair) => &pair.column,
            Self::Sentences(pair) => &pair.column,
        }
    }
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

/// How the numbers of a series lie in its bytes, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Numbers {
    /// Whole numbers whose full scale, 32,768, stands for 1.0.
    I16,
    /// As they are; NaN where a value is missing.
    F32,
}

impl Numbers {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::I16 => 2,
            Self::F32 => 4,
        }
    }
}

impl std::str::FromStr for Numbers {
    type Err = crate::error::Error;

    fn from_str(text: &str) -> crate::error::Result<Self> {
        match text {
            "i16" => Ok(Self::I16),
            "f32" => Ok(Self::F32),
            _ => {
                let reason = format!("{text:?} are no numbers that samples can be; there are i16, f32");
                Err(crate::error::Error::at(crate::error::Stage::CommandLine, "--samples", reason))
            }
        }
    }
}

/// One row's bytes, and what the shard says beside them.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// An encoded image, the numbers of a series, or a text.
    pub bytes: &'a [u8],
    /// What the bytes of a series are; images say so themselves.
    pub numbers: Numbers,
    /// Numbers per step of a series.
    pub channels: u32,
    /// What the kernel worked out of the row before, where somebody kept it.
    pub facts: Option<&'a RowFacts>,
}

/// What a kernel works out of a whole row, for all items that come of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowFacts {
    /// Of each channel of a series: x · factor + shift.
    pub factors: Vec<(f32, f32)>,
}

impl<'a> Encoded<'a> {
    /// An encoded image.
    pub fn image(bytes: &'a [u8]) -> Self {
        Self { bytes, numbers: Numbers::F32, channels: 1, facts: None }
    }
}

/// What fills one sample's slot of a batch tensor: a pure function of the bytes and the key.
pub trait SampleKernel: Debug + Send + Sync {
    /// As a pipeline writes it, such as `two_views`.
    fn name(&self) -> &str;
    /// Column whose bytes it reads.
    fn column(&self) -> &str;
    /// Shape of one row of a batch, such as `[2, 3, 224, 224]` (views, channels, height, width).
    fn shape(&self) -> &[usize];
    /// What a row's numbers are.
    fn element(&self) -> Element {
        Element::U8
    }
    /// Rows of a batch that come of one sample.
    fn rows_per_item(&self) -> usize {
        1
    }
    /// Whether rows are windows of series or documents: batches then say which rows are of one of them.
    fn makes_windows(&self) -> bool {
        false
    }
    /// Narrow column whose values say which samples belong together; batches then number them.
    fn group_column(&self) -> Option<&str> {
        None
    }
    /// Tokens of the texts that go with the samples; batches then carry them beside the tensors.
    fn captions(&self) -> Option<&CaptionTokens> {
        None
    }
    /// Bytes of one sample's slot: of all its rows.
    fn slot_bytes(&self) -> usize {
        self.rows_per_item() * self.shape().iter().product::<usize>() * self.element().bytes()
    }
    /// Every setting and version that decides the pixels, as one line: goes into the item digest.
    fn describe(&self) -> String;
    /// What [`Self::apply`] takes from [`Encoded::facts`] instead of looking at the whole row again.
    ///
    /// # Errors
    /// As [`Self::apply`].
    fn facts(&self, _: Encoded<'_>) -> Result<RowFacts, BadSample> {
        Ok(RowFacts::default())
    }
    /// Fills `out`, of [`Self::slot_bytes`]; numbers of more than one byte are little endian.
    ///
    /// # Errors
    /// The sample is bad: it goes to the quarantine and a substitute takes its slot.
    fn apply(&self, encoded: Encoded<'_>, seed: u64, pass: u64, item: ItemKey, out: &mut [u8])
    -> Result<(), BadSample>;
}
