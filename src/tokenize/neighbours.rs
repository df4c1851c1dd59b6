//! Which characters of windows-1252 nobody writes side by side: where some are, bytes of another encoding were misread.
//!
//! `ftfy` was asked from outside about all pairs and triples of these characters, about fours of letters and signs and about
//! captions misread on purpose; what it answered is told here by what the characters are for. `tests/golden/clip_tokens.py` asks about a sample of them again.

use super::mojibake::LOST;

/// What a character is to its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Bytes that windows-1252 lacks, as Latin-1 reads them.
    Control,
    /// `€ £`, which stand before or behind amounts.
    Money,
    /// `½ ² ±`, written with amounts.
    Amount,
    /// § and ¶.
    Section,
    Degree,
    /// What begins a quotation or a sentence.
    Opening,
    /// What ends a quotation or a name.
    Closing,
    /// `¤ ¬ ¸`, seldom written at all, and what stands for lost bytes.
    Mark,
    /// Dashes, dots and spaces, beside which all but the first bytes of misread characters stand.
    Joint,
    Capital,
    Small,
    /// Œ and œ, which stand before letters of English.
    Ligature,
    /// The first byte of most misread characters: `Â Ã Î Ð`.
    Lead,
    Ascii,
    /// Anything else, and letters that stand beside almost everything.
    Plain,
}

use Kind::*;

impl Kind {
    fn of(character: char) -> Self {
        match character {
            '\u{80}'..='\u{9f}' => Control,
            '€' | '¢' | '£' | '¥' => Money,
            '±' | '²' | '³' | 'µ' | '¹' | '¼' | '½' | '¾' | '×' | '÷' => Amount,
            '§' | '¶' => Section,
            '°' => Degree,
            '‚' | '„' | '‹' | '‘' | '“' | '•' | '¡' | '©' | '«' | '¿' => Opening,
            '”' | '™' | '›' | '®' | '»' => Closing,
            LOST | 'ƒ' | '†' | '‡' | 'ˆ' | '‰' | '˜' | '¤' | '¦' | '¨' | 'ª' | '¬' | '¯' | '¸' | 'º' => {
                Mark
            }
            '–' | '—' | '\u{a0}' | '\u{ad}' | '´' | '·' => Joint,
            'Œ' | 'œ' => Ligature,
            'Â' | 'Ã' | 'Î' | 'Ð' => Lead,
            'Š' | 'Ž' | 'Ÿ' | 'À'..='Ñ' | 'Ø' | 'Ü' | 'Ý' => Capital,
            'š' | 'ž' | 'ß'..='ñ' | 'ü' => Small,
            '\0'..='\x7f' => Ascii,
            _ => Plain,
        }
    }

    fn is_letter(self) -> bool {
        matches!(self, Capital | Small | Ligature | Lead)
    }
}

/// Whether characters stand side by side that nobody writes so.
pub(super) fn clash(text: &[char]) -> bool {
    text.first().is_some_and(|&first| Kind::of(first) == Control)
        || text.windows(2).any(|pair| pair_clashes(pair[0], pair[1]))
        || text.windows(3).any(|three| three_clash(three[0], three[1], three[2]))
        || text.windows(4).any(is_arabic)
        || (0..text.len()).any(|at| is_cut(text, at))
}

fn pair_clashes(first: char, second: char) -> bool {
    let (kind, next) = (Kind::of(first), Kind::of(second));
    if kind == Control || next == Control {
        return true;
    }
    match kind {
        Money | Amount => {
            matches!(next, Opening | Mark) || next.is_letter() || (first == '×' && matches!(second, '²' | '³'))
        }
        Opening | Section => next == Mark,
        Closing => matches!(next, Money | Mark) || next.is_letter(),
        Mark => !matches!(next, Joint | Degree | Ascii | Plain),
        Capital => matches!(next, Mark | Section | Degree | Amount),
        Small => {
            let is_counted = first == 'à' && matches!(second, '²' | 'µ' | '¹' | '¼' | '½' | '¾');
            matches!(next, Money | Mark | Capital | Lead) || second == 'Œ' || is_counted
        }
        Ligature => !second.is_ascii_alphabetic(),
        // All that is a byte of a misread character, but for what words have.
        Lead => match next {
            Capital => matches!(second, 'Š' | 'Ÿ'),
            Small => matches!(second, 'š' | 'ž'),
            Ligature => second == 'œ',
            Money => second != '¥',
            Lead | Ascii | Plain => false,
            _ => true,
        },
        Control => true,
        Joint | Degree | Ascii | Plain => false,
    }
}

/// Three of which the first two, and the last two, may stand side by side.
fn three_clash(first: char, second: char, third: char) -> bool {
    let (kind, last) = (Kind::of(first), Kind::of(third));
    let follows_small = first.is_ascii_lowercase() || first.is_whitespace();
    match Kind::of(second) {
        // Quotation marks inside of a word.
        Opening => match kind {
            Capital | Small => third.is_alphanumeric() || last == Amount,
            Closing => last == Amount,
            _ => false,
        },
        Closing => match kind {
            Capital | Small => third.is_alphanumeric() || last == Opening,
            Money | Amount | Section => last == Opening,
            _ => false,
        },
        // A capital letter, and the price, inside or at the start of a word.
        Capital => (follows_small && last == Money) || (first.is_ascii_lowercase() && last == Opening),
        Lead => follows_small && third == '¥',
        Plain => second == 'Þ' && first.is_ascii_alphabetic() && last == Mark,
        _ => false,
    }
}

/// Two letters of Arabic, whose first bytes are letters that stand beside almost everything.
fn is_arabic(four: &[char]) -> bool {
    let is_sign = |sign: char| match Kind::of(sign) {
        Money | Amount | Opening | Mark | Degree => !matches!(sign, LOST | '×' | '÷'),
        Joint => true,
        _ => matches!(sign, 'Š' | 'Ÿ' | '’' | '…' | '®' | '»'),
    };
    matches!(four, ['Ø' | 'Ù', first, 'Ø' | 'Ù', second] if is_sign(*first) && is_sign(*second))
}

/// `Ã ` and `Â `, the second byte of which became a space: inside of words or at the start of one, and `Â ` behind a sentence.
/// Not the last letter of `IRMÃ`.
fn is_cut(text: &[char], at: usize) -> bool {
    let [lead @ ('Â' | 'Ã'), ' ', ..] = text[at..] else { return false };
    let before = |back: usize| at.checked_sub(back).map(|at| text[at]);
    match before(1) {
        None => true,
        Some('.' | ',' | '?' | '!') => lead == 'Â',
        Some(space) if space.is_whitespace() => before(2).is_some_and(|letter| letter.is_ascii_lowercase()),
        Some(letter) => letter.is_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clashes(text: &str) -> bool {
        clash(&text.chars().collect::<Vec<_>>())
    }

    #[test]
    fn what_people_write_does_not_clash() {
        for text in [
            "",
            "café",
            "«\u{a0}réservé\u{a0}»",
            "“le café…”",
            "NOËL… MÜLLER™",
            "50\u{a0}€ à 20 °C",
            "œuvre",
            "¿Qué? ¡Sí!",
            "perché’” città",
            "“CAFÉ·”",
            "½ ª º",
            "IRMÃ MARIA",
            "2×4",
            "日本 ’",
            "É",
            "Ã",
            "vÄ—liava",
            "x, Ã la",
            "Ù…",
            "a\u{fffd}b",
            "FIM.Ã A",
        ] {
            assert!(!clashes(text), "{text}");
        }
    }

    #[test]
    fn what_nobody_writes_clashes() {
        // Pairs, triples of which no pair clashes, control characters, and a space that was a byte.
        for text in [
            "Ã©",
            "â€™",
            "é€",
            "ÐŸ",
            "Å¡e",
            "kÄ“s",
            "karÄ«lis",
            "a Å£",
            "”“½",
            "é“é",
            "½»«",
            "x\u{81}",
            "\u{81}",
            "Ã la",
            "sÃ mi",
            "le Ã la",
        ] {
            assert!(clashes(text), "{text}");
        }
    }
}
