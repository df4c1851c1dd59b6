//! Parquet's hybrid of repeated values and packed bits, run by run, and numbers packed into bits.
//!
//! `None` means bytes that are none of this; the caller leaves them to Parquet's own reader, and its words.

/// Numbers that [`unpack`] makes at a time: a whole number of bytes of any width.
pub(super) const PACKED_NUMBERS: usize = 32;

/// Bytes of so many numbers of 32 bits, and of the word that the last of them may begin in.
const PACKED_BYTES: usize = 4 * PACKED_NUMBERS + 8;

/// A stretch of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run<'a> {
    /// One value so many times.
    Repeated { value: u32, count: usize },
    /// So many values side by side.
    Packed { bytes: &'a [u8], count: usize },
}

/// The runs of `left` values of `width_bits` each.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    bytes: &'a [u8],
    width_bits: usize,
    left: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(bytes: &'a [u8], width_bits: usize, count: usize) -> Self {
        Self { bytes, width_bits, left: count }
    }

    /// Whether values are missing.
    pub(super) fn is_open(&self) -> bool {
        self.left > 0
    }

    /// The next run; padding behind the last value is no part of it.
    pub(super) fn next_run(&mut self) -> Option<Run<'a>> {
        let header = varint(&mut self.bytes)?;
        let count = usize::try_from(header >> 1).ok()?;
        let run = if header & 1 == 0 {
            let (value, rest) = self.bytes.split_at_checked(self.width_bits.div_ceil(8))?;
            self.bytes = rest;
            let value = value.iter().rev().fold(0_u32, |all, &byte| all << 8 | u32::from(byte));
            Run::Repeated { value, count: count.min(self.left) }
        } else {
            let length = count.checked_mul(self.width_bits)?;
            // Some writers end a page with the bytes that hold values.
            let (packed, rest) = self.bytes.split_at(length.min(self.bytes.len()));
            self.bytes = rest;
            let held = (packed.len() * 8).checked_div(self.width_bits).unwrap_or(self.left);
            Run::Packed { bytes: packed, count: count.checked_mul(8)?.min(held).min(self.left) }
        };
        let (Run::Repeated { count, .. } | Run::Packed { count, .. }) = run;
        self.left -= count;
        (count > 0).then_some(run)
    }
}

/// A number in groups of seven bits, the lowest first.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Calls a function for a width from 1 to 32: with one that is known when this is compiled, places and shifts are constants.
macro_rules! by_width {
    ($width:expr, $function:ident, $arguments:tt, $none:expr) => {
        by_width!(@ $width, $function, $arguments, $none,
            1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
    };
    (@ $width:expr, $function:ident, $arguments:tt, $none:expr, $($bits:literal)*) => {
        match $width {
            $($bits => $function::<$bits, _> $arguments,)*
            _ => $none,
        }
    };
}

/// The next 32 numbers of `width_bits`, at most 32, as `of` makes them; of zeros where `bytes` end.
pub(super) fn unpack<T>(bytes: &[u8], width_bits: usize, of: impl Fn(u32) -> T, into: &mut [T; PACKED_NUMBERS]) {
    let mut padded = None;
    let block = block(bytes, &mut padded);
    by_width!(width_bits, unpack_width, (block, of, into), into.fill_with(|| of(0)));
}

/// The sums of the same numbers, each with `least` added to it, and `last`, as `of` makes them; gives the last one. Sums wrap.
pub(super) fn sums<T>(
    bytes: &[u8],
    width_bits: usize,
    (least, last): (u32, u32),
    of: impl Fn(u32) -> T,
    into: &mut [T; PACKED_NUMBERS],
) -> u32 {
    let mut padded = None;
    let block = block(bytes, &mut padded);
    by_width!(width_bits, sums_width, (block, (least, last), of, into), {
        let mut last = last;
        for sum in into {
            last = last.wrapping_add(least);
            *sum = of(last);
        }
        last
    })
}

/// The first bytes; where there are fewer, those and zeros, in `padded`.
fn block<'a>(bytes: &'a [u8], padded: &'a mut Option<[u8; PACKED_BYTES]>) -> &'a [u8; PACKED_BYTES] {
    bytes.first_chunk().unwrap_or_else(|| {
        let padded = padded.insert([0; PACKED_BYTES]);
        padded[..bytes.len()].copy_from_slice(bytes);
        padded
    })
}

fn unpack_width<const WIDTH_BITS: usize, T>(
    block: &[u8; PACKED_BYTES],
    of: impl Fn(u32) -> T,
    into: &mut [T; PACKED_NUMBERS],
) {
    for (group, slots) in into.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        slots.iter_mut().zip(eight::<WIDTH_BITS>(block, group)).for_each(|(slot, number)| *slot = of(number));
    }
}

fn sums_width<const WIDTH_BITS: usize, T>(
    block: &[u8; PACKED_BYTES],
    (least, mut last): (u32, u32),
    of: impl Fn(u32) -> T,
    into: &mut [T; PACKED_NUMBERS],
) -> u32 {
    for (group, slots) in into.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        for (slot, delta) in slots.iter_mut().zip(eight::<WIDTH_BITS>(block, group)) {
            last = last.wrapping_add(delta.wrapping_add(least));
            *slot = of(last);
        }
    }
    last
}

/// Eight numbers begin and end with a byte. None of them needs more than the 40 bytes from the first on.
#[inline(always)]
fn eight<const WIDTH_BITS: usize>(block: &[u8; PACKED_BYTES], group: usize) -> [u32; 8] {
    let mask = u64::MAX >> (64 - WIDTH_BITS);
    let mut numbers = [0; 8];
    let Some(bytes) = block[group * WIDTH_BITS..].first_chunk::<40>() else { return numbers };
    for (number, slot) in numbers.iter_mut().enumerate() {
        let bit = number * WIDTH_BITS;
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[bit / 8..bit / 8 + 8]);
        *slot = (u64::from_le_bytes(word) >> (bit % 8) & mask) as u32;
    }
    numbers
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Numbers side by side, the last bits of the last byte zero.
    pub(in crate::scan::fetch::lists) fn packed(numbers: &[u32], width_bits: usize) -> Vec<u8> {
        let mut bytes = vec![0_u8; (numbers.len() * width_bits).div_ceil(8)];
        for (at, number) in numbers.iter().enumerate() {
            for bit in 0..width_bits {
                let place = at * width_bits + bit;
                bytes[place / 8] |= ((number >> bit & 1) as u8) << (place % 8);
            }
        }
        bytes
    }

    #[test]
    fn numbers_of_every_width_come_back_also_at_the_very_end() {
        for width in 1..=32 {
            let numbers: Vec<u32> =
                (0..32_u32).map(|n| n.wrapping_mul(0x9E37_79B9) & (u32::MAX >> (32 - width))).collect();
            let mut bytes = packed(&numbers, width);
            let mut found = [0; 32];
            unpack(&bytes, width, |n| n, &mut found);
            assert_eq!(found, numbers.as_slice(), "{width}");
            bytes.extend([0xff; 20]);
            unpack(&bytes, width, |n| n, &mut found);
            assert_eq!(found, numbers.as_slice(), "{width}");
            let mut sum = 5_u32;
            let expected: Vec<u32> = numbers
                .iter()
                .map(|number| {
                    sum = sum.wrapping_add(*number).wrapping_sub(3);
                    sum
                })
                .collect();
            let last = sums(&bytes, width, (3_u32.wrapping_neg(), 5), |n| n, &mut found);
            assert_eq!((found.as_slice(), last), (expected.as_slice(), sum), "{width}");
        }
        let mut found = [7; 32];
        unpack(&[0xff], 0, |n| n, &mut found);
        assert_eq!(found, [0; 32]);
        assert_eq!((sums(&[], 0, (2, 5), |n| n, &mut found), found[0], found[31]), (69, 7, 69));
    }

    #[test]
    fn runs_end_with_the_values_and_broken_ones_are_none() {
        // Five of 1; then two groups of packed bits, of which only nine values count.
        let bytes = [5 << 1, 1, 2 << 1 | 1, 0b1010_1010, 0xff];
        let mut runs = Runs::new(&bytes, 1, 14);
        assert_eq!(runs.next_run(), Some(Run::Repeated { value: 1, count: 5 }));
        assert_eq!(runs.next_run(), Some(Run::Packed { bytes: &bytes[3..], count: 9 }));
        assert!(!runs.is_open());
        let mut more = Runs::new(&bytes, 1, 100);
        assert!(more.next_run().is_some() && more.next_run().is_some() && more.is_open());
        assert_eq!(more.next_run(), None, "the bytes are at their end");
        assert_eq!(Runs::new(&[0, 1], 1, 3).next_run(), None, "a run of nothing");
        assert_eq!(Runs::new(&[0x80; 12], 1, 3).next_run(), None, "a number without end");
        // Numbers of no width are zeros and take no bytes.
        assert_eq!(Runs::new(&[6], 0, 9).next_run(), Some(Run::Repeated { value: 0, count: 3 }));
    }
}
