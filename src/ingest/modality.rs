//! What a source's bytes are, and so which schema its rows have.

/// What becomes of the bytes that a source reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modality {
    /// Encoded images, kept as they are.
    Image,
    /// WAV, FLAC, Ogg Vorbis or MP3: decoded.
    Audio,
    /// CSV of one series, a column per channel: parsed.
    CsvSeries,
    /// Documents of UTF-8 text, kept as they are.
    Text,
    /// The numbers of a series already, f32, little endian, interleaved.
    Numbers {
        /// Numbers per step.
        channels: u32,
    },
}

impl Modality {
    /// Name of the schema.
    pub fn schema(self) -> &'static str {
        match self {
            Self::Image => "image_text",
            Self::Text => "documents",
            Self::Audio | Self::CsvSeries | Self::Numbers { .. } => "time_series",
        }
    }

    /// What reports call the samples.
    pub fn samples(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Text => "documents",
            _ => "series",
        }
    }
}
