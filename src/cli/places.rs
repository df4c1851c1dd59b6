//! Where results may be written.
use std::path::PathBuf;

/// Where results are written.
pub(crate) fn local(text: &str) -> Result<PathBuf, String> {
    match text.contains("://") {
        true => Err("results are written to local files and folders; copy them to the store afterwards".to_owned()),
        false => Ok(PathBuf::from(text)),
    }
}

/// A file whose name says what will be in it.
pub(crate) fn png(text: &str) -> Result<PathBuf, String> {
    let path = local(text)?;
    match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
        true => Ok(path),
        false => Err("the contact sheet is a PNG; name a file that ends in .png".to_owned()),
    }
}
