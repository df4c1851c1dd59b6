//! The values of one page of 32-bit numbers, decoded where they are wanted.
use std::ops::Range;

use datafusion::{arrow::datatypes::ArrowNativeType, parquet::basic::Encoding};

use super::hybrid::{PACKED_NUMBERS, Run, Runs, sums, unpack, varint};

/// Numbers that a byte of differences may stand for.
const MOST_NUMBERS_PER_BYTE: usize = 64;

/// A number that Parquet stores in 32 bits.
pub(super) trait Number: ArrowNativeType {
    /// Whether it is a whole number, which differences may encode.
    const IS_WHOLE: bool;
    /// From the bits that are stored.
    fn of(stored: u32) -> Self;
}

impl Number for i16 {
    const IS_WHOLE: bool = true;
    fn of(stored: u32) -> Self {
        stored as Self
    }
}

impl Number for f32 {
    const IS_WHOLE: bool = false;
    fn of(stored: u32) -> Self {
        Self::from_bits(stored)
    }
}

/// Appends the page's numbers in the `wanted` ranges, ascending, to `into`.
///
/// `None`: an encoding that is left to Parquet's own reader, or too few values.
pub(super) fn append<T: Number>(
    encoding: Encoding,
    bytes: &[u8],
    wanted: &[Range<usize>],
    dictionary: Option<&[T]>,
    into: &mut Vec<T>,
) -> Option<()> {
    let Some(end) = wanted.last().map(|range| range.end) else { return Some(()) };
    match encoding {
        Encoding::PLAIN => {
            for range in wanted {
                plain(bytes.get(4 * range.start..4 * range.end)?, into);
            }
            return Some(());
        }
        Encoding::BYTE_STREAM_SPLIT => {
            let count = bytes.len() / 4;
            if !bytes.len().is_multiple_of(4) || end > count {
                return None;
            }
            let number = |at: usize| T::of(u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[byte * count + at])));
            wanted.iter().for_each(|range| into.extend(range.clone().map(number)));
            return Some(());
        }
        _ => {}
    }
    // These are read from their first value on.
    let decode = |count: usize, into: &mut Vec<T>| match encoding {
        Encoding::DELTA_BINARY_PACKED if T::IS_WHOLE => differences(bytes, count, into),
        Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => entries(bytes, count, dictionary?, into),
        _ => None,
    };
    match wanted {
        [all] if all.start == 0 => decode(end, into),
        _ => {
            let mut whole = vec![];
            decode(end, &mut whole)?;
            wanted.iter().try_for_each(|range| whole.get(range.clone()).map(|part| into.extend_from_slice(part)))
        }
    }
}

/// Numbers of four bytes each.
pub(super) fn plain<T: Number>(bytes: &[u8], into: &mut Vec<T>) {
    into.extend(bytes.as_chunks().0.iter().map(|stored| T::of(u32::from_le_bytes(*stored))));
}

/// `count` numbers from DELTA_BINARY_PACKED. Sums wrap, as the format has it.
fn differences<T: Number>(bytes: &[u8], count: usize, into: &mut Vec<T>) -> Option<()> {
    let mut bytes = bytes;
    let block = usize::try_from(varint(&mut bytes)?).ok()?;
    let miniblocks = usize::try_from(varint(&mut bytes)?).ok()?;
    let stored = usize::try_from(varint(&mut bytes)?).ok()?;
    let mut last = zigzag(varint(&mut bytes)?);
    let numbers = block.checked_div(miniblocks)?;
    // Numbers that do not differ take five bytes for 128 of them; more would be more memory than somebody should claim.
    let is_plausible = block <= 1 << 24 && count <= MOST_NUMBERS_PER_BYTE.saturating_mul(bytes.len() + 1);
    if numbers == 0 || !numbers.is_multiple_of(PACKED_NUMBERS) || !is_plausible || stored < count {
        return None;
    }
    let begin = into.len();
    into.resize(begin + count, T::default());
    let Some((first, mut rest)) = into[begin..].split_first_mut() else { return Some(()) };
    *first = T::of(last);
    let mut spare = [T::default(); PACKED_NUMBERS];
    while !rest.is_empty() {
        let least = zigzag(varint(&mut bytes)?);
        let (widths, behind) = bytes.split_at_checked(miniblocks)?;
        bytes = behind;
        for &width in widths {
            // Widths of what no number is left for may be anything.
            if rest.is_empty() {
                break;
            }
            let width = usize::from(width);
            let (taken, behind) = rest.split_at_mut(numbers.min(rest.len()));
            if width > 32 || bytes.len() * 8 < taken.len() * width {
                return None;
            }
            rest = behind;
            let mut packed = bytes;
            let (whole, part) = taken.as_chunks_mut();
            for whole in whole {
                last = sums(packed, width, (least, last), T::of, whole);
                packed = packed.get(PACKED_NUMBERS * width / 8..).unwrap_or_default();
            }
            if !part.is_empty() {
                last = sums(packed, width, (least, last), T::of, &mut spare);
                part.copy_from_slice(&spare[..part.len()]);
            }
            bytes = &bytes[(numbers * width / 8).min(bytes.len())..];
        }
    }
    Some(())
}

/// Signs in the lowest bit; the low 32 bits are all that matters to sums that wrap.
fn zigzag(number: u64) -> u32 {
    (number >> 1) as u32 ^ (number as u32 & 1).wrapping_neg()
}

/// `count` entries of a dictionary.
fn entries<T: Number>(bytes: &[u8], count: usize, dictionary: &[T], into: &mut Vec<T>) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    let (&width, bytes) = bytes.split_first()?;
    let width = usize::from(width);
    if width > 32 {
        return None;
    }
    let mut runs = Runs::new(bytes, width, count);
    let mut places = [0; PACKED_NUMBERS];
    while runs.is_open() {
        match runs.next_run()? {
            Run::Repeated { value, count } => {
                into.extend(std::iter::repeat_n(*dictionary.get(value as usize)?, count));
            }
            Run::Packed { bytes, count } => {
                for first in (0..count).step_by(PACKED_NUMBERS) {
                    unpack(&bytes[first * width / 8..], width, |place| place, &mut places);
                    for &place in &places[..PACKED_NUMBERS.min(count - first)] {
                        into.push(*dictionary.get(place as usize)?);
                    }
                }
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers<T: Number>(encoding: Encoding, bytes: &[u8], wanted: &[Range<usize>]) -> Option<Vec<T>> {
        let mut into = vec![];
        append(encoding, bytes, wanted, None, &mut into).map(|()| into)
    }

    #[test]
    fn plain_and_split_numbers_are_taken_from_where_they_lie() {
        let values = [1.0_f32, -2.5, f32::NAN, 4.0];
        let plain: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let split: Vec<u8> = (0..4).flat_map(|byte| values.map(|x| x.to_le_bytes()[byte])).collect();
        for (encoding, bytes) in [(Encoding::PLAIN, &plain), (Encoding::BYTE_STREAM_SPLIT, &split)] {
            assert_eq!(numbers::<f32>(encoding, bytes, &[0..2, 3..4]).unwrap(), [1.0, -2.5, 4.0]);
            assert_eq!(numbers::<f32>(encoding, bytes, std::slice::from_ref(&(3..5))), None);
        }
        let wide: Vec<u8> = [-3_i32, 40_000].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(numbers::<i16>(Encoding::PLAIN, &wide, std::slice::from_ref(&(0..1))).unwrap(), [-3]);
    }

    #[test]
    fn differences_are_those_of_the_formats_specification() {
        // 7, 5, 3, 1, 2, 3, 4, 5: first 7, least difference -2, others above it 0 0 0 3 3 3 3 in two bits.
        let bytes = [128, 1, 4, 8, 14, 3, 2, 0, 0, 0, 0b1100_0000, 0b0011_1111, 0, 0, 0, 0, 0, 0];
        let all = numbers::<i16>(Encoding::DELTA_BINARY_PACKED, &bytes, std::slice::from_ref(&(0..8))).unwrap();
        assert_eq!(all, [7, 5, 3, 1, 2, 3, 4, 5]);
        assert_eq!(numbers::<i16>(Encoding::DELTA_BINARY_PACKED, &bytes, &[1..2, 6..8]).unwrap(), [5, 4, 5]);
        // A writer may leave the padding out.
        assert!(numbers::<i16>(Encoding::DELTA_BINARY_PACKED, &bytes[..12], std::slice::from_ref(&(0..8))).is_some());
        assert_eq!(numbers::<i16>(Encoding::DELTA_BINARY_PACKED, &bytes[..11], std::slice::from_ref(&(0..8))), None);
        assert_eq!(numbers::<i16>(Encoding::DELTA_BINARY_PACKED, &bytes, std::slice::from_ref(&(0..9))), None);
        assert_eq!(numbers::<f32>(Encoding::DELTA_BINARY_PACKED, &bytes, std::slice::from_ref(&(0..8))), None);
    }

    #[test]
    fn entries_outside_the_dictionary_are_none() {
        // Width 2: three times entry 1, then packed 0 1 2 0 ….
        let bytes = [2, 3 << 1, 1, 1 << 1 | 1, 0b0010_0100, 0];
        let of = |dictionary: &[i16], wanted: &[Range<usize>]| {
            let mut into = vec![];
            append(Encoding::RLE_DICTIONARY, &bytes, wanted, Some(dictionary), &mut into).map(|()| into)
        };
        let all = 0..7;
        assert_eq!(of(&[5, 6, 7], std::slice::from_ref(&all)).unwrap(), [6, 6, 6, 5, 6, 7, 5]);
        assert_eq!(of(&[5, 6, 7], &[2..4, 5..6]).unwrap(), [6, 5, 7]);
        assert_eq!(of(&[5, 6], std::slice::from_ref(&all)), None);
        assert_eq!(numbers::<i16>(Encoding::RLE_DICTIONARY, &bytes, std::slice::from_ref(&all)), None, "no dictionary");
    }
}
