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
    use crate::{scan::fetch::lists::hybrid::tests::packed, seed::draws};

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

    /// DELTA_BINARY_PACKED by the letter of the specification.
    fn packed_differences(values: &[i32], block: usize, miniblocks: usize) -> Vec<u8> {
        let varint = |bytes: &mut Vec<u8>, mut number: u64| {
            while number > 0x7f {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
        };
        let zigzag = |number: i32| u64::from((number << 1 ^ number >> 31) as u32);
        let mut bytes = vec![];
        [block, miniblocks, values.len()].iter().for_each(|number| varint(&mut bytes, *number as u64));
        varint(&mut bytes, zigzag(values.first().copied().unwrap_or(0)));
        let deltas: Vec<i32> = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        for deltas in deltas.chunks(block) {
            let least = deltas.iter().copied().min().unwrap();
            varint(&mut bytes, zigzag(least));
            let above: Vec<u32> = deltas.iter().map(|delta| delta.wrapping_sub(least) as u32).collect();
            let parts: Vec<&[u32]> = above.chunks(block / miniblocks).collect();
            let width = |part: &[u32]| 32 - part.iter().fold(0, |all, number| all | number).leading_zeros();
            bytes.extend((0..miniblocks).map(|number| parts.get(number).map_or(9, |part| width(part) as u8)));
            for part in parts {
                let whole: Vec<u32> = part.iter().copied().chain([0].repeat(block / miniblocks - part.len())).collect();
                bytes.extend(packed(&whole, width(part) as usize));
            }
        }
        bytes
    }

    #[test]
    fn differences_of_any_size_in_any_blocks_come_back_and_cut_ones_are_none() {
        let mut draws = draws(6, "differences", &[]);
        let layouts = [(128, 4), (128, 1), (256, 8), (128, 2), (1024, 8), (32, 1)];
        for (number, count) in [1, 2, 32, 33, 34, 64, 65, 128, 129, 130, 257, 700].into_iter().enumerate() {
            let walk: Vec<i32> = (0..count).map(|at| at * 7 + draws.below(900) as i32).collect();
            let leaps = (0..count).map(|at| if at % 3 == 0 { i32::MIN } else { i32::MAX - at }).collect();
            let any = (0..count).map(|_| draws.next_u32() as i32).collect();
            let (block, miniblocks) = layouts[number % layouts.len()];
            for values in [walk, leaps, any, vec![-5; count as usize]] {
                let bytes = packed_differences(&values, block, miniblocks);
                let expected: Vec<i16> = values.iter().map(|value| *value as i16).collect();
                let of = |bytes: &[u8], wanted: Range<usize>| {
                    numbers::<i16>(Encoding::DELTA_BINARY_PACKED, bytes, std::slice::from_ref(&wanted))
                };
                let context = format!("{count} in {block} / {miniblocks}: {:?}", &values[..values.len().min(3)]);
                assert_eq!(of(&bytes, 0..expected.len()).as_ref(), Some(&expected), "{context}");
                let part = expected.len() / 3..expected.len() - expected.len() / 4;
                assert_eq!(of(&bytes, part.clone()).unwrap(), expected[part], "{context}");
                assert_eq!(of(&bytes, 0..expected.len() + 1), None, "{context}");
                // Padding may be cut off, a number may not.
                for end in 0..bytes.len() {
                    assert!(
                        of(&bytes[..end], 0..expected.len()).is_none_or(|found| found == expected),
                        "{context} {end}"
                    );
                }
                for _ in 0..50 {
                    let mut damaged = bytes.clone();
                    damaged[draws.below(bytes.len() as u64) as usize] = draws.next_u32() as u8;
                    let found = of(&damaged, 0..expected.len());
                    assert!(found.is_none_or(|found| found.len() == expected.len()), "{context}");
                }
            }
        }
    }

    #[test]
    fn few_bytes_do_not_stand_for_numbers_without_end() {
        // One block of 2²⁴ numbers that do not differ.
        let bytes = [128, 128, 128, 8, 1, 255, 255, 255, 255, 15, 0, 0, 0];
        let of =
            |count: usize| numbers::<i16>(Encoding::DELTA_BINARY_PACKED, &bytes, std::slice::from_ref(&(0..count)));
        assert_eq!(of(190), Some(vec![0; 190]));
        assert_eq!(of(1 << 24), None);
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
