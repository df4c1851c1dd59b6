//! Encoded images as an argument: binary in any layout, or Hugging Face's `struct<bytes, path>`.
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, LargeBinaryArray, StructArray},
        datatypes::DataType,
    },
    common::{Result, exec_err},
};
use rayon::prelude::*;

use crate::augment::image::{
    header::{Header, probe},
    planes::PlanarImage,
    thumbnail::{DecodeLimits, thumbnail},
};

/// Field of a struct that holds the encoded image.
pub(crate) const BYTES: &str = "bytes";

/// Larger images are bad: the limit that pipelines have by default.
pub(super) const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 100_000_000, exif_orientation: false };

/// A column of encoded images.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncodedImages<'a> {
    layout: Layout<'a>,
    /// Whose NULLs count as well.
    outer: Option<&'a StructArray>,
}

#[derive(Debug, Clone, Copy)]
enum Layout<'a> {
    Plain(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
}

impl<'a> EncodedImages<'a> {
    /// Reads a column.
    ///
    /// # Errors
    /// It holds no binary values.
    pub(crate) fn new(array: &'a ArrayRef) -> Result<Self> {
        let layout = |array: &'a ArrayRef| match array.data_type() {
            DataType::Binary => Ok(Layout::Plain(array.as_binary())),
            DataType::LargeBinary => Ok(Layout::Large(array.as_binary())),
            DataType::BinaryView => Ok(Layout::View(array.as_binary_view())),
            other => exec_err!("an encoded image is binary, or a struct with the field `{BYTES}`, not {other}"),
        };
        match array.as_struct_opt() {
            None => Ok(Self { layout: layout(array)?, outer: None }),
            Some(outer) => match outer.column_by_name(BYTES) {
                Some(bytes) => Ok(Self { layout: layout(bytes)?, outer: Some(outer) }),
                None => exec_err!("a struct that holds an encoded image has the field `{BYTES}`"),
            },
        }
    }

    /// Rows.
    pub(crate) fn len(&self) -> usize {
        match self.layout {
            Layout::Plain(array) => array.len(),
            Layout::Large(array) => array.len(),
            Layout::View(array) => array.len(),
        }
    }

    /// The encoded image of a row, unless it is NULL.
    pub(crate) fn get(&self, row: usize) -> Option<&'a [u8]> {
        if self.outer.is_some_and(|outer| outer.is_null(row)) {
            return None;
        }
        match self.layout {
            Layout::Plain(array) => array.is_valid(row).then(|| array.value(row)),
            Layout::Large(array) => array.is_valid(row).then(|| array.value(row)),
            Layout::View(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}

/// What `value` makes of each header; `None` for NULL and for bytes that are no image.
pub(super) fn of_headers<T>(images: &ArrayRef, value: impl Fn(&Header) -> T) -> Result<Vec<Option<T>>> {
    let images = EncodedImages::new(images)?;
    Ok((0..images.len()).map(|row| probe(images.get(row)?).ok().map(|header| value(&header))).collect())
}

/// What `value` makes of each row's encoded image, on all cores; `None` for NULL.
pub(super) fn of_images<T: Send>(
    images: &ArrayRef,
    value: impl Fn(usize, &[u8]) -> Option<T> + Sync,
) -> Result<Vec<Option<T>>> {
    let images = EncodedImages::new(images)?;
    Ok((0..images.len()).into_par_iter().map(|row| value(row, images.get(row)?)).collect())
}

/// The brightness of an image resampled to the size that `size` makes of its own; `None` for what is no image.
pub(super) fn luma(encoded: &[u8], size: impl FnOnce(usize, usize) -> (usize, usize)) -> Option<Luma> {
    thumbnail(encoded, LIMITS, size).ok().map(|image| Luma::of(&image))
}

/// One brightness per pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Luma {
    /// Pixels per row.
    pub(super) width: usize,
    /// `[height, width]`, thousandths of a level.
    pub(super) samples: Vec<u32>,
}

impl Luma {
    /// BT.601: 0.299 red + 0.587 green + 0.114 blue.
    fn of(image: &PlanarImage) -> Self {
        let plane = image.width() * image.height();
        let (red, rest) = image.pixels().split_at(plane);
        let (green, blue) = rest.split_at(plane);
        let weighed = red.iter().zip(green).zip(blue);
        let samples = weighed.map(|((&r, &g), &b)| 299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b));
        Self { width: image.width(), samples: samples.collect() }
    }
}

/// `width` x `height` made smaller so that neither side is longer than `longest`; the aspect is kept.
pub(super) fn within(longest: usize, width: usize, height: usize) -> (usize, usize) {
    let long = width.max(height);
    if long <= longest {
        return (width, height);
    }
    let scaled = |side: usize| ((side * longest + long / 2) / long).max(1);
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{array::StringArray, datatypes::Field};

    use super::*;

    #[test]
    fn every_layout_is_read_and_every_null_is_one() {
        let rows = [Some(&b"a"[..]), None, Some(&b"c"[..])];
        let plain: ArrayRef = Arc::new(rows.into_iter().collect::<BinaryArray>());
        let large: ArrayRef = Arc::new(rows.into_iter().collect::<LargeBinaryArray>());
        let view: ArrayRef = Arc::new(rows.into_iter().collect::<BinaryViewArray>());
        for array in [&plain, &large, &view] {
            let images = EncodedImages::new(array).unwrap();
            assert_eq!((0..images.len()).map(|row| images.get(row)).collect::<Vec<_>>(), rows);
        }
        let path: ArrayRef = Arc::new(StringArray::new_null(3));
        let nullable = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
        let fields = vec![nullable("bytes", &plain), nullable("path", &path)];
        let nulls = vec![true, true, false].into();
        let outer: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![plain, path], Some(nulls)));
        let images = EncodedImages::new(&outer).unwrap();
        assert_eq!((0..3).map(|row| images.get(row)).collect::<Vec<_>>(), [rows[0], None, None]);
    }

    #[test]
    fn sides_are_limited_and_never_become_zero() {
        assert_eq!(within(512, 400, 300), (400, 300));
        assert_eq!(within(512, 1024, 300), (512, 150));
        assert_eq!(within(512, 2, 10_000), (1, 512));
    }
}
