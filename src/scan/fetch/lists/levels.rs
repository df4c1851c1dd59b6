//! Repetition and definition levels of one page of a list column as rows, run by run: a number costs nothing here.
use std::ops::Range;

use super::hybrid::{Run, Runs};

/// What may be null in a list column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListShape {
    /// Rows.
    pub(super) rows_nullable: bool,
    /// Numbers inside lists.
    pub(super) numbers_nullable: bool,
}

impl ListShape {
    /// The definition level of a number.
    pub(super) fn number_level(self) -> u32 {
        1 + u32::from(self.rows_nullable) + u32::from(self.numbers_nullable)
    }

    /// That of a list without numbers.
    fn empty_level(self) -> u32 {
        u32::from(self.rows_nullable)
    }
}

/// A row of a page, or the rest of one that began in the page before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PageRow {
    /// Whether it began in the page before.
    pub(super) continues: bool,
    /// Which of the page's numbers are its.
    pub(super) numbers: Range<usize>,
    /// Whether it is null.
    pub(super) is_null: bool,
}

/// The rows of a page of `levels` levels; no more than `most_rows` may begin in it.
///
/// `None`: numbers that are null, or levels that are none.
pub(super) fn rows(
    repetition: &[u8],
    definition: &[u8],
    shape: ListShape,
    levels: usize,
    most_rows: usize,
) -> Option<Vec<PageRow>> {
    let starts = starts(repetition, levels, most_rows)?;
    let absent = absent(definition, shape, levels, most_rows)?;
    let mut absent = absent.into_iter().peekable();
    let mut rows = Vec::with_capacity(starts.len() + 1);
    let (mut begin, mut without) = (0, 0);
    let first = starts.first().copied().unwrap_or(levels);
    let ends = starts.iter().copied().chain([levels]).skip(usize::from(first == 0));
    for end in ends {
        let continues = begin == 0 && first > 0;
        let numbers = begin - without..end - without;
        rows.push(match absent.next_if(|(level, _)| *level < end) {
            None => PageRow { continues, numbers, is_null: false },
            // A row without numbers has one level.
            Some((level, is_null)) if level == begin && end == begin + 1 && !continues => {
                without += 1;
                PageRow { continues, numbers: numbers.start..numbers.start, is_null }
            }
            Some(_) => return None,
        });
        begin = end;
    }
    Some(rows)
}

/// Where rows begin: at levels of 0.
fn starts(repetition: &[u8], levels: usize, most_rows: usize) -> Option<Vec<usize>> {
    let mut starts = vec![];
    let (mut runs, mut at) = (Runs::new(repetition, 1, levels), 0);
    while runs.is_open() {
        match runs.next_run()? {
            Run::Repeated { value: 0, count } => {
                if starts.len() + count > most_rows {
                    return None;
                }
                starts.extend(at..at + count);
                at += count;
            }
            Run::Repeated { value: 1, count } => at += count,
            Run::Repeated { .. } => return None,
            Run::Packed { bytes, count } => {
                for (group, byte) in bytes.iter().enumerate().take(count.div_ceil(8)) {
                    let mut zeros = !byte;
                    while zeros != 0 {
                        let level = 8 * group + zeros.trailing_zeros() as usize;
                        if level < count {
                            starts.push(at + level);
                        }
                        zeros &= zeros - 1;
                    }
                }
                at += count;
                if starts.len() > most_rows {
                    return None;
                }
            }
        }
    }
    Some(starts)
}

/// Levels of rows without numbers, ascending, and whether these are null.
fn absent(definition: &[u8], shape: ListShape, levels: usize, most_rows: usize) -> Option<Vec<(usize, bool)>> {
    let number = shape.number_level();
    let width = if number == 1 { 1 } else { 2 };
    let mut absent = vec![];
    let (mut runs, mut at) = (Runs::new(definition, width, levels), 0);
    let mut take = |value: u32, places: Range<usize>| {
        if value > shape.empty_level() || absent.len() + places.len() > most_rows {
            return None;
        }
        absent.extend(places.map(|place| (place, value < shape.empty_level())));
        Some(())
    };
    // A byte of numbers alone.
    let all = [0, 0xff, 0b1010_1010, 0xff][number as usize];
    while runs.is_open() {
        match runs.next_run()? {
            Run::Repeated { value, count } => {
                if value != number {
                    take(value, at..at + count)?;
                }
                at += count;
            }
            Run::Packed { bytes, count } => {
                let in_byte = 8 / width;
                for (group, &byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != all) {
                    for place in (group * in_byte..(group + 1) * in_byte).take_while(|place| *place < count) {
                        let value = u32::from(byte) >> (place % in_byte * width) & ((1 << width) - 1);
                        if value != number {
                            take(value, at + place..at + place + 1)?;
                        }
                    }
                }
                at += count;
            }
        }
    }
    Some(absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: ListShape = ListShape { rows_nullable: false, numbers_nullable: false };
    const OPTIONAL: ListShape = ListShape { rows_nullable: true, numbers_nullable: true };

    /// Every level as a run of its own.
    fn runs(levels: &[u8]) -> Vec<u8> {
        levels.iter().flat_map(|level| [1 << 1, *level]).collect()
    }

    /// All levels as packed bits.
    fn packed(levels: &[u8], width: usize) -> Vec<u8> {
        let groups = levels.len().div_ceil(8);
        let mut bytes = vec![0; groups * width];
        for (at, level) in levels.iter().enumerate() {
            bytes[at * width / 8] |= level << (at * width % 8);
        }
        [vec![(groups as u8) << 1 | 1], bytes].concat()
    }

    fn row(numbers: Range<usize>) -> PageRow {
        PageRow { continues: false, numbers, is_null: false }
    }

    #[test]
    fn rows_are_the_same_from_runs_and_from_bits() {
        let repetition = [0, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1];
        let definition = [3, 3, 3, 1, 0, 3, 3, 3, 3, 3, 3];
        let expected = vec![row(0..3), row(3..3), PageRow { is_null: true, ..row(3..3) }, row(3..5), row(5..9)];
        let of = |repetition: &[u8], definition: &[u8]| rows(repetition, definition, OPTIONAL, 11, 5);
        assert_eq!(of(&runs(&repetition), &runs(&definition)).unwrap(), expected);
        assert_eq!(of(&packed(&repetition, 1), &packed(&definition, 2)).unwrap(), expected);
        assert_eq!(rows(&runs(&repetition), &runs(&definition), OPTIONAL, 11, 4), None, "more rows than there are");
    }

    #[test]
    fn a_row_may_go_on_from_the_page_before() {
        let all = [9 << 1, 1];
        let rest = PageRow { continues: true, ..row(0..4) };
        let begins_later = [4 << 1, 1, 1 << 1, 0, 4 << 1, 1];
        assert_eq!(rows(&begins_later, &all, REQUIRED, 9, 9).unwrap(), [rest, row(4..9)]);
        let none_begins = PageRow { continues: true, ..row(0..9) };
        assert_eq!(rows(&all, &all, REQUIRED, 9, 9).unwrap(), [none_begins]);
    }

    #[test]
    fn nulls_inside_lists_and_impossible_levels_are_left_to_others() {
        let one = [0, 1, 1];
        assert!(rows(&runs(&one), &runs(&[3, 3, 3]), OPTIONAL, 3, 9).is_some());
        assert_eq!(rows(&runs(&one), &runs(&[3, 2, 3]), OPTIONAL, 3, 9), None, "a null inside");
        assert_eq!(rows(&runs(&one), &runs(&[3, 1, 3]), OPTIONAL, 3, 9), None, "an empty list inside a list");
        assert_eq!(rows(&runs(&one), &runs(&[1, 3, 3]), OPTIONAL, 3, 9), None, "an empty list with numbers");
        assert_eq!(rows(&runs(&[0, 1, 2]), &runs(&[3, 3, 3]), OPTIONAL, 3, 9), None, "a list in a list");
        assert_eq!(rows(&runs(&one), &runs(&[3, 3]), OPTIONAL, 3, 9), None, "too few levels");
        assert_eq!(rows(&[2 << 1, 1], &[2 << 1, 0], REQUIRED, 2, 9), None, "an empty row that goes on");
    }
}
