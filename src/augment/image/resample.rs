//! Boxes of decoded planes into pixels of a view.
use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
    pixels::U8,
};

use super::{
    decoded::{Decoded, Layout, PlaneRef},
    planes::{PlanarImage, Planes},
    region::Region,
    simd::{clamp_and_cut, multiversion},
};

/// Resamples `region` of `decoded` into `out`, whose size is the region's, bilinearly and without aliases.
///
/// The filter is the triangle whose support grows with the reduction, as in PIL and in torchvision with `antialias`;
/// results are within one level of theirs for an RGB image. At the edge of a closed region the filter stops wherever the
/// edge falls between two samples of the plane; of subsampled or scaled planes it may see one sample beyond.
///
/// Returns whether the region lay within the image.
pub(super) fn resample(resizer: &mut Resizer, decoded: &Decoded, region: &Region, out: &mut Planes<'_>) -> bool {
    let size = (region.out_width, region.out_height);
    if (out.width(), out.height()) != size {
        return false;
    }
    let channels = out.rgb();
    match decoded.layout {
        Layout::Gray => {
            let [red, green, blue] = channels;
            let done = resample_plane(resizer, decoded.planes[0].as_ref(), region, red);
            green.copy_from_slice(red);
            blue.copy_from_slice(red);
            done
        }
        layout => {
            let done = channels
                .into_iter()
                .zip(&decoded.planes)
                .all(|(channel, plane)| resample_plane(resizer, plane.as_ref(), region, channel));
            if layout == Layout::YCbCr {
                let [luma, blueness, redness] = out.rgb();
                ycbcr_to_rgb(luma, blueness, redness);
            }
            done
        }
    }
}

/// [`resample`] from an image that is RGB already; what lies outside it becomes black where nothing is resized.
pub(super) fn resample_image(resizer: &mut Resizer, image: &PlanarImage, region: &Region, out: &mut Planes<'_>) -> bool {
    let (width, height) = (image.width(), image.height());
    let plane = width * height;
    if !region.lies_within(width, height) {
        let (left, top) = (region.left as isize, region.top as isize);
        return region.is_crop() && pad(image, left, top, out);
    }
    out.rgb().into_iter().enumerate().all(|(channel, out)| {
        let samples = &image.pixels()[channel * plane..(channel + 1) * plane];
        resample_plane(resizer, PlaneRef { width, height, scale: [1.0; 2], samples }, region, out)
    })
}

/// Copies an image so that its pixel (`left`, `top`) comes to lie at the corner of `out`; black around it.
fn pad(image: &PlanarImage, left: isize, top: isize, out: &mut Planes<'_>) -> bool {
    let (width, height) = (image.width(), image.height());
    let (out_width, out_height) = (out.width(), out.height());
    for (channel, out) in out.rgb().into_iter().enumerate() {
        let samples = &image.pixels()[channel * width * height..];
        out.fill(0);
        for (y, row) in out.chunks_exact_mut(out_width).enumerate().take(out_height) {
            let from_y = y as isize + top;
            if from_y < 0 || from_y >= height as isize {
                continue;
            }
            let from = &samples[from_y as usize * width..][..width];
            let skipped = usize::try_from(left).unwrap_or(0);
            let indent = usize::try_from(-left).unwrap_or(0);
            let count = width.saturating_sub(skipped).min(out_width.saturating_sub(indent));
            row[indent..indent + count].copy_from_slice(&from[skipped..skipped + count]);
        }
    }
    true
}

fn resample_plane(resizer: &mut Resizer, plane: PlaneRef<'_>, region: &Region, out: &mut [u8]) -> bool {
    let [x, y] = plane.scale;
    let (left, top) = (region.left * x, region.top * y);
    // A plane may be a fraction of a sample smaller than the image says.
    let width = (region.width * x).min(plane.width as f64 - left);
    let height = (region.height * y).min(plane.height as f64 - top);
    if !(left >= 0.0 && top >= 0.0 && width > 0.0 && height > 0.0) {
        return false;
    }
    let source = TypedImageRef::<U8>::from_buffer(plane.width as u32, plane.height as u32, plane.samples);
    let target = TypedImage::<U8>::from_buffer(region.out_width as u32, region.out_height as u32, out);
    let (Ok(source), Ok(mut target)) = (source, target) else { return false };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    let whole = |value: f64| value == libm::trunc(value);
    if region.closed && [left, top, width, height].into_iter().all(whole) {
        let cropped = TypedCroppedImage::from_ref(&source, left as u32, top as u32, width as u32, height as u32);
        return cropped.is_ok_and(|cropped| resizer.resize_typed(&cropped, &mut target, &options).is_ok());
    }
    // One ulp too wide is refused.
    let fits = |start: f64, length: f64, limit: usize| if start + length > limit as f64 { length - 1e-9 } else { length };
    let (width, height) = (fits(left, width, plane.width), fits(top, height, plane.height));
    resizer.resize_typed(&source, &mut target, &options.crop(left, top, width, height)).is_ok()
}

multiversion! {
    /// JFIF's full-range YCbCr to RGB, in place, rounded.
    fn ycbcr_to_rgb(first: &mut [u8], second: &mut [u8], third: &mut [u8]) {
        for ((first, second), third) in first.iter_mut().zip(second).zip(third) {
            let luma = f32::from(*first) + 0.5;
            let (blueness, redness) = (f32::from(*second) - 128.0, f32::from(*third) - 128.0);
            *first = clamp_and_cut(luma + 1.402 * redness);
            *second = clamp_and_cut(luma - 0.344_136_29 * blueness - 0.714_136_29 * redness);
            *third = clamp_and_cut(luma + 1.772 * blueness);
        }
    }
}

