//! Pixels as the ops see them: three planes of u8, in place, in the batch's own memory.

/// An RGB image as three planes, `[3, height, width]`, borrowed from wherever it will stay.
#[derive(Debug)]
pub struct Planes<'a> {
    width: usize,
    height: usize,
    pixels: &'a mut [u8],
}

impl<'a> Planes<'a> {
    /// Borrows the first `3 * width * height` bytes of `pixels`; `None` where there are fewer.
    pub fn new(width: usize, height: usize, pixels: &'a mut [u8]) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        Some(Self { width, height, pixels: pixels.get_mut(..bytes)? })
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes, `[3, height, width]`.
    pub fn pixels(&mut self) -> &mut [u8] {
        self.pixels
    }

    /// Red, green, blue, `[height, width]` each.
    pub fn rgb(&mut self) -> [&mut [u8]; 3] {
        let plane = self.width * self.height;
        let (red, rest) = self.pixels.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        [red, green, blue]
    }
}

/// An RGB image as three planes, `[3, height, width]`, with memory of its own that grows as needed and is reused.
#[derive(Debug, Default, Clone)]
pub struct PlanarImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl PlanarImage {
    /// An image from `[3, height, width]` bytes; `None` where their number is another.
    pub fn from_pixels(width: usize, height: usize, pixels: Vec<u8>) -> Option<Self> {
        (pixels.len() == 3 * width * height).then_some(Self { width, height, pixels })
    }

    /// Takes the given size; the pixels hold anything.
    pub fn resize(&mut self, width: usize, height: usize) {
        let bytes = 3 * width * height;
        if self.pixels.len() < bytes {
            self.pixels.resize(bytes, 0);
        }
        (self.width, self.height) = (width, height);
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes, `[3, height, width]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels[..3 * self.width * self.height]
    }

    /// For ops.
    pub fn planes(&mut self) -> Planes<'_> {
        let bytes = 3 * self.width * self.height;
        Planes { width: self.width, height: self.height, pixels: &mut self.pixels[..bytes] }
    }
}
