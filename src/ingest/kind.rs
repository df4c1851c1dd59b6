//! The kinds of source: `--as KIND`.
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Stage};
use crate::schema::alike;

/// What FROM is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Images in folders that name their class.
    ClassFolders,
    /// Images and a `metadata.csv`, `.jsonl` or `.parquet` that lists them.
    MetadataFolder,
    /// MNIST's format.
    Idx,
    /// Tar archives in which files of one key are one sample.
    Webdataset,
    /// Parquet files with a column of encoded images, Hugging Face's among them.
    Parquet,
    /// What img2dataset writes: Parquet with a `status` per row, or tars.
    Img2dataset,
    /// CSV, TSV, JSON lines or Parquet that list the paths of image files.
    Paths,
    /// Audio in folders that name their class, or with a metadata table, where there are images beside it.
    AudioFolder,
    /// `.ts` files of the aeon archive.
    Ts,
    /// TSV files of the UCR archive: a series per line, its label first.
    UcrTsv,
    /// CSV files of one series each, in folders that may name their class.
    CsvSeries,
    /// Text files in folders that may name their class or with a metadata table, or tables with a document per row.
    Documents,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ClassFolders,
        Self::MetadataFolder,
        Self::Idx,
        Self::Webdataset,
        Self::Parquet,
        Self::Img2dataset,
        Self::Paths,
        Self::AudioFolder,
        Self::Ts,
        Self::UcrTsv,
        Self::CsvSeries,
        Self::Documents,
    ];

    /// As the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClassFolders => "class_folders",
            Self::MetadataFolder => "metadata_folder",
            Self::Idx => "idx",
            Self::Webdataset => "webdataset",
            Self::Parquet => "parquet",
            Self::Img2dataset => "img2dataset",
            Self::Paths => "paths",
            Self::AudioFolder => "audio_folder",
            Self::Ts => "ts",
            Self::UcrTsv => "ucr_tsv",
            Self::CsvSeries => "csv_series",
            Self::Documents => "documents",
        }
    }

    /// All names, separated by commas.
    pub fn list() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let meant = alike(text, Self::ALL.map(Self::name)).map(|name| format!("did you mean {name:?}? "));
            let reason = format!("no kind of source {text:?}; {}there are {}", meant.unwrap_or_default(), Self::list());
            Error::at(Stage::CommandLine, "--as", reason)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_others_list_them() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
        }
        let error = "webdatset".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("did you mean \"webdataset\"?") && error.contains("class_folders"), "{error}");
    }
}
