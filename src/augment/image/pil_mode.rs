//! How PIL holds an image that it has opened and not converted, and what a resize makes of it then.
use super::header::{Format, Header};

/// PIL's modes, told apart as far as a resize tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PilMode {
    /// `L`, `RGB`: every channel by itself.
    Plain,
    /// `1`, `P`: bits or indices, resized to the nearest pixel whatever filter is asked for; transparency is ignored.
    Nearest,
    /// `LA`, `RGBA`: colours are multiplied by alpha, resized and divided by the resized alpha, in bytes.
    Alpha,
    /// `CMYK`: four inks, of which RGB is made after the resize.
    Inks,
}

impl PilMode {
    /// The mode of a file with this header. A transparent colour of a grey or RGB PNG is no alpha.
    pub(super) fn of(encoded: &[u8], header: &Header) -> Self {
        match header.format {
            // Bit depth and colour type: a palette, or a bit of grey.
            Format::Png if matches!(encoded.get(24..26), Some([_, 3] | [1, 0])) => Self::Nearest,
            Format::Gif if !gif_palette(encoded).is_some_and(is_grey_ramp) => Self::Nearest,
            Format::Png | Format::Webp if header.channels.is_multiple_of(2) => Self::Alpha,
            Format::Jpeg if header.channels == 4 => Self::Inks,
            _ => Self::Plain,
        }
    }

    /// A channel before the resize, given alpha.
    pub(super) fn before(self, channel: u8, fourth: u8) -> u8 {
        if self == Self::Alpha { product(channel, fourth) } else { channel }
    }

    /// A channel after the resize, given alpha or black.
    pub(super) fn after(self, channel: u8, fourth: u8) -> u8 {
        match self {
            // A cubic filter overshoots: less alpha than colour may be left, or none.
            Self::Alpha if fourth > 0 => (u32::from(channel) * 255 / u32::from(fourth)).min(255) as u8,
            Self::Inks => 255 - fourth - product(channel, 255 - fourth),
            _ => channel,
        }
    }
}

/// a b / 255, rounded.
fn product(a: u8, b: u8) -> u8 {
    ((u32::from(a) * u32::from(b) + 127) / 255) as u8
}

/// One plane `[height, width]` in another size, `[out_height, out_width]`, each pixel the one under its centre.
///
/// Centres are a running sum of steps of f64, as PIL's are: the exact centre lies on another pixel now and then.
pub(super) fn nearest_plane(
    samples: &[u8],
    (width, height): (usize, usize),
    (out_width, out_height): (usize, usize),
) -> Vec<u8> {
    let under = |length: usize, outputs: usize| -> Vec<usize> {
        let step = length as f64 / outputs as f64;
        let centres = std::iter::successors(Some(step * 0.5), |centre| Some(centre + step));
        centres.take(outputs).map(|centre| (centre as usize).min(length - 1)).collect()
    };
    let columns = under(width, out_width);
    let rows = under(height, out_height).into_iter().map(|y| &samples[y * width..][..width]);
    rows.flat_map(|row| columns.iter().map(move |&x| row[x])).collect()
}

/// Colours of a GIF's first frame: its own palette, or else the file's; empty where there is neither.
fn gif_palette(encoded: &[u8]) -> Option<&[u8]> {
    /// Bytes before the file's palette, of which the eleventh has the flags.
    const HEADER_BYTES: usize = 13;
    let palette = |at: usize, flags: u8| {
        let colours = if flags & 0x80 == 0 { 0 } else { 2_usize << (flags & 7) };
        encoded.get(at..at + 3 * colours)
    };
    let shared = palette(HEADER_BYTES, *encoded.get(10)?)?;
    let mut at = HEADER_BYTES + shared.len();
    loop {
        match *encoded.get(at)? {
            // An image: its place and size, flags, its palette.
            0x2c => {
                let own = palette(at + 10, *encoded.get(at + 9)?)?;
                return Some(if own.is_empty() { shared } else { own });
            }
            // An extension: a label, then blocks behind their lengths, the last of length 0.
            0x21 => {
                at += 2;
                while *encoded.get(at)? > 0 {
                    at += 1 + usize::from(encoded[at]);
                }
                at += 1;
            }
            _ => return None,
        }
    }
}

/// Whether every colour is the grey of its own index: PIL opens such a GIF as grey.
fn is_grey_ramp(palette: &[u8]) -> bool {
    palette.chunks_exact(3).enumerate().all(|(index, colour)| colour.iter().all(|&level| usize::from(level) == index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::image::header::probe;

    fn mode(encoded: &[u8]) -> PilMode {
        PilMode::of(encoded, &probe(encoded).expect("a header"))
    }

    #[test]
    fn modes_of_png_follow_colour_type_and_depth() {
        let png = |depth, color| {
            [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x05\0\0\0\x04"[..], &[depth, color, 0, 0, 0]].concat()
        };
        let expected = [
            (PilMode::Nearest, vec![(1, 0), (1, 3), (2, 3), (4, 3), (8, 3)]),
            (PilMode::Plain, vec![(2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)]),
            (PilMode::Alpha, vec![(8, 4), (16, 4), (8, 6), (16, 6)]),
        ];
        for (expected, headers) in expected {
            for (depth, color) in headers {
                assert_eq!(mode(&png(depth, color)), expected, "{depth} bits of type {color}");
            }
        }
    }

    #[test]
    fn gifs_are_grey_where_the_palette_of_their_first_frame_is() {
        let (grey, red) = ([0, 0, 0, 1, 1, 1], [0, 0, 0, 255, 0, 0]);
        let flags = |palette: &[u8]| if palette.is_empty() { 0 } else { 0x80 };
        let gif = |shared: &[u8], own: &[u8]| {
            let screen = [&b"GIF89a\x05\0\x04\0"[..], &[flags(shared), 0, 0], shared].concat();
            let control = [0x21, 0xf9, 4, 0, 0, 0, 0x2c, 0];
            [&screen[..], &control, &[0x2c, 0, 0, 0, 0, 5, 0, 4, 0, flags(own)], own].concat()
        };
        for (shared, own, expected) in [
            (&grey[..], &[][..], PilMode::Plain),
            (&red, &[], PilMode::Nearest),
            (&grey, &red, PilMode::Nearest),
            (&[], &red, PilMode::Nearest),
            (&[], &grey, PilMode::Plain),
        ] {
            assert_eq!(mode(&gif(shared, own)), expected, "{shared:?} {own:?}");
            let whole = gif(shared, own);
            assert!((13..whole.len()).all(|end| gif_palette(&whole[..end]).is_none()), "cut off anywhere");
        }
    }

    #[test]
    fn colours_are_multiplied_and_divided_in_bytes() {
        let alpha = PilMode::Alpha;
        assert_eq!([(200, 255), (200, 0), (255, 7), (100, 128)].map(|(c, a)| alpha.before(c, a)), [200, 0, 7, 50]);
        // Cut, not rounded; overshoot is 255; without alpha what is there stays.
        assert_eq!([(50, 128), (9, 8), (77, 255), (3, 0)].map(|(c, a)| alpha.after(c, a)), [99, 255, 77, 3]);
        assert_eq!([(0, 0), (255, 0), (0, 255), (100, 55)].map(|(c, k)| PilMode::Inks.after(c, k)), [255, 0, 0, 122]);
        assert_eq!((PilMode::Inks.before(9, 8), PilMode::Plain.after(9, 8)), (9, 9));
    }

    #[test]
    fn the_nearest_pixel_is_the_one_under_the_centre() {
        let samples: Vec<u8> = (0..12).collect();
        assert_eq!(nearest_plane(&samples, (4, 3), (4, 3)), samples);
        assert_eq!(nearest_plane(&samples, (4, 3), (2, 1)), [5, 7]);
        // The fifth centre is 3, but PIL's sum of five steps is below it.
        assert_eq!(nearest_plane(&samples[..4], (4, 1), (6, 2)), [0, 1, 1, 2, 2, 3, 0, 1, 1, 2, 2, 3]);
        let row: Vec<u8> = (0..250).collect();
        for outputs in 1..600 {
            let found = nearest_plane(&row, (250, 1), (outputs, 1));
            assert!(found.is_sorted() && found.len() == outputs, "{outputs}");
        }
    }
}
