//! JPEG through libjpeg-turbo 3: as few rows, and as small, as the views need.
use std::ffi::CStr;

use image::metadata::Orientation;
use turbojpeg::raw;

use super::{
    decoded::{Decoded, Layout},
    header::JpegFrame,
    interleaved,
    precise_resize::Interpolation,
    region::Region,
    source::{DECODER_BYTES_PER_PIXEL, DECODER_ROOM_BYTES},
};
use crate::augment::BadSample;

/// Progressive files with more scans are refused: a few kilobytes could keep a decoder busy for minutes.
const MAX_SCANS: i32 = 500;
/// Numerators over 8 of the scaled decodes that libjpeg-turbo has vector code for; others cost more than they save.
const SCALES: [i32; 4] = [1, 2, 4, 8];
/// What libjpeg says of the bytes that follow the last row it was asked for.
const BYTES_AFTER_THE_LAST_ROW: &[u8] = b"extraneous bytes before marker";

/// A libjpeg-turbo decompressor, one per thread.
#[derive(Debug)]
pub(super) struct JpegDecoder {
    handle: raw::tjhandle,
    /// The file with a smaller height in its header.
    shortened: Vec<u8>,
    /// Interleaved samples on the way to planes.
    interleaved: Vec<u8>,
}

impl JpegDecoder {
    pub(super) fn new() -> Result<Self, BadSample> {
        // SAFETY: takes a constant, returns null on failure, which is checked.
        let handle = unsafe { raw::tj3Init(raw::TJINIT_TJINIT_DECOMPRESS as i32) };
        let decoder = Self { handle, shortened: Vec::new(), interleaved: Vec::new() };
        if handle.is_null() {
            return Err(decoder.failure("libjpeg-turbo"));
        }
        // A warning is damaged data. Stopping there is also what makes a shortened file cheap.
        decoder.set(raw::TJPARAM_TJPARAM_STOPONWARNING, 1)?;
        decoder.set(raw::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS)?;
        // Colour profiles are not applied, so they are not collected either.
        decoder.set(raw::TJPARAM_TJPARAM_SAVEMARKERS, 0)?;
        Ok(decoder)
    }

    /// Bytes this holds on to.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.shortened.capacity() + self.interleaved.capacity()
    }

    /// Decodes what `regions` need. After an error the decoder must not be used again.
    ///
    /// # Errors
    /// [`crate::augment::BadClass::Decode`] where libjpeg-turbo refuses the data or warns of damage in the rows that are needed.
    pub(super) fn decode(
        &mut self,
        encoded: &[u8],
        regions: &[Region],
        orientation: Orientation,
        decoded: &mut Decoded,
    ) -> Result<(), BadSample> {
        let frame = self.open(encoded)?;
        let space = self.get(raw::TJPARAM_TJPARAM_COLORSPACE) as raw::TJCS;
        let sampling = subsampling(self.get(raw::TJPARAM_TJPARAM_SUBSAMP));
        let lossless = self.get(raw::TJPARAM_TJPARAM_LOSSLESS) == 1;
        let upright = orientation == Orientation::NoTransforms;
        let scale = if upright && !lossless { scale_for(regions) } else { 8 };
        self.set_scale(scale)?;
        match sampling {
            Some(sampling) if upright && !lossless && matches!(space, raw::TJCS_TJCS_YCbCr | raw::TJCS_TJCS_GRAY) => {
                self.decode_planes(encoded, &frame, regions, scale, sampling, decoded)
            }
            _ => self.decode_interleaved(encoded, &frame, false, scale, orientation, decoded),
        }
    }

    /// Decodes all of it into full-size RGB, as a decoder that knows of no views does. After an error as [`Self::decode`].
    ///
    /// With `inks`, CMYK stays CMYK, 255 for all of an ink: planes of three, and black in [`Self::interleaved`].
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub(super) fn decode_rgb(
        &mut self,
        encoded: &[u8],
        inks: bool,
        orientation: Orientation,
        decoded: &mut Decoded,
    ) -> Result<(), BadSample> {
        let frame = self.open(encoded)?;
        self.decode_interleaved(encoded, &frame, inks, 8, orientation, decoded)
    }

    /// Pixels of [`Self::decode_rgb`] as they were before they became planes; what follows the last of them means nothing.
    pub(super) fn interleaved(&self) -> &[u8] {
        &self.interleaved
    }

    /// Reads the header and sets limits by what it declares.
    fn open(&mut self, encoded: &[u8]) -> Result<JpegFrame, BadSample> {
        let frame = JpegFrame::find(encoded).ok_or_else(|| BadSample::undecodable("the header is cut off"))?;
        self.set_scale(8)?;
        self.check_size(encoded, frame.width, frame.height.into())?;
        let room = u64::from(frame.width) * u64::from(frame.height) * DECODER_BYTES_PER_PIXEL + DECODER_ROOM_BYTES;
        self.set(raw::TJPARAM_TJPARAM_MAXMEMORY, i32::try_from(room >> 20).unwrap_or(i32::MAX))?;
        Ok(frame)
    }

    /// Luma and chroma as they are stored, down to the last row that a region needs.
    fn decode_planes(
        &mut self,
        encoded: &[u8],
        frame: &JpegFrame,
        regions: &[Region],
        scale: i32,
        sampling: [usize; 2],
        decoded: &mut Decoded,
    ) -> Result<(), BadSample> {
        let height = usize::from(frame.height);
        let rows = rows_needed(regions, scale, sampling[1]).next_multiple_of(frame.unit_rows.max(1)).min(height);
        let shorten = frame.rows_in_order && rows < height;
        let rows = if shorten { rows } else { height };
        let subsampling = self.get(raw::TJPARAM_TJPARAM_SUBSAMP);
        let scaled = |length: usize| (length as i32 * scale + 7) / 8;
        let count = if frame.components == 1 { 1 } else { 3 };
        decoded.layout = if count == 1 { Layout::Gray } else { Layout::YCbCr };
        let mut pointers = [std::ptr::null_mut(); 3];
        let mut strides = [0; 3];
        for (index, plane) in decoded.planes.iter_mut().enumerate().take(count) {
            // SAFETY: pure functions of their arguments.
            let (plane_width, plane_height) = unsafe {
                let id = index as i32;
                (
                    raw::tj3YUVPlaneWidth(id, scaled(frame.width.into()), subsampling),
                    raw::tj3YUVPlaneHeight(id, scaled(rows), subsampling),
                )
            };
            if plane_width <= 0 || plane_height <= 0 {
                return Err(BadSample::undecodable("no plane of this size"));
            }
            let per_pixel = |axis: usize| {
                let divisor = if index == 0 { 1 } else { sampling[axis] };
                f64::from(scale) / (8 * divisor) as f64
            };
            plane.resize(plane_width as usize, plane_height as usize, [per_pixel(0), per_pixel(1)]);
            pointers[index] = plane.samples.as_mut_ptr();
            strides[index] = plane_width;
        }
        let source = if shorten {
            self.shortened.clear();
            self.shortened.extend_from_slice(encoded);
            self.shortened[frame.height_at..frame.height_at + 2].copy_from_slice(&(rows as u16).to_be_bytes());
            // The planes below are as high as this says. That the library reads it so is asked, not assumed.
            self.check_size(&self.shortened, frame.width, rows)?;
            self.shortened.as_slice()
        } else {
            encoded
        };
        // SAFETY: `source` is one slice; each plane has stride x height bytes for exactly the size and sampling that the
        // header, read by the same library, declares; the library checks these again while it reads it once more.
        let status = unsafe {
            raw::tj3DecompressToYUVPlanes8(
                self.handle,
                source.as_ptr(),
                source.len() as raw::size_t,
                pointers.as_mut_ptr(),
                strides.as_mut_ptr(),
            )
        };
        if status == 0 || (frame.rows_in_order && self.stopped_after_the_last_row()) {
            return Ok(());
        }
        Err(self.failure("decoding"))
    }

    /// Whatever the fast way cannot take: rare colour spaces and samplings, and images to be turned.
    fn decode_interleaved(
        &mut self,
        encoded: &[u8],
        frame: &JpegFrame,
        inks: bool,
        scale: i32,
        orientation: Orientation,
        decoded: &mut Decoded,
    ) -> Result<(), BadSample> {
        let space = self.get(raw::TJPARAM_TJPARAM_COLORSPACE) as raw::TJCS;
        let cmyk = matches!(space, raw::TJCS_TJCS_CMYK | raw::TJCS_TJCS_YCCK);
        let (format, channels) = if cmyk { (raw::TJPF_TJPF_CMYK, 4) } else { (raw::TJPF_TJPF_RGB, 3) };
        let scaled = |length: u16| (usize::from(length) * scale as usize).div_ceil(8);
        let (width, height) = (scaled(frame.width), scaled(frame.height));
        let bytes = width * height * channels;
        if self.interleaved.len() < bytes {
            self.interleaved.resize(bytes, 0);
        }
        // SAFETY: `encoded` is one slice; the buffer has width x height x channels bytes for the scale just set, and a
        // pitch of 0 means rows without gaps.
        let status = unsafe {
            raw::tj3Decompress8(
                self.handle,
                encoded.as_ptr(),
                encoded.len() as raw::size_t,
                self.interleaved.as_mut_ptr(),
                0,
                format,
            )
        };
        if status != 0 && !(frame.rows_in_order && self.stopped_after_the_last_row()) {
            return Err(self.failure("decoding"));
        }
        let samples = &mut self.interleaved[..bytes];
        if cmyk && inks {
            // Adobe's files have them inverted, and every writer follows.
            samples.iter_mut().for_each(|sample| *sample = 255 - *sample);
        } else if cmyk {
            interleaved::cmyk_to_rgb(samples);
        }
        let per_pixel = f64::from(scale) / 8.0;
        interleaved::into_planes(samples, width, channels, orientation, [per_pixel; 2], decoded);
        Ok(())
    }

    /// Refuses a file in which libjpeg-turbo finds another size.
    fn check_size(&self, encoded: &[u8], width: u16, height: usize) -> Result<(), BadSample> {
        // SAFETY: pointer and length are those of one slice.
        let status = unsafe { raw::tj3DecompressHeader(self.handle, encoded.as_ptr(), encoded.len() as raw::size_t) };
        if status != 0 {
            return Err(self.failure("header"));
        }
        let found = (self.get(raw::TJPARAM_TJPARAM_JPEGWIDTH), self.get(raw::TJPARAM_TJPARAM_JPEGHEIGHT));
        if found == (i32::from(width), height as i32) {
            Ok(())
        } else {
            Err(BadSample::undecodable("two headers declare different sizes"))
        }
    }

    /// Whether the last call failed only because of what follows the rows it had already written.
    fn stopped_after_the_last_row(&self) -> bool {
        // SAFETY: the handle is valid; the message is a C string that lives until the next call.
        let (code, message) =
            unsafe { (raw::tj3GetErrorCode(self.handle), CStr::from_ptr(raw::tj3GetErrorStr(self.handle)).to_bytes()) };
        code == raw::TJERR_TJERR_WARNING as i32
            && message.windows(BYTES_AFTER_THE_LAST_ROW.len()).any(|window| window == BYTES_AFTER_THE_LAST_ROW)
    }

    fn set_scale(&self, numerator: i32) -> Result<(), BadSample> {
        let factor = match numerator {
            1 => raw::tjscalingfactor { num: 1, denom: 8 },
            2 => raw::tjscalingfactor { num: 1, denom: 4 },
            4 => raw::tjscalingfactor { num: 1, denom: 2 },
            _ => raw::tjscalingfactor { num: 1, denom: 1 },
        };
        // SAFETY: the handle is valid.
        let status = unsafe { raw::tj3SetScalingFactor(self.handle, factor) };
        if status == 0 { Ok(()) } else { Err(self.failure("scale")) }
    }

    fn set(&self, parameter: raw::TJPARAM, value: i32) -> Result<(), BadSample> {
        // SAFETY: the handle is valid.
        let status = unsafe { raw::tj3Set(self.handle, parameter as i32, value) };
        if status == 0 { Ok(()) } else { Err(self.failure("setting")) }
    }

    fn get(&self, parameter: raw::TJPARAM) -> i32 {
        // SAFETY: the handle is valid.
        unsafe { raw::tj3Get(self.handle, parameter as i32) }
    }

    fn failure(&self, what: &str) -> BadSample {
        // SAFETY: accepts any handle, null too; the message is a C string.
        let message = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.handle)) };
        BadSample::undecodable(format!("{what}: {}", message.to_string_lossy()))
    }
}

impl Drop for JpegDecoder {
    fn drop(&mut self) {
        // SAFETY: made by `tj3Init`, destroyed once; null is accepted.
        unsafe { raw::tj3Destroy(self.handle) }
    }
}

/// Pixels per chroma sample, horizontally and vertically.
fn subsampling(code: i32) -> Option<[usize; 2]> {
    Some(match code {
        raw::TJSAMP_TJSAMP_444 | raw::TJSAMP_TJSAMP_GRAY => [1, 1],
        raw::TJSAMP_TJSAMP_422 => [2, 1],
        raw::TJSAMP_TJSAMP_420 => [2, 2],
        raw::TJSAMP_TJSAMP_440 => [1, 2],
        raw::TJSAMP_TJSAMP_411 => [4, 1],
        raw::TJSAMP_TJSAMP_441 => [1, 4],
        _ => return None,
    })
}

/// The smallest scale, in eighths, at which every region still has at least as many pixels as its view, for a cubic filter
/// twice as many per side.
fn scale_for(regions: &[Region]) -> i32 {
    let enough = |scale: &i32| {
        regions.iter().all(|region| {
            let factor = f64::from(*scale) / 8.0;
            // A cubic filter sharpens what it reduces: of a decode that has already been reduced there is less to see.
            let pixels = factor / if region.interpolation == Interpolation::Bicubic { 2.0 } else { 1.0 };
            region.width * pixels >= region.out_width as f64 && region.height * pixels >= region.out_height as f64
        })
    };
    SCALES.into_iter().find(enough).unwrap_or(8)
}

/// Rows from the top that the regions' filters reach, with room to spare.
fn rows_needed(regions: &[Region], scale: i32, rows_per_chroma_sample: usize) -> usize {
    let sample = 8.0 / f64::from(scale) * rows_per_chroma_sample as f64;
    let bottom = |region: &Region| {
        let reach = (region.height / region.out_height.max(1) as f64).max(sample);
        region.top + region.height + 2.0 * reach + 1.0
    };
    regions.iter().map(bottom).fold(1.0, f64::max).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(subsampling: turbojpeg::Subsamp) -> Vec<u8> {
        let pixels: Vec<u8> = (0..3 * 90 * 150_u32).map(|i| (i / 40 + i % 3 * 60) as u8).collect();
        let format = turbojpeg::PixelFormat::RGB;
        let image = turbojpeg::Image { pixels: pixels.as_slice(), width: 90, pitch: 270, height: 150, format };
        turbojpeg::compress(image, 90, subsampling).expect("encodes").to_vec()
    }

    fn decoded(encoded: &[u8], regions: &[Region]) -> Decoded {
        let mut decoded = Decoded::default();
        let mut decoder = JpegDecoder::new().expect("a decoder");
        decoder.decode(encoded, regions, Orientation::NoTransforms, &mut decoded).expect("a good JPEG");
        decoded
    }

    #[test]
    fn upper_rows_alone_are_those_of_a_whole_decode() {
        for subsampling in [turbojpeg::Subsamp::None, turbojpeg::Subsamp::Sub2x2, turbojpeg::Subsamp::Sub2x1] {
            let encoded = encoded(subsampling);
            let whole = Region { out_width: 80, out_height: 140, ..Region::whole(90, 150) };
            let upper = Region { height: 60.0, out_width: 80, out_height: 60, ..whole };
            let (whole, upper) = (decoded(&encoded, &[whole]), decoded(&encoded, &[upper]));
            for (whole, upper) in whole.planes.iter().zip(&upper.planes) {
                assert!(upper.height < whole.height, "{subsampling:?}: all {} rows were decoded", whole.height);
                assert_eq!(upper.samples(), &whole.samples()[..upper.samples().len()], "{subsampling:?}");
            }
        }
    }

    #[test]
    fn scale_leaves_every_region_at_least_its_views_pixels() {
        let region = |side: f64, out: usize| Region {
            width: side,
            height: side,
            out_width: out,
            out_height: out,
            ..Region::whole(1, 1)
        };
        assert_eq!(scale_for(&[region(223.0, 224)]), 8);
        assert_eq!(scale_for(&[region(447.0, 224)]), 8);
        assert_eq!(scale_for(&[region(448.0, 224)]), 4);
        assert_eq!(scale_for(&[region(448.0, 224), region(300.0, 224)]), 8);
        assert_eq!(scale_for(&[region(1792.0, 224)]), 1);
        assert_eq!(scale_for(&[]), 1);
        let cubic = |side, out| Region { interpolation: Interpolation::Bicubic, ..region(side, out) };
        assert_eq!([895.0, 896.0, 1792.0].map(|side| scale_for(&[cubic(side, 224)])), [8, 4, 2]);
    }
}
