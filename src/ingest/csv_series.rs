//! CSV of one series: a row per step, a column per channel, one column of times where there is one.
use crate::augment::{BadClass, BadSample};
use crate::pair::Numbers;

use super::audio::Decoded;

/// What columns of times are called, in any case.
const TIMES: [&str; 6] = ["time", "timestamp", "date", "datetime", "seconds", "t"];
/// Texts that stand for a missing value.
const MISSING: [&str; 5] = ["", "?", "nan", "null", "na"];
const MICROSECONDS: f64 = 1e6;

/// Parses a file. A missing value is NaN. Times are seconds, or dates as RFC 3339 writes them; they must rise, and the rate is
/// that of their median distance.
///
/// # Errors
/// [`BadClass::Empty`] for no rows, [`BadClass::Decode`] for everything else.
pub(super) fn parse(encoded: &[u8]) -> Result<Decoded, BadSample> {
    let text = std::str::from_utf8(encoded).map_err(|_| bad("it is no UTF-8 text"))?;
    let mut lines = text.trim_start_matches('\u{feff}').lines().filter(|line| !line.trim().is_empty());
    let empty = || BadSample { class: BadClass::Empty, message: "it holds no steps".to_owned() };
    let header = lines.next().ok_or_else(empty)?;
    let delimiter = [',', ';', '\t'].into_iter().max_by_key(|d| header.matches(*d).count()).unwrap_or(',');
    let names: Vec<&str> = header.split(delimiter).map(|name| name.trim().trim_matches('"')).collect();
    let has_names = names.iter().any(|name| name.parse::<f32>().is_err() && !is_missing(name));
    let time = names.iter().position(|name| TIMES.iter().any(|time| name.eq_ignore_ascii_case(time)));
    let channels = names.len() - usize::from(time.is_some());
    if channels == 0 {
        return Err(bad("it has a column of times and no other"));
    }
    let first = (!has_names).then_some(header);
    let (mut bytes, mut times): (Vec<u8>, Vec<i64>) = (vec![], vec![]);
    for (row, line) in first.into_iter().chain(lines).enumerate() {
        let mut columns = 0;
        for (column, cell) in line.split(delimiter).enumerate() {
            let cell = cell.trim().trim_matches('"');
            columns += 1;
            if time == Some(column) {
                let at = microseconds(cell).ok_or_else(|| bad(format!("row {row}: {cell:?} is no time")))?;
                if times.last().is_some_and(|before| *before >= at) {
                    return Err(bad(format!("row {row}: its time is not after the one before")));
                }
                times.push(at);
                continue;
            }
            let value = if is_missing(cell) { Ok(f32::NAN) } else { cell.parse::<f32>() };
            let value = value.map_err(|_| bad(format!("row {row}: {cell:?} is no number")))?;
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        if columns != names.len() {
            return Err(bad(format!("row {row} has {columns} columns, not {}", names.len())));
        }
    }
    if bytes.is_empty() {
        return Err(empty());
    }
    let rate_hz = median_distance(&times).map(|distance| MICROSECONDS / distance as f64);
    // Seconds from 0 on are no moment in time.
    let start_time = times.first().copied().filter(|_| is_dated(text, delimiter, time));
    Ok(Decoded { bytes, numbers: Numbers::F32, channels: channels as u32, rate_hz, start_time })
}

fn bad(message: impl Into<String>) -> BadSample {
    BadSample::undecodable(message)
}

fn is_missing(cell: &str) -> bool {
    MISSING.iter().any(|missing| cell.eq_ignore_ascii_case(missing))
}

fn is_dated(text: &str, delimiter: char, time: Option<usize>) -> bool {
    let cell = text.lines().nth(1).and_then(|line| line.split(delimiter).nth(time?));
    cell.is_some_and(|cell| cell.trim().trim_matches('"').parse::<f64>().is_err())
}

fn microseconds(cell: &str) -> Option<i64> {
    match cell.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => Some((seconds * MICROSECONDS).round() as i64),
        Ok(_) => None,
        Err(_) => super::start_times::microseconds(cell),
    }
}

fn median_distance(times: &[i64]) -> Option<i64> {
    let mut distances: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    distances.sort_unstable();
    distances.get(distances.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(decoded: &Decoded) -> Vec<f32> {
        decoded.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn columns_are_channels_and_times_give_rate_and_start() {
        let dated =
            parse(b"x,Time,y\n1,2024-05-01T00:00:00Z,10\n2,2024-05-01T00:00:00.5Z,20\n3,2024-05-01T00:00:01Z,30\n");
        let dated = dated.unwrap();
        assert_eq!(
            (dated.channels, dated.rate_hz, values(&dated)),
            (2, Some(2.0), vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0])
        );
        assert_eq!(dated.start_time, Some(1_714_521_600_000_000));
        let seconds = parse(b"t;v\n0;1\n0.1;2\n0.2;3\n").unwrap();
        assert_eq!((seconds.channels, seconds.rate_hz, seconds.start_time), (1, Some(10.0), None));
        let bare = parse(b"1\t2\n3\t4\n").unwrap();
        assert_eq!((bare.channels, bare.rate_hz, values(&bare)), (2, None, vec![1.0, 2.0, 3.0, 4.0]));
    }

    #[test]
    fn missing_values_are_nan_and_other_words_are_damage() {
        let found = values(&parse(b"a,b\n1,\n?,NaN\n").unwrap());
        assert!(found[0] == 1.0 && found[1..].iter().all(|x| x.is_nan()), "{found:?}");
        for (text, part) in [
            (&b"a,b\n1,x\n"[..], "row 0: \"x\" is no number"),
            (b"a,b\n1,2\n1\n", "row 1 has 1 columns"),
            (b"time,v\n2,1\n1,1\n", "row 1: its time is not after"),
            (b"time,v\nnoon,1\n", "\"noon\" is no time"),
            (b"time\n1\n", "no other"),
            (b"a,b\n", "no steps"),
            (b"\xff\xfe", "no UTF-8"),
        ] {
            let bad = parse(text).unwrap_err().to_string();
            assert!(bad.contains(part), "{part} is not in {bad}");
        }
    }
}
