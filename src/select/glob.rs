//! Shell-like patterns over paths.

/// A pattern over the parts of a relative path: `*` and `?` within a part, `[a-z]` and `[!a-z]` for one character,
/// `{a,b}` for one of several texts, `**` for any number of folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    /// One list of parts for every way to read the braces.
    readings: Vec<Vec<String>>,
}

/// True where `text` means more than itself.
pub(crate) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

impl Glob {
    /// Reads a pattern; parts are separated by `/`.
    pub(crate) fn new(pattern: &str) -> Self {
        let readings = braces(pattern).iter().map(|reading| reading.split('/').map(str::to_owned).collect()).collect();
        Self { readings }
    }

    /// Whether matching paths may lie in folders of any depth.
    pub(crate) fn any_depth(&self) -> bool {
        self.readings.iter().flatten().any(|part| part == "**")
    }

    /// Whether a path below this folder can match.
    pub(crate) fn reaches(&self, folder: &[&str]) -> bool {
        self.readings.iter().any(|pattern| prefix_matches(pattern, folder))
    }

    /// Whether the whole path matches.
    pub(crate) fn matches(&self, parts: &[&str]) -> bool {
        self.readings.iter().any(|pattern| parts_match(pattern, parts))
    }
}

/// Every way to choose among `{a,b}`; an unclosed brace stands for itself.
fn braces(pattern: &str) -> Vec<String> {
    let Some(open) = pattern.find('{') else { return vec![pattern.to_owned()] };
    let Some(close) = pattern[open..].find('}').map(|at| open + at) else { return vec![pattern.to_owned()] };
    let rests = braces(&pattern[close + 1..]);
    pattern[open + 1..close]
        .split(',')
        .flat_map(|choice| rests.iter().map(move |rest| format!("{}{choice}{rest}", &pattern[..open])))
        .collect()
}

/// Whether `folder` can be the head of a path that matches.
fn prefix_matches(pattern: &[String], folder: &[&str]) -> bool {
    match (pattern.split_first(), folder.split_first()) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some((first, _)), Some(_)) if first == "**" => true,
        (Some((first, rest)), Some((part, below))) => {
            let (pattern, text): (Vec<char>, Vec<char>) = (first.chars().collect(), part.chars().collect());
            !rest.is_empty() && part_matches(&pattern, &text) && prefix_matches(rest, below)
        }
    }
}

fn parts_match(pattern: &[String], parts: &[&str]) -> bool {
    match pattern.split_first() {
        None => parts.is_empty(),
        Some((first, rest)) if first == "**" => {
            parts_match(rest, parts) || parts.split_first().is_some_and(|(_, below)| parts_match(pattern, below))
        }
        Some((first, rest)) => parts.split_first().is_some_and(|(part, below)| {
            let pattern: Vec<char> = first.chars().collect();
            let text: Vec<char> = part.chars().collect();
            part_matches(&pattern, &text) && parts_match(rest, below)
        }),
    }
}

/// Matches one part, remembering only the last `*`: linear in space, quadratic in time at worst.
fn part_matches(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(&pattern[p..], text[t]),
            Some(&c) if c == text[t] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(step), _) => {
                p += step;
                t += 1;
            }
            (None, Some((after, from))) => {
                star = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// Length of the class at the head of `pattern` where it contains `c`; a `[` that is never closed stands for itself.
fn class(pattern: &[char], c: char) -> Option<usize> {
    // A `]` right after the bracket is a member, as in shells.
    let close = pattern.iter().skip(2).position(|&c| c == ']').map(|at| at + 2);
    let Some(close) = close else { return (c == '[').then_some(1) };
    let (negated, members) = match &pattern[1..close] {
        ['!', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == '-' {
            found |= (members[at]..=members[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= members[at] == c;
            at += 1;
        }
    }
    (found != negated).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).matches(&path.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn wildcards_stay_within_a_part() {
        assert!(matches("*.parquet", "a.parquet") && matches("*", "a") && matches("a*b*c", "axxbyyc"));
        assert!(!matches("*.parquet", "x/a.parquet") && !matches("a*b*c", "axxbyy") && !matches("", "a"));
        assert!(matches("shard-?.parquet", "shard-7.parquet") && !matches("shard-?.parquet", "shard-.parquet"));
    }

    #[test]
    fn two_stars_cross_folders() {
        assert!(matches("**/*.parquet", "a.parquet") && matches("**/*.parquet", "x/y/a.parquet"));
        assert!(matches("x/**/a", "x/a") && matches("x/**", "x/y/z") && !matches("x/**/a", "y/a"));
    }

    #[test]
    fn folders_are_entered_only_where_something_can_match() {
        let reaches = |pattern: &str, folder: &str| {
            let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
            Glob::new(pattern).reaches(&parts)
        };
        assert!(reaches("*.csv", "") && !reaches("*.csv", "a"));
        assert!(reaches("a*/*.csv", "ab") && !reaches("a*/*.csv", "b") && !reaches("a*/*.csv", "ab/c"));
        assert!(reaches("**/*.csv", "a/b/c") && reaches("a/**", "a/b") && !reaches("a/**/x", "b"));
        assert!(reaches("{a/b,c}/*.csv", "a/b") && !reaches("{a,c}/*.csv", "b"));
    }

    #[test]
    fn classes_and_braces_choose() {
        assert!(matches("[0-3]x", "2x") && !matches("[0-3]x", "4x") && matches("[!0-3]x", "4x"));
        assert!(matches("[]a]", "]") && matches("a[b", "a[b") && !matches("[z-a]", "b"));
        assert!(matches("{train,val}/*.p", "val/1.p") && !matches("{train,val}/*.p", "test/1.p"));
        assert!(matches("{a,b}{1,2}", "b2") && matches("{a", "{a"));
    }
}
