//! Images and series into checked rows, many at once.
use std::borrow::Cow;
use std::io::ErrorKind;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::audio::Decoded;
use super::modality::Modality;
use super::source::Source;
use super::{
    CHUNK_BYTES, CHUNK_IMAGES, ImportSettings, MAX_IMAGE_BYTES, MOST_ROW_NUMBERS, audio, check, csv_series, resample,
};
use crate::augment::{BadClass, BadSample};
use crate::error::{Error, Result};
use crate::pair::Numbers;
use crate::tokenize::sentences::SentenceUnit;

/// One row of a shard to be.
#[derive(Debug)]
pub(super) struct Row {
    /// Number in the source.
    pub(super) number: u32,
    pub(super) source: String,
    /// The encoded image, the numbers of a series, or the text.
    pub(super) blob: Vec<u8>,
    pub(super) facts: Facts,
    pub(super) caption: Option<String>,
    pub(super) label: Option<String>,
    pub(super) split: Option<String>,
    pub(super) xxh3: u64,
    /// BLAKE3 of the blob, caption (or group), label, split and source.
    pub(super) content: [u8; 32],
}

/// What a row says about its blob.
#[derive(Debug)]
pub(super) enum Facts {
    Image { width: u32, height: u32, format: &'static str },
    Series(SeriesFacts),
    Text { sentences: u32, group: Option<String> },
}

/// See [`Facts`].
#[derive(Debug)]
pub(super) struct SeriesFacts {
    pub(super) numbers: Numbers,
    pub(super) channels: u32,
    pub(super) steps: u64,
    pub(super) rate_hz: Option<f64>,
    pub(super) group: Option<String>,
    pub(super) start_time: Option<i64>,
    pub(super) start_step: u64,
}

/// An image that is no row.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) source: String,
    pub(super) reason: BadSample,
}

pub(super) type Outcome = std::result::Result<Row, Rejected>;

/// Cuts images into pieces of work by their expected bytes; a function of the images alone, so that shards are too.
pub(super) fn chunks<'a>(source: &dyn Source, images: &'a [u32]) -> Vec<&'a [u32]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, &image) in images.iter().enumerate() {
        let next = source.expected_bytes(image as usize);
        if at > start && (bytes + next > CHUNK_BYTES || at - start == CHUNK_IMAGES) {
            chunks.push(&images[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += next;
    }
    chunks.push(&images[start..]);
    chunks
}

/// Reads and checks images, on the threads of the pool this is called in; the result has their order.
///
/// # Errors
/// The first image that cannot be *read*; one that cannot be *used* is an outcome.
pub(super) fn read_all(source: &dyn Source, images: &[u32], settings: &ImportSettings) -> Result<Vec<Outcome>> {
    let outcomes: Vec<Result<Vec<Outcome>>> =
        images.par_iter().map(|&image| read_one(source, image, settings)).collect();
    // Here and not in `par_iter`: which of several errors is reported must not depend on the threads.
    Ok(outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// One row, or several of a series that is long.
fn read_one(source: &dyn Source, number: u32, settings: &ImportSettings) -> Result<Vec<Outcome>> {
    let at = number as usize;
    let name = source.name(at).into_owned();
    let expected_bytes = source.expected_bytes(at);
    if expected_bytes > MAX_IMAGE_BYTES {
        let message = format!("{expected_bytes} bytes are more than the {MAX_IMAGE_BYTES} that an image may have");
        let reason = match source.modality() {
            Modality::Image => BadSample { class: BadClass::TooManyPixels, message },
            _ => BadSample { class: BadClass::TooLong, message: message.replace("an image", "one of them") },
        };
        return Ok(vec![Err(Rejected { source: name, reason })]);
    }
    if source.modality() == Modality::Text {
        return document(source, number, name).map(|outcome| vec![outcome]);
    }
    let decoded = match source.modality() {
        Modality::Image | Modality::Text => None,
        Modality::Audio => Some(audio::decode(source.read(at)?, settings.numbers)),
        Modality::CsvSeries => Some(csv_series::parse(&source.read(at)?)),
        Modality::Numbers { channels } => {
            let (rate_hz, start_time) = (source.rate_hz(at), None);
            let numbers = source.numbers(at, source.read(at)?);
            Some(numbers.map(|bytes| Decoded { bytes, numbers: Numbers::F32, channels, rate_hz, start_time }))
        }
    };
    if let Some(decoded) = decoded {
        let decoded = match settings.rate_hz {
            Some(rate_hz) => decoded.and_then(|decoded| resample::at_rate(decoded, rate_hz)),
            None => decoded,
        };
        return Ok(match decoded {
            Ok(decoded) if decoded.bytes.is_empty() => {
                let reason = BadSample { class: BadClass::Empty, message: "it holds no steps".to_owned() };
                vec![Err(Rejected { source: name, reason })]
            }
            Ok(decoded) => series_rows(source, number, &name, &decoded).into_iter().map(Ok).collect(),
            Err(reason) => vec![Err(Rejected { source: name, reason })],
        });
    }
    let (image, caption) = match source.read_with_caption(at) {
        Ok(read) => read,
        Err(error) => {
            let message = own_fault(&error).ok_or(error)?;
            return Ok(vec![Err(Rejected { source: name, reason: BadSample { class: BadClass::Missing, message } })]);
        }
    };
    let max_pixels = (settings.max_megapixels * 1e6) as u64;
    let header = match check::check(&image, max_pixels, settings.decode_check) {
        Ok(header) => header,
        Err(reason) => return Ok(vec![Err(Rejected { source: name, reason })]),
    };
    let (label, split) = (source.label(at), source.split(at));
    let texts = [caption.as_deref(), label.as_deref(), split, Some(name.as_str())];
    Ok(vec![Ok(Row {
        number,
        content: content_of(&image, texts),
        xxh3: xxh3_64(&image),
        facts: Facts::Image { width: header.width, height: header.height, format: header.format.name() },
        caption: caption.map(Cow::into_owned),
        label: label.map(Cow::into_owned),
        split: split.map(str::to_owned),
        source: name,
        blob: image,
    })])
}

/// A text as it is; one that is no UTF-8 or has no sentence is of no use.
fn document(source: &dyn Source, number: u32, name: String) -> Result<Outcome> {
    let at = number as usize;
    let blob = source.read(at)?;
    let counted = match std::str::from_utf8(&blob) {
        Ok(text) => Ok(SentenceUnit::Sentences.of(text).len()),
        Err(error) => Err(BadSample::undecodable(format!("it is no UTF-8 text: {error}"))),
    };
    let sentences = match counted {
        Ok(0) => Err(BadSample { class: BadClass::Empty, message: "it holds no sentence".to_owned() }),
        other => other,
    };
    let sentences = match sentences {
        Ok(sentences) => u32::try_from(sentences).unwrap_or(u32::MAX),
        Err(reason) => return Ok(Err(Rejected { source: name, reason })),
    };
    let (label, split, group) = (source.label(at), source.split(at), source.group(at));
    Ok(Ok(Row {
        number,
        content: content_of(&blob, [group, label.as_deref(), split, Some(name.as_str())]),
        xxh3: xxh3_64(&blob),
        facts: Facts::Text { sentences, group: group.map(str::to_owned) },
        caption: None,
        label: label.as_deref().map(str::to_owned),
        split: split.map(str::to_owned),
        source: name,
        blob,
    }))
}

/// A series as rows of bounded length: an epoch then never holds more of it than a row, however long it is.
fn series_rows(source: &dyn Source, number: u32, name: &str, decoded: &Decoded) -> Vec<Row> {
    let at = number as usize;
    let step_bytes = decoded.numbers.bytes() * decoded.channels.max(1) as usize;
    let most_steps = (MOST_ROW_NUMBERS / decoded.channels.max(1) as usize).max(1);
    let (label, split, group) = (source.label(at), source.split(at), source.group(at));
    let texts = [group, label.as_deref(), split, Some(name)];
    let row = |(piece, blob): (usize, &[u8])| {
        let start_step = (piece * most_steps) as u64;
        let begin = source.start_time(at).or(decoded.start_time);
        let after = decoded.rate_hz.map(|rate| (start_step as f64 / rate * 1e6).round() as i64);
        Row {
            number,
            source: name.to_owned(),
            content: content_of(blob, texts),
            xxh3: xxh3_64(blob),
            facts: Facts::Series(SeriesFacts {
                numbers: decoded.numbers,
                channels: decoded.channels,
                steps: (blob.len() / step_bytes) as u64,
                rate_hz: decoded.rate_hz,
                group: group.map(str::to_owned),
                // Without a rate only the first row's moment is known.
                start_time: if piece == 0 { begin } else { begin.zip(after).map(|(begin, after)| begin + after) },
                start_step,
            }),
            caption: None,
            label: label.as_deref().map(str::to_owned),
            split: split.map(str::to_owned),
            blob: blob.to_vec(),
        }
    };
    decoded.bytes.chunks(most_steps * step_bytes).enumerate().map(row).collect()
}

/// What is wrong with one file, where the disk is not at fault.
fn own_fault(error: &Error) -> Option<String> {
    let Error::Stage { source: Some(cause), .. } = error else { return None };
    match cause.downcast_ref::<std::io::Error>()?.kind() {
        ErrorKind::PermissionDenied => Some("may not be read; check permissions".to_owned()),
        ErrorKind::NotFound => Some("is not there any more".to_owned()),
        _ => None,
    }
}

/// Lengths go in, null as the highest one, so that no two rows read the same.
fn content_of(image: &[u8], texts: [Option<&str>; 4]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(Some(image)).chain(texts.map(|text| text.map(str::as_bytes))) {
        hasher.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images of declared sizes that nobody can read.
    struct Sizes(Vec<u64>);

    impl Source for Sizes {
        fn kind(&self) -> &'static str {
            "sizes"
        }
        fn images(&self) -> usize {
            self.0.len()
        }
        fn name(&self, image: usize) -> Cow<'_, str> {
            Cow::Owned(image.to_string())
        }
        fn expected_bytes(&self, image: usize) -> u64 {
            self.0[image]
        }
        fn read(&self, _image: usize) -> Result<Vec<u8>> {
            Ok(b"no image".to_vec())
        }
        fn split(&self, _image: usize) -> Option<&str> {
            None
        }
        fn label(&self, _image: usize) -> Option<Cow<'_, str>> {
            None
        }
    }

    fn cut(sizes: Vec<u64>) -> Vec<usize> {
        let images: Vec<u32> = (0..sizes.len() as u32).collect();
        chunks(&Sizes(sizes), &images).iter().map(|chunk| chunk.len()).collect()
    }

    #[test]
    fn a_chunk_is_bounded_in_bytes_and_in_images() {
        let half = CHUNK_BYTES / 2;
        assert_eq!(cut(vec![half, half, 1, 1]), [2, 2]);
        assert_eq!(cut(vec![1, 2 * CHUNK_BYTES, 1]), [1, 1, 1]);
        assert_eq!(cut(vec![1; CHUNK_IMAGES + 1]), [CHUNK_IMAGES, 1]);
    }

    #[test]
    fn a_file_too_large_for_an_image_is_refused_unread() {
        let outcomes = read_all(&Sizes(vec![MAX_IMAGE_BYTES + 1, 8]), &[0, 1], &ImportSettings::default()).unwrap();
        let class = |at: usize| outcomes[at].as_ref().unwrap_err().reason.class;
        assert_eq!((class(0), class(1)), (BadClass::TooManyPixels, BadClass::UnknownFormat));
    }

    #[test]
    fn a_file_that_may_not_be_read_is_one_image_less_and_a_broken_disk_is_an_error() {
        let error =
            |kind: ErrorKind| Error::at(crate::error::Stage::Import, "a", "x").caused_by(std::io::Error::from(kind));
        assert!(own_fault(&error(ErrorKind::PermissionDenied)).unwrap().contains("permissions"));
        assert!(own_fault(&error(ErrorKind::NotFound)).is_some());
        assert!(own_fault(&error(ErrorKind::Other)).is_none() && own_fault(&Error::internal("x")).is_none());
    }

    #[test]
    fn the_content_hash_tells_null_from_empty_and_one_column_from_the_next() {
        let base = content_of(b"x", [None, Some("a"), None, Some("s")]);
        for other in [
            [Some("a"), None, None, Some("s")],
            [None, Some("a"), Some(""), Some("s")],
            [None, Some("as"), None, Some("")],
        ] {
            assert_ne!(content_of(b"x", other), base);
        }
        assert_ne!(content_of(b"y", [None, Some("a"), None, Some("s")]), base);
    }
}
