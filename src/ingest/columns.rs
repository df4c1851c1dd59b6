//! Which column of a foreign table is which: `--column caption=alt_text`, or the names that are usual.
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, Stage};
use crate::schema::alike;

/// What columns of URLs are called.
const URLS: [&str; 5] = ["url", "image_url", "img_url", "uri", "link"];
/// What is said of them.
pub(super) const NO_DOWNLOAD: &str = "Diptych does not download from the web; fetch the images with img2dataset (its \
                                      parquet and webdataset output can be imported), or list files that are at hand";

/// A column of the schema that a foreign column can fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filled {
    /// The encoded image, or the path of its file.
    Image,
    /// Words.
    Caption,
    /// Class name.
    Label,
    /// Train, test, ….
    Split,
}

impl Filled {
    pub(super) const ALL: [Self; 4] = [Self::Image, Self::Caption, Self::Label, Self::Split];

    /// As the schema has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Caption => "caption",
            Self::Label => "label",
            Self::Split => "split",
        }
    }

    /// What it is called in tables that nobody made for Diptych, in the order in which they are tried; images apart.
    pub(super) fn usual(self) -> &'static [&'static str] {
        match self {
            Self::Image => &[],
            Self::Caption => &["caption", "text", "title"],
            Self::Label => &["label", "class"],
            Self::Split => &["split"],
        }
    }
}

/// One `SCHEMA_NAME=FILE_NAME`: the column (of a table), key (of JSON) or extension (of an image in a tar) that fills a
/// column of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnName {
    /// What it fills.
    pub filled: Filled,
    /// Its own name.
    pub name: String,
}

impl fmt::Display for ColumnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.filled.name(), self.name)
    }
}

impl FromStr for ColumnName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let place = format!("--column {text}");
        let Some((filled, name)) = text.split_once('=').filter(|(_, name)| !name.is_empty()) else {
            let reason = "write it as SCHEMA_NAME=FILE_NAME, such as caption=alt_text";
            return Err(Error::at(Stage::CommandLine, place, reason));
        };
        let known = Filled::ALL.into_iter().find(|known| known.name() == filled).ok_or_else(|| {
            let names = Filled::ALL.map(Filled::name).join(", ");
            Error::at(Stage::CommandLine, place, format!("{filled:?} cannot be filled by a column; there are {names}"))
        })?;
        Ok(Self { filled: known, name: name.to_owned() })
    }
}

/// The name that was given for a column of the schema.
pub(super) fn named(columns: &[ColumnName], filled: Filled) -> Option<&str> {
    columns.iter().find(|column| column.filled == filled).map(|column| column.name.as_str())
}

/// The column among `present` that fills `filled`: the one that was named, else the first that is called as usual, in
/// any case.
///
/// # Errors
/// The one that was named is not there.
pub(super) fn find<'a>(
    columns: &[ColumnName],
    filled: Filled,
    usual: &[&str],
    present: &[&'a str],
    place: &str,
) -> Result<Option<&'a str>> {
    if let Some(name) = named(columns, filled) {
        let found = present.iter().find(|column| **column == name);
        return found.map(|column| Some(*column)).ok_or_else(|| {
            let remedy = match alike(name, present.iter().copied()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("there are {}", present.join(", ")),
            };
            Error::at(
                Stage::CommandLine,
                place,
                format!("has no column {name:?}, which is to be the {}; {remedy}", filled.name()),
            )
        });
    }
    let exact = usual.iter().find_map(|usual| present.iter().find(|column| *column == usual));
    let in_any_case =
        || usual.iter().find_map(|usual| present.iter().find(|column| column.eq_ignore_ascii_case(usual)));
    Ok(exact.or_else(in_any_case).copied())
}

/// Whether a column among `present` is called like one of URLs.
pub(super) fn has_urls(present: &[&str]) -> bool {
    present.iter().any(|name| URLS.iter().any(|url| name.eq_ignore_ascii_case(url)))
}

/// # Errors
/// A column of the schema is to be filled twice.
pub(super) fn check(columns: &[ColumnName]) -> std::result::Result<(), String> {
    for filled in Filled::ALL {
        let names: Vec<&str> =
            columns.iter().filter(|column| column.filled == filled).map(|column| column.name.as_str()).collect();
        if names.len() > 1 {
            return Err(format!("column {} is filled by {}; name one", filled.name(), names.join(" and ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_written_as_schema_name_and_file_name() {
        let column: ColumnName = "image=jpg".parse().unwrap();
        assert_eq!((column.filled, column.name.as_str()), (Filled::Image, "jpg"));
        assert_eq!(column.to_string(), "image=jpg");
        for (wrong, part) in
            [("jpg", "SCHEMA_NAME=FILE_NAME"), ("label=", "SCHEMA_NAME"), ("width=w", "cannot be filled")]
        {
            let error = wrong.parse::<ColumnName>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_named_column_wins_over_the_usual_ones() {
        let present = ["TEXT", "text", "alt"];
        let caption = Filled::Caption;
        let found = |columns: &[ColumnName], present: &[&'static str]| {
            find(columns, caption, caption.usual(), present, "t.csv").map(|found| found.map(str::to_owned))
        };
        assert_eq!(found(&[], &present).unwrap().as_deref(), Some("text"));
        assert_eq!(found(&[], &present[..1]).unwrap().as_deref(), Some("TEXT"));
        assert_eq!(found(&[], &["other"]).unwrap(), None);
        let alt = ["caption=alt".parse().unwrap()];
        assert_eq!(found(&alt, &present).unwrap().as_deref(), Some("alt"));
        let error = found(&["caption=tetx".parse().unwrap()], &present).unwrap_err().to_string();
        assert!(error.contains("did you mean \"text\"?"), "{error}");
    }

    #[test]
    fn one_column_fills_one_column() {
        let twice: Vec<ColumnName> = ["label=a", "label=b"].map(|text| text.parse().unwrap()).to_vec();
        assert!(check(&twice).unwrap_err().contains("a and b"));
        check(&twice[..1]).unwrap();
    }
}
