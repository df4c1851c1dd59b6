//! Which part of an image becomes which pixels of a view: what a geometric op decides before anything is decoded.
use super::precise_resize::Interpolation;

/// A box in an image and the size it is resampled to. Coordinates are pixels from the top left corner, not rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Left edge of the box.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width of the box.
    pub width: f64,
    /// Height of the box.
    pub height: f64,
    /// Pixels per row of the result.
    pub out_width: usize,
    /// Rows of the result.
    pub out_height: usize,
    /// Whether the resampling filter stops at the box, as when a crop comes before a resize, instead of seeing the pixels
    /// around it, as when a crop comes after one.
    pub closed: bool,
    /// Shape of that filter.
    pub interpolation: Interpolation,
}

impl Region {
    /// The whole image as it is.
    pub fn whole(width: usize, height: usize) -> Self {
        Self {
            left: 0.0,
            top: 0.0,
            width: width as f64,
            height: height as f64,
            out_width: width,
            out_height: height,
            closed: true,
            interpolation: Interpolation::Bilinear,
        }
    }

    /// Whether nothing of it is outside an image of this size.
    pub fn lies_within(&self, width: usize, height: usize) -> bool {
        self.left >= 0.0
            && self.top >= 0.0
            && self.left + self.width <= width as f64
            && self.top + self.height <= height as f64
    }

    /// Whether it cuts without resizing.
    pub fn is_crop(&self) -> bool {
        self.width == self.out_width as f64 && self.height == self.out_height as f64
    }

    /// This region of an image of `width` x `height` and then `next` of its result as one region, where that gives the
    /// same pixels: a crop of a resized whole image.
    pub fn then(&self, next: &Self, width: usize, height: usize) -> Option<Self> {
        let whole = Self::whole(width, height);
        let resized = Self { out_width: self.out_width, out_height: self.out_height, ..whole };
        if *self != (Self { interpolation: self.interpolation, ..resized })
            || !next.is_crop()
            || !next.lies_within(self.out_width, self.out_height)
        {
            return None;
        }
        let x = self.width / self.out_width as f64;
        let y = self.height / self.out_height as f64;
        Some(Self {
            left: next.left * x,
            top: next.top * y,
            width: next.width * x,
            height: next.height * y,
            closed: self.is_crop(),
            interpolation: self.interpolation,
            ..*next
        })
    }
}
