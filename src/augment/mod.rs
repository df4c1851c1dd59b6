//! Recipes: encoded images into pixels, windows of series into other windows; one keyed op per file.
pub mod exec;
pub mod image;
pub mod recipe;
pub mod series;
pub mod verify;

/// Why a sample cannot be used: the `class` column of the quarantine table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BadClass {
    /// No bytes, or null.
    Empty,
    /// The first bytes belong to no format we read.
    UnknownFormat,
    /// The header contradicts itself or is cut off.
    Header,
    /// More pixels declared than the recipe's limit: refused before allocation.
    TooManyPixels,
    /// The decoder refused the data, or decoded it only with damage.
    Decode,
    /// The bytes are not those that were imported (`image_bytes`, `image_xxh3`).
    Checksum,
    /// Import: a series of more bytes than one file may decode to.
    TooLong,
    /// A series with fewer steps than a window takes.
    TooShort,
    /// A series with other channels than the tensor, or numbers that fill no whole step.
    Channels,
    /// An image without a text, where pairs of both are wanted.
    NoCaption,
    /// Import: words or a path, and no image that belongs to them.
    Missing,
    /// Import: damaged or not to be trusted around the image, such as an archive's entry that leads out of it.
    Refused,
}

impl BadClass {
    /// As the table writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnknownFormat => "unknown_format",
            Self::Header => "header",
            Self::TooManyPixels => "too_many_pixels",
            Self::Decode => "decode",
            Self::Checksum => "checksum",
            Self::TooLong => "too_long",
            Self::TooShort => "too_short",
            Self::Channels => "channels",
            Self::NoCaption => "no_caption",
            Self::Missing => "missing",
            Self::Refused => "refused",
        }
    }
}

/// A sample that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", class.name())]
pub struct BadSample {
    /// Kind of damage.
    pub class: BadClass,
    /// One sentence, with what the decoder said.
    pub message: String,
}

impl BadSample {
    /// What a decoder made nothing of.
    pub fn undecodable(message: impl Into<String>) -> Self {
        Self { class: BadClass::Decode, message: message.into() }
    }
}
