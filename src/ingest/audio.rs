//! WAV, FLAC, Ogg Vorbis and MP3 into numbers.
//!
//! A file is used whole or not at all: one that ends early, that has a damaged packet, or that changes its rate on the way goes
//! to quarantine, as images with damage do.
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use symphonia::core::audio::{AudioBufferRef, SampleBuffer};
use symphonia::core::codecs::{CODEC_TYPE_MP3, CODEC_TYPE_NULL, DecoderOptions};
use symphonia::core::errors::Error as AudioError;
use symphonia::core::formats::FormatOptions;
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::probe::Hint;

use crate::augment::{BadClass, BadSample};
use crate::pair::Numbers;

/// Endings of files that are taken for audio.
pub(super) const EXTENSIONS: [&str; 6] = ["wav", "wave", "flac", "ogg", "oga", "mp3"];
/// A file that decodes to more is refused: about eight hours of one channel of 16 bits at 16 kHz.
pub(super) const MAX_DECODED_BYTES: usize = 1 << 30;

/// A decoded series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Decoded {
    /// Little endian, interleaved.
    pub(super) bytes: Vec<u8>,
    pub(super) numbers: Numbers,
    pub(super) channels: u32,
    pub(super) rate_hz: Option<f64>,
    /// Microseconds since 1970, UTC.
    pub(super) start_time: Option<i64>,
}

/// Decodes a file.
///
/// # Errors
/// [`BadClass::Empty`], [`BadClass::UnknownFormat`], [`BadClass::Decode`], [`BadClass::TooLong`]; a panic of the decoder is
/// one more way of being damaged.
pub(super) fn decode(encoded: Vec<u8>, numbers: Numbers) -> Result<Decoded, BadSample> {
    if encoded.is_empty() {
        return Err(BadSample { class: BadClass::Empty, message: "the file has no bytes".to_owned() });
    }
    catch_unwind(AssertUnwindSafe(|| decode_whole(encoded, numbers)))
        .unwrap_or_else(|_| Err(BadSample::undecodable("the decoder panicked")))
}

fn decode_whole(encoded: Vec<u8>, numbers: Numbers) -> Result<Decoded, BadSample> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(encoded)), Default::default());
    let gapless = FormatOptions { enable_gapless: true, ..FormatOptions::default() };
    let probed = symphonia::default::get_probe().format(&Hint::new(), stream, &gapless, &MetadataOptions::default());
    let unknown = |error: AudioError| BadSample { class: BadClass::UnknownFormat, message: error.to_string() };
    let mut format = probed.map_err(unknown)?.format;
    let track = format.tracks().iter().find(|track| track.codec_params.codec != CODEC_TYPE_NULL);
    let track = track.ok_or_else(|| BadSample::undecodable("it has no audio"))?;
    let (id, parameters) = (track.id, track.codec_params.clone());
    let options = DecoderOptions { verify: true };
    let mut decoder = symphonia::default::get_codecs().make(&parameters, &options).map_err(unknown)?;

    let mut bytes = Vec::new();
    // Channels and rate, as the first packet has them.
    let mut spec: Option<(usize, u32)> = None;
    let mut steps = 0;
    loop {
        let packet = match format.next_packet() {
            Ok(packet) => packet,
            Err(AudioError::IoError(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(BadSample::undecodable(error.to_string())),
        };
        if packet.track_id() != id {
            continue;
        }
        let decoded = decoder.decode(&packet).map_err(|error| BadSample::undecodable(error.to_string()))?;
        let found = (decoded.spec().channels.count(), decoded.spec().rate);
        if *spec.get_or_insert(found) != found {
            return Err(BadSample::undecodable("its rate or channels change on the way"));
        }
        steps += decoded.frames() as u64;
        append(decoded, numbers, &mut bytes);
        if bytes.len() > MAX_DECODED_BYTES {
            let message = format!("decodes to more than {MAX_DECODED_BYTES} bytes; cut the file into parts");
            return Err(BadSample { class: BadClass::TooLong, message });
        }
    }
    if decoder.finalize().verify_ok == Some(false) {
        return Err(BadSample::undecodable("its checksum is another than that of what it decodes to"));
    }
    let (channels, rate) = match spec {
        Some((channels, rate)) if channels > 0 && steps > 0 => (channels as u32, rate),
        _ => return Err(BadSample { class: BadClass::Empty, message: "it holds no samples".to_owned() }),
    };
    // MP3's header may estimate.
    let declared = parameters.n_frames.filter(|_| parameters.codec != CODEC_TYPE_MP3);
    if let Some(declared) = declared.filter(|declared| steps < *declared) {
        let message = format!("it is cut off: {steps} of {declared} steps are there");
        return Err(BadSample::undecodable(message));
    }
    let rate_hz = (rate > 0).then_some(f64::from(rate));
    Ok(Decoded { bytes, numbers, channels, rate_hz, start_time: None })
}

fn append(decoded: AudioBufferRef<'_>, numbers: Numbers, bytes: &mut Vec<u8>) {
    if decoded.frames() == 0 {
        return;
    }
    let (capacity, spec) = (decoded.capacity() as u64, *decoded.spec());
    match numbers {
        Numbers::I16 => {
            let mut samples = SampleBuffer::<i16>::new(capacity, spec);
            samples.copy_interleaved_ref(decoded);
            bytes.extend(samples.samples().iter().flat_map(|sample| sample.to_le_bytes()));
        }
        Numbers::F32 => {
            let mut samples = SampleBuffer::<f32>::new(capacity, spec);
            samples.copy_interleaved_ref(decoded);
            bytes.extend(samples.samples().iter().flat_map(|sample| sample.to_le_bytes()));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A WAV file of 16 bits.
    pub(in super::super) fn wav(rate: u32, channels: u16, samples: &[i16]) -> Vec<u8> {
        let data: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut file = Vec::new();
        file.extend_from_slice(b"RIFF");
        file.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
        file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0");
        file.extend_from_slice(&channels.to_le_bytes());
        file.extend_from_slice(&rate.to_le_bytes());
        file.extend_from_slice(&(rate * u32::from(channels) * 2).to_le_bytes());
        file.extend_from_slice(&(channels * 2).to_le_bytes());
        file.extend_from_slice(b"\x10\0data");
        file.extend_from_slice(&(data.len() as u32).to_le_bytes());
        file.extend_from_slice(&data);
        file
    }

    fn class(encoded: Vec<u8>) -> BadClass {
        decode(encoded, Numbers::I16).unwrap_err().class
    }

    #[test]
    fn sixteen_bits_come_through_as_they_are() {
        let samples: Vec<i16> = (0..5_000).map(|x| ((x * 37) % 65_536 - 32_768) as i16).collect();
        let found = decode(wav(8_000, 2, &samples), Numbers::I16).unwrap();
        assert_eq!((found.channels, found.rate_hz), (2, Some(8_000.0)));
        assert_eq!(found.bytes, samples.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
        let floats = decode(wav(8_000, 2, &samples), Numbers::F32).unwrap().bytes;
        let first = f32::from_le_bytes([floats[4], floats[5], floats[6], floats[7]]);
        assert_eq!(first, f32::from(samples[1]) / 32_768.0);
    }

    #[test]
    fn damage_has_its_class() {
        let whole = wav(8_000, 1, &[7; 4_000]);
        assert_eq!(class(vec![]), BadClass::Empty);
        assert_eq!(class(b"no audio at all, but words".to_vec()), BadClass::UnknownFormat);
        assert_eq!(class(wav(8_000, 1, &[])), BadClass::Empty);
        let cut = decode(whole[..whole.len() / 2].to_vec(), Numbers::I16).unwrap_err();
        assert!(cut.class == BadClass::Decode && cut.message.contains("of 4000 steps"), "{cut}");
    }
}
