//! Whether text looks as if its bytes had been read in the wrong encoding.
//!
//! A wrong reading of UTF-8 puts signs where nobody writes them: `Ã©`, `â€™`, `ð\u{9f}`. Sound text has most of the same
//! characters, in other neighbourhoods: `réservé »` ends with the three bytes of a Chinese character. So neighbours decide.

/// What a character is to its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Codes 128 to 159: no character at all.
    Control,
    /// Signs that stand alone where they are meant: spacing accents, daggers, the lost character.
    Rare,
    Currency,
    Law,
    Opening,
    Closing,
    Number,
    /// Capitals with marks, but for those that faces are made of: `Ö_Ö`.
    Capital,
    /// Small letters with marks, with the same exception.
    Small,
    Other,
}
use Kind::{Capital, Closing, Control, Currency, Law, Number, Opening, Other, Rare, Small};

fn kind(character: char) -> Kind {
    match character {
        '\u{80}'..='\u{9f}' => Control,
        '¦' | '¤' | '¨' | '¬' | '¯' | '¸' | 'ƒ' | 'ˆ' | '˜' | '†' | '‡' | '‰' | 'ª' | 'º' | '\u{fffd}' => {
            Rare
        }
        '¢' | '£' | '¥' | '€' => Currency,
        '¶' | '§' => Law,
        '¡' | '«' | '¿' | '©' | '‘' | '‚' | '“' | '„' | '•' | '‹' => Opening,
        '®' | '»' | '”' | '›' | '™' => Closing,
        '²' | '³' | '¹' | '±' | '¼' | '½' | '¾' | 'µ' | '×' | '÷' => Number,
        'À'..='Ñ' | 'Ø' | 'Ü' | 'Ý' | 'Š' | 'Œ' | 'Ž' | 'Ÿ' => Capital,
        'à'..='ñ' | 'ß' | 'ü' | 'š' | 'œ' | 'ž' => Small,
        _ => Other,
    }
}

/// Whether any character is where nobody would put it.
pub(super) fn is_garbled(text: &[char]) -> bool {
    (0..text.len()).any(|at| is_out_of_place(text, at))
}

fn is_out_of_place(text: &[char], at: usize) -> bool {
    let this = text[at];
    let this_kind = kind(this);
    if this_kind == Control {
        return true;
    }
    let Some(&before) = at.checked_sub(1).map(|at| &text[at]) else { return false };
    let before_kind = kind(before);
    if (this_kind, before_kind) == (Other, Other) {
        return is_arabic(text, at);
    }
    is_no_pair(before_kind, this_kind)
        || is_lead_of_latin(before, this)
        || is_without_reason(before, this)
        || is_no_triple(before_kind, this_kind, text.get(at + 1).copied())
        || is_inside_a_word(text, at)
        || is_arabic(text, at)
}

/// Kinds that are not written next to each other.
fn is_no_pair(before: Kind, this: Kind) -> bool {
    match (before, this) {
        (Rare, Rare) => true,
        (Other, Rare) | (Rare, Other) => false,
        (_, Rare) | (Rare, _) => true,
        (Small, Currency | Capital) => true,
        (Capital, Number | Law) => true,
        (Closing | Currency | Number, Capital | Small) => true,
        (Currency | Number, Opening) | (Closing, Currency) => true,
        _ => false,
    }
}

/// The letters that lead bytes of Latin, Greek and Cyrillic are misread as, in front of any sign.
fn is_lead_of_latin(before: char, this: char) -> bool {
    let is_sign = matches!(kind(this), Opening | Closing) || "€œŠš¢£Ÿž\u{a0}\u{ad}°·–—´".contains(this);
    "ÂÃÎÐ".contains(before) && is_sign
}

/// Pairs of their own: `à¹` (Thai), `É°`, `œ` in front of what is no letter.
fn is_without_reason(before: char, this: char) -> bool {
    (before == 'à' && "²µ¹¼½¾".contains(this))
        || (this == '°' && kind(before) == Capital)
        || ("Œœ".contains(before) && !this.is_ascii_alphabetic())
}

/// Signs between a letter with a mark and something else.
fn is_no_triple(before: Kind, this: Kind, after: Option<char>) -> bool {
    let Some(after) = after else { return false };
    match (before, this) {
        (Capital | Small, Opening | Closing) if after.is_alphanumeric() || after == '_' => true,
        (Capital | Small, Opening) => kind(after) == Number,
        (Capital | Small | Currency | Number | Law, Closing) => kind(after) == Opening,
        _ => false,
    }
}

/// A capital with a mark and a sign behind it, inside or behind a word: `cafÃ €`, `fÃ cil`.
fn is_inside_a_word(text: &[char], at: usize) -> bool {
    let (before, this) = (text[at - 1], text[at]);
    let front = at.checked_sub(2).map(|at| text[at]);
    if this == ' ' && "ÃÂ".contains(before) {
        let word = match front {
            Some(space) if space.is_whitespace() => at.checked_sub(3).map(|at| text[at]),
            front => front,
        };
        return at == 1 || word.is_some_and(|letter| letter.is_ascii_lowercase());
    }
    let Some(front) = front.filter(|_| kind(before) == Capital) else { return false };
    match kind(this) {
        Currency => front.is_ascii_lowercase() || front.is_whitespace(),
        Opening => front.is_ascii_lowercase(),
        _ => false,
    }
}

/// Two letters of Arabic: `Ø` or `Ù` and a sign, twice.
fn is_arabic(text: &[char], at: usize) -> bool {
    let is_letter = |lead: char, sign: char| {
        let is_sign =
            matches!(kind(sign), Currency | Rare | Number | Opening) || "ŸŠ®°»\u{a0}\u{ad}·´–—―…’".contains(sign);
        "ØÙ".contains(lead) && is_sign
    };
    at >= 3 && is_letter(text[at - 1], text[at]) && is_letter(text[at - 3], text[at - 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misread_text_is_garbled_and_typography_is_not() {
        let garbled = |text: &str| is_garbled(&text.chars().collect::<Vec<_>>());
        for text in ["Ã©", "donâ€™t", "æœ¬", "ðŸ™‚", "Â°C", "a\u{92}s", "sÅ‚o", "Ã la", "Ù…Ø±", "œ€", "à¹"]
        {
            assert!(garbled(text), "{text}");
        }
        for text in [
            "« réservé\u{a0}» fin",
            "“le café…”",
            "voilà\u{a0}– là\u{a0}»",
            "perché’” città",
            "NOËL… MÜLLER™",
            "50\u{a0}€ à 20 °C",
            "Å, São Paulo",
            "œuvre",
            "日本語 ¥100",
            "¿Qué? ¡Sí!",
            "2×4 ½ ª º",
        ] {
            assert!(!garbled(text), "{text}");
        }
    }
}
