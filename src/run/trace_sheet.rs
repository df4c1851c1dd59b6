//! A contact sheet of series: a panel per window, in it a trace per channel, as a PNG to look at.
use std::path::Path;

use image::{Rgb, RgbImage};

use crate::{
    Result,
    error::{Context, Error, Stage},
};

const PANEL_WIDTH_PIXELS: usize = 384;
const LEAST_PANEL_HEIGHT_PIXELS: usize = 96;
/// Of one channel's trace, where a window has several.
const LANE_PIXELS: usize = 28;
/// Width the sheet aims at.
const SHEET_PIXELS: usize = 1_200;
/// Between the windows of one item, and between items.
const INNER_GAP_PIXELS: usize = 2;
const OUTER_GAP_PIXELS: usize = 12;
const BACKGROUND: Rgb<u8> = Rgb([44, 46, 51]);
const PANEL: Rgb<u8> = Rgb([28, 29, 33]);
const ZERO: Rgb<u8> = Rgb([70, 72, 80]);
/// Channels take turns.
const TRACES: [Rgb<u8>; 4] = [Rgb([110, 190, 255]), Rgb([255, 180, 90]), Rgb([140, 220, 130]), Rgb([235, 130, 170])];

/// Lays out `values`, `[items, windows, channels, steps]`, as a grid in reading order, the windows of an item side by side.
///
/// All traces of a channel have one scale, that of its largest absolute value over the sheet.
///
/// # Errors
/// The length does not fit the shape, or there is nothing to show.
pub fn trace_sheet(values: &[f32], [items, windows, channels, steps]: [usize; 4]) -> Result<RgbImage> {
    let panel_values = channels * steps;
    if items * windows * panel_values == 0 || values.len() != items * windows * panel_values {
        let reason = format!("{} numbers are not [{items}, {windows}, {channels}, {steps}], or nothing", values.len());
        return Err(Error::at(Stage::Batch, "contact sheet", reason));
    }
    let panel_height = LEAST_PANEL_HEIGHT_PIXELS.max(channels * LANE_PIXELS);
    let item_width = windows * PANEL_WIDTH_PIXELS + (windows - 1) * INNER_GAP_PIXELS;
    let columns = (SHEET_PIXELS / (item_width + OUTER_GAP_PIXELS)).clamp(1, items);
    let width = columns * (item_width + OUTER_GAP_PIXELS) + OUTER_GAP_PIXELS;
    let height = items.div_ceil(columns) * (panel_height + OUTER_GAP_PIXELS) + OUTER_GAP_PIXELS;
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(Error::at(Stage::Batch, "contact sheet", "is too large; show fewer items"));
    };
    let mut largest = vec![f32::MIN_POSITIVE; channels];
    for (at, trace) in values.chunks_exact(steps).enumerate() {
        let of_trace = trace.iter().filter(|x| x.is_finite()).fold(0.0_f32, |most, x| most.max(x.abs()));
        largest[at % channels] = largest[at % channels].max(of_trace);
    }
    let mut sheet = RgbImage::from_pixel(width, height, BACKGROUND);
    for (at, panel) in values.chunks_exact(panel_values).enumerate() {
        let (item, window) = (at / windows, at % windows);
        let left = OUTER_GAP_PIXELS
            + item % columns * (item_width + OUTER_GAP_PIXELS)
            + window * (PANEL_WIDTH_PIXELS + INNER_GAP_PIXELS);
        let top = OUTER_GAP_PIXELS + item / columns * (panel_height + OUTER_GAP_PIXELS);
        let lane = panel_height / channels;
        for y in 0..panel_height {
            let is_zero = y % lane == lane / 2 && y / lane < channels;
            for x in 0..PANEL_WIDTH_PIXELS {
                sheet.put_pixel((left + x) as u32, (top + y) as u32, if is_zero { ZERO } else { PANEL });
            }
        }
        for (channel, trace) in panel.chunks_exact(steps).enumerate() {
            let row = |value: f32| {
                let share = (value / largest[channel]).clamp(-1.0, 1.0);
                let half = (lane / 2).saturating_sub(1) as f32;
                channel * lane + (lane / 2).saturating_add_signed((-share * half).round() as isize)
            };
            for x in 0..PANEL_WIDTH_PIXELS {
                let (low, high) = seen(trace, x);
                if low <= high {
                    for y in row(high)..=row(low) {
                        sheet.put_pixel((left + x) as u32, (top + y) as u32, TRACES[channel % TRACES.len()]);
                    }
                }
            }
        }
    }
    Ok(sheet)
}

/// Least and largest number that a line through the steps has in column `x` of a panel: an envelope where steps crowd.
///
/// Steps without a number leave a gap, the least above the largest.
fn seen(trace: &[f32], x: usize) -> (f32, f32) {
    let last = trace.len() - 1;
    let place = |x: f64| (x / (PANEL_WIDTH_PIXELS - 1) as f64).clamp(0.0, 1.0) * last as f64;
    let (from, to) = (place(x as f64 - 0.5), place(x as f64 + 0.5));
    let between = |place: f64| {
        let (before, after) = (trace[place as usize], trace[(place.ceil() as usize).min(last)]);
        before + (after - before) * place.fract() as f32
    };
    let whole =
        &trace[(from.ceil() as usize).min(last)..(to.floor() as usize + 1).max(from.ceil() as usize).min(last + 1)];
    let all = [between(from), between(to)].into_iter().chain(whole.iter().copied());
    let finite = all.filter(|value| value.is_finite());
    finite.fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(value), high.max(value)))
}

/// [`trace_sheet`] into a PNG file.
///
/// # Errors
/// As there, or the file cannot be written.
pub fn write_trace_sheet(path: &Path, values: &[f32], shape: [usize; 4]) -> Result<()> {
    trace_sheet(values, shape)?.save_with_format(path, image::ImageFormat::Png).context(
        Stage::Batch,
        path.display().to_string(),
        "cannot write the contact sheet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a panel's column in which a trace is.
    fn rows(sheet: &RgbImage, x: u32, trace: usize) -> Vec<u32> {
        (0..sheet.height()).filter(|y| *sheet.get_pixel(x, *y) == TRACES[trace]).collect()
    }

    #[test]
    fn traces_rise_where_numbers_do() {
        let ramp: Vec<f32> = (0..1_000).map(|step| step as f32 / 500.0 - 1.0).collect();
        let sheet = trace_sheet(&ramp, [1, 1, 1, 1_000]).unwrap();
        let (first, middle, last) = (rows(&sheet, 12, 0), rows(&sheet, 204, 0), rows(&sheet, 12 + 383, 0));
        assert!(first[0] > middle[0] && middle[0] > last[0], "{first:?} {middle:?} {last:?}");
        assert!(rows(&sheet, 11, 0).is_empty());
    }

    #[test]
    fn few_steps_are_joined_by_lines_and_missing_ones_leave_a_gap() {
        let trace = [0.0, 1.0, 0.0, f32::NAN, 0.5];
        let middle = |step: usize| step * (PANEL_WIDTH_PIXELS - 1) / 4;
        let (low, high) = seen(&trace, middle(1) / 2);
        assert!((0.4..0.6).contains(&low) && (0.4..0.6).contains(&high), "half way up: {low} {high}");
        assert_eq!((seen(&trace, 0).0, seen(&trace, PANEL_WIDTH_PIXELS - 1).1), (0.0, 0.5));
        let (low, high) = seen(&trace, middle(2) + middle(1) / 2);
        assert!(low > high, "{low} {high}");
        assert_eq!(seen(&[2.0], 7), (2.0, 2.0));
    }

    #[test]
    fn channels_have_lanes_and_windows_of_an_item_panels_of_their_own() {
        let values: Vec<f32> = [1.0, -1.0, 0.5, 0.25].into_iter().flat_map(|x| [x; 3]).collect();
        let sheet = trace_sheet(&values, [1, 2, 2, 3]).unwrap();
        assert_eq!(sheet.dimensions(), (12 + 384 + 2 + 384 + 12, 12 + 96 + 12));
        let (up, down) = (rows(&sheet, 20, 0), rows(&sheet, 20, 1));
        assert!(up.len() == 1 && down.len() == 1 && up[0] < 60 && down[0] > 60, "{up:?} {down:?}");
        assert_ne!(rows(&sheet, 20 + 386, 0), up, "half as high");
        assert!(trace_sheet(&values, [1, 2, 2, 4]).is_err() && trace_sheet(&[], [0, 1, 1, 1]).is_err());
        assert!(trace_sheet(&[f32::NAN, 1.0], [1, 1, 1, 2]).is_ok());
    }
}
