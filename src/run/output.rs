//! Results go to stdout, one line at a time.
use std::io::{ErrorKind, Write as _};

use serde::Serialize;

use crate::error::{Error, Result, Stage};

/// Prints one result.
///
/// # Errors
/// stdout is closed, see [`is_broken_pipe`], or full.
pub fn line(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Error::at(Stage::Output, "stdout", "cannot write results").caused_by(error))
}

/// `1 shard`, `2 shards`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Prints one JSON object on a line of its own.
///
/// # Errors
/// As [`line()`].
pub fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value).map_err(|e| Error::internal("results are no JSON").caused_by(e))?)
}

/// Whether the reader of stdout went away, as `diptych … | head -1` does.
pub fn is_broken_pipe(error: &Error) -> bool {
    let Error::Stage { stage: Stage::Output, source: Some(source), .. } = error else { return false };
    source.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_is_quiet() {
        let with = |stage, kind: ErrorKind| Error::at(stage, "x", "x").caused_by(std::io::Error::from(kind));
        assert!(is_broken_pipe(&with(Stage::Output, ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&with(Stage::Output, ErrorKind::StorageFull)));
        assert!(!is_broken_pipe(&with(Stage::Scan, ErrorKind::BrokenPipe)), "a connection that broke is a failure");
        assert!(!is_broken_pipe(&Error::internal("x")));
    }
}
