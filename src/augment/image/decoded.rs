//! A decoded image as the decoder left it: planes in its own colour space, sampling and scale.
//!
//! A JPEG stores luma and chroma, the latter usually at half the size. Turning that into full-size RGB first and resampling
//! it afterwards does most of its work on pixels that no view shows. Resampling and the conversion to RGB are both linear,
//! so they may change places: each plane is resampled from the samples it has, and only the views' pixels become RGB.
//! Against decode-all-then-crop this differs by rounding, and in chroma by the filter that enlarges it (ours is the
//! resampling filter itself, libjpeg's "fancy upsampling" is a triangle followed by it).

/// What the planes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One plane for all three channels.
    #[default]
    Gray,
    /// JPEG's full-range YCbCr (JFIF).
    YCbCr,
    /// Red, green, blue.
    Rgb,
}

/// Samples `[height, width]` and how they lie in the image.
#[derive(Debug, Clone, Default)]
pub struct Plane {
    /// Samples per row.
    pub width: usize,
    /// Rows that were decoded: from the top, not always all.
    pub height: usize,
    /// Samples per pixel of the image, horizontally and vertically: 1, or less with subsampling or a scaled decode.
    pub scale: [f64; 2],
    pub(super) samples: Vec<u8>,
}

impl Plane {
    /// Takes a size; memory grows as needed and is kept.
    pub(super) fn resize(&mut self, width: usize, height: usize, scale: [f64; 2]) {
        let count = width * height;
        if self.samples.len() < count {
            self.samples.resize(count, 0);
        }
        (self.width, self.height, self.scale) = (width, height, scale);
    }

    /// The samples, `[height, width]`.
    pub fn samples(&self) -> &[u8] {
        &self.samples[..self.width * self.height]
    }

    pub(super) fn as_ref(&self) -> PlaneRef<'_> {
        PlaneRef { width: self.width, height: self.height, scale: self.scale, samples: self.samples() }
    }

    pub(super) fn samples_mut(&mut self) -> &mut [u8] {
        &mut self.samples[..self.width * self.height]
    }
}

/// Borrowed samples `[height, width]` and how they lie in the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaneRef<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) scale: [f64; 2],
    pub(super) samples: &'a [u8],
}

/// A decoded image. Reused from image to image.
#[derive(Debug, Clone, Default)]
pub struct Decoded {
    /// What the planes mean.
    pub layout: Layout,
    /// One (grey) or three planes are in use.
    pub planes: [Plane; 3],
}

impl Decoded {
    /// Three full-size planes for an image of `width` x `height` pixels.
    pub(super) fn prepare_rgb(&mut self, width: usize, height: usize, scale: [f64; 2]) {
        self.layout = Layout::Rgb;
        for plane in &mut self.planes {
            plane.resize(width, height, scale);
        }
    }

    /// Red, green or blue of an image that is no YCbCr; grey is all three.
    pub(super) fn rgb_plane(&self, channel: usize) -> &[u8] {
        match self.layout {
            Layout::Gray => self.planes[0].samples(),
            Layout::YCbCr | Layout::Rgb => self.planes[channel].samples(),
        }
    }

    /// Bytes this holds on to.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.planes.iter().map(|plane| plane.samples.capacity()).sum()
    }
}
