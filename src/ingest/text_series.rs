//! `.ts` files of the aeon archive and TSV files of the UCR archive: one line is one series.
//!
//! Pass 1 notes where lines begin and their labels; pass 2 parses them. A missing value, `?` or NaN, is NaN; where channels of
//! one series differ in length, the shorter ones end in NaN.
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::class_folders::source_name;
use super::kind::Kind;
use super::modality::Modality;
use super::samples::Shared;
use super::source::Source;
use super::split_name::{self, split_of_file};
use super::spool::{Span, read_span};
use super::walk::Listed;
use crate::augment::BadSample;
use crate::error::{Context, Error, Result, Stage};

/// How lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// Channels separated by colons, values by commas; the label last where there is one.
    Ts { has_label: bool },
    /// The label, then the values, separated by tabs (commas, blanks).
    Ucr,
}

#[derive(Debug)]
struct TextFile {
    path: PathBuf,
    lines: Lines,
    split: Option<String>,
}

#[derive(Debug)]
struct Line {
    file: u32,
    number: u32,
    span: Span,
    label: Option<u32>,
}

/// Series that are lines of files.
#[derive(Debug)]
pub(super) struct TextSeries {
    kind: Kind,
    root: PathBuf,
    files: Vec<TextFile>,
    lines: Vec<Line>,
    labels: Shared,
    channels: u32,
}

impl TextSeries {
    /// Reads the lines of `files` below `root`.
    ///
    /// # Errors
    /// A file cannot be read, has no `@data`, has times with its values, or has other channels than the first.
    pub(super) fn open(kind: Kind, root: &Path, files: &[Listed]) -> Result<Self> {
        let mut found =
            Self { kind, root: root.to_owned(), files: vec![], lines: vec![], labels: Shared::default(), channels: 0 };
        files.iter().try_for_each(|file| found.add(&file.path))?;
        Ok(found)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let place = self.root.join(path).display().to_string();
        let cannot_read = "cannot be read as text; check the file and permissions";
        let mut reader =
            BufReader::new(File::open(self.root.join(path)).context(Stage::Import, &place, cannot_read)?);
        let file = self.files.len() as u32;
        let (mut at, mut text, mut number) = (0_u64, Vec::new(), 0);
        let mut lines = (self.kind == Kind::UcrTsv).then_some(Lines::Ucr);
        let mut header = Header::default();
        loop {
            text.clear();
            let read = reader.read_until(b'\n', &mut text).context(Stage::Import, &place, cannot_read)?;
            if read == 0 {
                break;
            }
            let begin = at;
            at += read as u64;
            let line = String::from_utf8_lossy(&text);
            let line = line.trim();
            let is_comment = line.is_empty() || line.starts_with(['#', '%']);
            match lines {
                _ if is_comment => {}
                None => {
                    if let Some(problem) = header.read(line) {
                        return Err(Error::at(Stage::Import, place, problem));
                    }
                    lines = header.is_over.then_some(Lines::Ts { has_label: header.has_label });
                }
                Some(kind) => {
                    let (channels, label) = of_line(kind, line);
                    if *self.channels_or(channels) != channels {
                        let reason = format!(
                            "line {number} of its data has {channels} channels, those before {}; import files of one \
                             kind at a time",
                            self.channels
                        );
                        return Err(Error::at(Stage::Import, place, reason));
                    }
                    let label = label.map(|label| self.labels.number(label));
                    let bytes = u32::try_from(read).context(Stage::Import, &place, "has a line of 4 GiB")?;
                    self.lines.push(Line { file, number, span: Span { at: begin, bytes }, label });
                    number += 1;
                }
            }
        }
        let Some(lines) = lines else {
            return Err(Error::at(Stage::Import, place, "has no line @data; it is no .ts file of the aeon archive"));
        };
        self.files.push(TextFile { path: path.to_owned(), lines, split: split_of_file(path) });
        Ok(())
    }

    fn channels_or(&mut self, channels: u32) -> &mut u32 {
        if self.channels == 0 {
            self.channels = channels;
        }
        &mut self.channels
    }
}

#[derive(Debug, Default)]
struct Header {
    has_label: bool,
    is_over: bool,
}

impl Header {
    /// Takes a line before the data; a problem, if there is one.
    fn read(&mut self, line: &str) -> Option<String> {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default().to_ascii_lowercase();
        let is_true = words.next().is_some_and(|word| word.eq_ignore_ascii_case("true"));
        match key.as_str() {
            "@timestamps" if is_true => {
                return Some("has a time with every value, which is not read; save it without, or as CSV".to_owned());
            }
            "@classlabel" | "@targetlabel" => self.has_label = is_true,
            "@data" => self.is_over = true,
            _ => {}
        }
        None
    }
}

/// Channels of a line, and its label.
fn of_line(lines: Lines, line: &str) -> (u32, Option<&str>) {
    match lines {
        Lines::Ts { has_label: true } => {
            let (values, label) = line.rsplit_once(':').unwrap_or((line, ""));
            (values.split(':').count() as u32, Some(label.trim()))
        }
        Lines::Ts { has_label: false } => (line.split(':').count() as u32, None),
        Lines::Ucr => (1, line.split(['\t', ',', ' ']).next()),
    }
}

/// The values of a line, interleaved.
fn parse(lines: Lines, line: &str) -> Result<Vec<u8>, BadSample> {
    let line = line.trim();
    let channels: Vec<&str> = match lines {
        Lines::Ts { has_label: true } => line.rsplit_once(':').map_or(line, |(values, _)| values).split(':').collect(),
        Lines::Ts { has_label: false } => line.split(':').collect(),
        Lines::Ucr => vec![line.split_once(['\t', ',', ' ']).map_or("", |(_, values)| values)],
    };
    let value = |text: &str| match text.trim() {
        "?" => Ok(f32::NAN),
        number => number.parse().map_err(|_| BadSample::undecodable(format!("{number:?} is no number"))),
    };
    let separators: &[char] = if lines == Lines::Ucr { &['\t', ',', ' '] } else { &[','] };
    let of_channel = |text: &&str| -> Result<Vec<f32>, BadSample> {
        let texts = text.split(separators).filter(|text| !text.trim().is_empty());
        texts.map(value).collect()
    };
    let channels: Vec<Vec<f32>> = channels.iter().map(of_channel).collect::<Result<_, _>>()?;
    let steps = channels.iter().map(Vec::len).max().unwrap_or(0);
    // UCR writes sets of unequal length with NaN behind the end.
    let is_there = |step: &usize| channels.iter().any(|channel| channel.get(*step).is_some_and(|x| x.is_finite()));
    let steps = (0..steps).rev().find(is_there).map_or(0, |last| last + 1);
    let at = |step: usize, channel: &Vec<f32>| channel.get(step).copied().unwrap_or(f32::NAN);
    let values = (0..steps).flat_map(|step| channels.iter().map(move |channel| at(step, channel)));
    Ok(values.flat_map(f32::to_le_bytes).collect())
}

impl Source for TextSeries {
    fn kind(&self) -> &'static str {
        self.kind.name()
    }

    fn modality(&self) -> Modality {
        Modality::Numbers { channels: self.channels }
    }

    fn images(&self) -> usize {
        self.lines.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        let line = &self.lines[image];
        format!("{}#{}", source_name(&self.files[line.file as usize].path), line.number).into()
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        u64::from(self.lines[image].span.bytes)
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        let line = &self.lines[image];
        let path = self.root.join(&self.files[line.file as usize].path);
        let read = File::open(&path).and_then(|file| read_span(&file, line.span));
        read.context(
            Stage::Import,
            path.display().to_string(),
            "cannot be read; import again when nothing writes to it",
        )
    }

    fn numbers(&self, image: usize, read: Vec<u8>) -> Result<Vec<u8>, BadSample> {
        let line = &self.lines[image];
        parse(self.files[line.file as usize].lines, &String::from_utf8_lossy(&read))
    }

    fn split(&self, image: usize) -> Option<&str> {
        self.files[self.lines[image].file as usize].split.as_deref().map(split_name::stored)
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        self.lines[image].label.map(|number| Cow::Borrowed(self.labels.text(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(kind: Kind, files: &[(&str, &str)]) -> Result<TextSeries> {
        let folder = tempfile::tempdir().unwrap();
        let listed = files.iter().map(|(name, text)| {
            std::fs::write(folder.path().join(name), text).unwrap();
            Listed { path: name.into(), bytes: text.len() as u64 }
        });
        let listed: Vec<Listed> = listed.collect();
        let mut found = TextSeries::open(kind, folder.path(), &listed)?;
        found.root = folder.keep();
        Ok(found)
    }

    fn values(series: &TextSeries, at: usize) -> Vec<f32> {
        let bytes = series.numbers(at, series.read(at).unwrap()).unwrap();
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn ts_lines_are_channels_with_a_label() {
        let text =
            "#About\n@problemName X\n@timeStamps false\n@classLabel true a b\n@data\n1,2:10,20:a\n3,4,5:30,?:b\n";
        let series = open(Kind::Ts, &[("X_TRAIN.ts", text), ("X_TEST.ts", text)]).unwrap();
        assert_eq!((series.images(), series.modality()), (4, Modality::Numbers { channels: 2 }));
        assert_eq!(values(&series, 0), [1.0, 10.0, 2.0, 20.0]);
        let uneven = values(&series, 1);
        assert!(uneven[..3] == [3.0, 30.0, 4.0] && uneven[3].is_nan() && uneven[4] == 5.0 && uneven[5].is_nan());
        assert_eq!(
            (series.label(1).unwrap(), series.split(1), series.split(2)),
            ("b".into(), Some("train"), Some("test"))
        );
        assert_eq!(series.name(3), "X_TEST.ts#1");
    }

    #[test]
    fn ucr_lines_begin_with_the_label_and_may_end_in_nan() {
        let series = open(Kind::UcrTsv, &[("G_TRAIN.tsv", "2\t1.5\t-2\tNaN\tNaN\n-1\t0\t1\t2\t3\n")]).unwrap();
        assert_eq!((values(&series, 0), values(&series, 1)), (vec![1.5, -2.0], vec![0.0, 1.0, 2.0, 3.0]));
        assert_eq!((series.label(0).unwrap(), series.label(1).unwrap()), ("2".into(), "-1".into()));
    }

    #[test]
    fn files_that_are_none_are_named() {
        let error = |files: &[(&str, &str)]| open(Kind::Ts, files).unwrap_err().to_string();
        assert!(error(&[("a.ts", "export const x = 1;\n")]).contains("no line @data"));
        assert!(error(&[("a.ts", "@timeStamps True\n@data\n")]).contains("a time with every value"));
        let (one, two) = ("@classLabel true\n@data\n1:a\n", "@classLabel true\n@data\n1:2:a\n");
        assert!(error(&[("a.ts", one), ("b.ts", two)]).contains("has 2 channels, those before 1"));
        let series = open(Kind::Ts, &[("a.ts", "@classLabel true a\n@data\n1,x:a\n")]).unwrap();
        let bad = series.numbers(0, series.read(0).unwrap()).unwrap_err();
        assert!(bad.to_string().contains("\"x\" is no number"), "{bad}");
    }
}
