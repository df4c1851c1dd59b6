//! Words on a picture: letters of five by seven dots, small ones only, for CLIP reads no others.
use image::{Rgb, RgbImage};

/// Dots of a letter, without the room around it.
const COLUMNS: usize = 5;
const ROWS: usize = 7;
/// From one letter to the next, and from one line to the next, in dots.
pub(super) const ADVANCE_DOTS: usize = COLUMNS + 1;
pub(super) const LINE_DOTS: usize = ROWS + 3;

/// Rows from the top, each from the left; `|` ends a row.
const LETTERS: [(char, &str); 68] = [
    ('a', "     |     | ### |    #| ####|#   #| ####"),
    ('b', "#    |#    |#### |#   #|#   #|#   #|#### "),
    ('c', "     |     | ### |#   #|#    |#   #| ### "),
    ('d', "    #|    #| ####|#   #|#   #|#   #| ####"),
    ('e', "     |     | ### |#   #|#####|#    | ### "),
    ('f', "  ## | #  #| #   |###  | #   | #   | #   "),
    ('g', "     |     | ####|#   #| ####|    #| ### "),
    ('h', "#    |#    |#### |#   #|#   #|#   #|#   #"),
    ('i', "  #  |     | ##  |  #  |  #  |  #  | ### "),
    ('j', "   # |     |  ## |   # |   # |#  # | ##  "),
    ('k', "#    |#    |#  # |# #  |##   |# #  |#  # "),
    ('l', " ##  |  #  |  #  |  #  |  #  |  #  | ### "),
    ('m', "     |     |## # |# # #|# # #|# # #|# # #"),
    ('n', "     |     |#### |#   #|#   #|#   #|#   #"),
    ('o', "     |     | ### |#   #|#   #|#   #| ### "),
    ('p', "     |     |#### |#   #|#### |#    |#    "),
    ('q', "     |     | ####|#   #| ####|    #|    #"),
    ('r', "     |     |# ## |##  #|#    |#    |#    "),
    ('s', "     |     | ####|#    | ### |    #|#### "),
    ('t', " #   | #   |###  | #   | #   | #  #|  ## "),
    ('u', "     |     |#   #|#   #|#   #|#   #| ####"),
    ('v', "     |     |#   #|#   #|#   #| # # |  #  "),
    ('w', "     |     |#   #|# # #|# # #|# # #| # # "),
    ('x', "     |     |#   #| # # |  #  | # # |#   #"),
    ('y', "     |     |#   #|#   #| ####|    #| ### "),
    ('z', "     |     |#####|   # |  #  | #   |#####"),
    ('0', " ### |#   #|#  ##|# # #|##  #|#   #| ### "),
    ('1', "  #  | ##  |  #  |  #  |  #  |  #  | ### "),
    ('2', " ### |#   #|    #|   # |  #  | #   |#####"),
    ('3', "#### |    #|    #| ### |    #|    #|#### "),
    ('4', "   # |  ## | # # |#  # |#####|   # |   # "),
    ('5', "#####|#    |#### |    #|    #|#   #| ### "),
    ('6', "  ## | #   |#    |#### |#   #|#   #| ### "),
    ('7', "#####|    #|   # |  #  | #   | #   | #   "),
    ('8', " ### |#   #|#   #| ### |#   #|#   #| ### "),
    ('9', " ### |#   #|#   #| ####|    #|   # | ##  "),
    ('!', "  #  |  #  |  #  |  #  |  #  |     |  #  "),
    ('"', " # # | # # |     |     |     |     |     "),
    ('#', " # # | # # |#####| # # |#####| # # | # # "),
    ('$', "  #  | ####|# #  | ### |  # #|#### |  #  "),
    ('%', "##   |##  #|   # |  #  | #   |#  ##|   ##"),
    ('&', " ##  |#  # |# #  | #   |# # #|#  # | ## #"),
    ('\'', "  #  |  #  |     |     |     |     |     "),
    ('(', "   # |  #  | #   | #   | #   |  #  |   # "),
    (')', " #   |  #  |   # |   # |   # |  #  | #   "),
    ('*', "     |# # #| ### |#####| ### |# # #|     "),
    ('+', "     |  #  |  #  |#####|  #  |  #  |     "),
    (',', "     |     |     |     |  ## |  #  | #   "),
    ('-', "     |     |     |#####|     |     |     "),
    ('.', "     |     |     |     |     | ##  | ##  "),
    ('/', "    #|    #|   # |  #  | #   |#    |#    "),
    (':', "     | ##  | ##  |     | ##  | ##  |     "),
    (';', "     | ##  | ##  |     | ##  |  #  | #   "),
    ('<', "   # |  #  | #   |#    | #   |  #  |   # "),
    ('=', "     |     |#####|     |#####|     |     "),
    ('>', " #   |  #  |   # |    #|   # |  #  | #   "),
    ('?', " ### |#   #|    #|   # |  #  |     |  #  "),
    ('@', " ### |#   #|# ###|# # #|# ## |#    | ####"),
    ('[', " ### | #   | #   | #   | #   | #   | ### "),
    ('\\', "#    |#    | #   |  #  |   # |    #|    #"),
    (']', " ### |   # |   # |   # |   # |   # | ### "),
    ('^', "  #  | # # |#   #|     |     |     |     "),
    ('_', "     |     |     |     |     |     |#####"),
    ('`', " #   |  #  |     |     |     |     |     "),
    ('{', "   ##|  #  |  #  | #   |  #  |  #  |   ##"),
    ('|', "  #  |  #  |  #  |  #  |  #  |  #  |  #  "),
    ('}', "##   |  #  |  #  |   # |  #  |  #  |##   "),
    ('~', "     |     | #   |# # #|   # |     |     "),
];
/// What there is no letter for.
const OTHER: &str = "#####|#   #|#   #|#   #|#   #|#   #|#####";

/// Writes a line from `(left, top)` on, each dot a square of `dot_pixels`; what reaches beyond the picture is cut off.
pub(super) fn write_line(
    picture: &mut RgbImage,
    (left, top): (usize, usize),
    line: &str,
    dot_pixels: usize,
    ink: Rgb<u8>,
) {
    for (at, letter) in line.chars().enumerate().filter(|(_, letter)| !letter.is_whitespace()) {
        let known = LETTERS.iter().find(|(known, _)| *known == letter);
        let dots = known.map_or(OTHER, |(_, dots)| dots).split('|');
        // The letter `|` has rows like any other: only its name is the mark.
        for (row, dots) in dots.enumerate() {
            for (column, _) in dots.chars().enumerate().filter(|(_, dot)| *dot == '#') {
                let x = left + (at * ADVANCE_DOTS + column) * dot_pixels;
                let y = top + row * dot_pixels;
                square(picture, (x, y), dot_pixels, ink);
            }
        }
    }
}

fn square(picture: &mut RgbImage, (left, top): (usize, usize), side: usize, ink: Rgb<u8>) {
    for y in top..top + side {
        for x in left..left + side {
            if let Some(pixel) = picture.get_pixel_mut_checked(x as u32, y as u32) {
                *pixel = ink;
            }
        }
    }
}

/// A text in lines of so many letters, at most so many lines, cut between words where it can be; three dots where more
/// would follow.
pub(super) fn lines(text: &str, letters: usize, most_lines: usize) -> Vec<String> {
    let letters = letters.max(4);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let line = lines.last_mut().map_or(0, |line| line.chars().count());
            let room = letters.saturating_sub(line + usize::from(line > 0));
            if word.len() <= room {
                break;
            }
            if line == 0 {
                let rest = word.split_off(letters);
                lines.pop();
                lines.push(word.iter().collect());
                word = rest;
            }
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word);
        }
    }
    if lines.len() > most_lines {
        lines.truncate(most_lines);
        if let Some(last) = lines.last_mut() {
            let kept: String = last.chars().take(letters - 3).collect();
            *last = format!("{}...", kept.trim_end());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_letter_has_seven_rows_of_five_dots_and_its_own_shape() {
        let mut shapes = HashSet::from([OTHER]);
        for (letter, dots) in LETTERS {
            let rows: Vec<&str> = dots.split('|').collect();
            assert_eq!(rows.len(), ROWS, "{letter}");
            assert!(rows.iter().all(|row| row.len() == COLUMNS), "{letter}");
            assert!(dots.contains('#') && shapes.insert(dots), "{letter}");
        }
        let printable = (b' ' + 1..=b'~').map(char::from).filter(|letter| !letter.is_ascii_uppercase());
        assert!(printable.eq({
            let mut known: Vec<char> = LETTERS.iter().map(|(letter, _)| *letter).collect();
            known.sort_unstable();
            known
        }));
    }

    #[test]
    fn lines_are_cut_between_words_and_end_in_dots_where_more_follows() {
        assert_eq!(lines("a red apple on a table", 9, 4), ["a red", "apple on", "a table"]);
        assert_eq!(lines("a red apple on a table", 9, 2), ["a red", "apple..."]);
        assert_eq!(lines("abcdefghij k", 4, 9), ["abcd", "efgh", "ij k"]);
        assert_eq!(lines("", 9, 2), [""]);
    }

    #[test]
    fn letters_are_drawn_where_they_should_be_and_cut_off_at_the_edge() {
        let ink = Rgb([9, 9, 9]);
        let mut picture = RgbImage::new(20, 20);
        write_line(&mut picture, (1, 2), "l -", 2, ink);
        // The upper end of `l`: its second and third dots.
        assert_eq!(*picture.get_pixel(3, 2), ink);
        assert_ne!(*picture.get_pixel(1, 2), ink);
        write_line(&mut picture, (15, 15), "ÜÜ", 2, ink);
        assert_eq!(*picture.get_pixel(19, 15), ink);
    }
}
