//! WebDataset: tar archives in which files of one key are one sample: `0001.jpg`, `0001.txt`, `0001.json`, `0001.cls`.
//!
//! The key is the path up to the first dot of its last part; what follows is the extension. Files of one key belong
//! together wherever they stand in an archive; in two archives they are two samples. Of two files with one key and one
//! purpose the first counts. A sample without an image, or with words that cannot be read, goes to quarantine.
//!
//! Caption: `.txt`, else the JSON's; label: `.cls`, else the JSON's; split: the JSON's, else that of the archive's name.
//! Images in plain archives are read at their places; those of compressed ones are kept in the [`Spool`] meanwhile.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;

use super::columns::{ColumnName, Filled, named};
use super::samples::{Found, Samples, Stored};
use super::sidecar;
use super::split_name::split_of_file;
use super::spool::{Span, Spool};
use super::tar_entries::{Stop, TarEntry, visit};
use super::walk::{IMAGE_EXTENSIONS, Listed};
use super::{MAX_IMAGE_BYTES, Progress};
use crate::augment::BadClass;
use crate::error::Result;

/// A caption, label or JSON of more bytes is none.
const MAX_WORDS_BYTES: u64 = 1 << 20;
/// Ignored keys and extensions that are named one by one: a hostile set has millions.
const NAMED: usize = 100;
/// How often a long listing says how far it is.
const SAMPLES_PER_PROGRESS: u64 = 10_000;

/// What pass 1 found in all archives.
pub(super) struct Archives {
    pub(super) samples: Samples,
    /// Files that are no part of a sample, by extension.
    pub(super) skipped: BTreeMap<String, u64>,
    /// Keys of JSON that are not imported.
    pub(super) ignored_keys: BTreeSet<String>,
    /// Archives that are not whole.
    pub(super) warnings: Vec<String>,
}

/// Reads the entries of every archive.
///
/// # Errors
/// An archive cannot be read (one that is damaged can), the spool cannot be written, `progress` says stop.
pub(super) fn open(
    root: &Path,
    archives: &[Listed],
    columns: &[ColumnName],
    spool: Spool,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<Archives> {
    let mut found = Archives {
        samples: Samples::new("webdataset", spool),
        skipped: BTreeMap::new(),
        ignored_keys: BTreeSet::new(),
        warnings: vec![],
    };
    for archive in archives {
        let path = root.join(&archive.path);
        let mut reading = Reading {
            name: archive.path.to_string_lossy().into_owned(),
            file: found.samples.add_file(path.clone()),
            columns,
            parts: HashMap::new(),
            pending: vec![],
            found: &mut found,
        };
        visit(&path, &mut |entry| {
            reading.entry(entry)?;
            let seen = reading.found.samples.seen() + reading.pending.len() as u64;
            if seen.is_multiple_of(SAMPLES_PER_PROGRESS) {
                progress(&Progress::Listing { files: seen })?;
            }
            Ok(())
        })?;
        let split = split_of_file(&archive.path).map(|split| reading.found.samples.splits.number(&split));
        reading.finish(split);
    }
    found.samples.spool.seal()?;
    Ok(found)
}

/// One archive.
struct Reading<'a> {
    name: String,
    file: u32,
    columns: &'a [ColumnName],
    /// Key → place in `pending`.
    parts: HashMap<String, usize>,
    /// In the order in which their first files stand.
    pending: Vec<Pending>,
    found: &'a mut Archives,
}

/// A sample of which more files may come.
#[derive(Default)]
struct Pending {
    key: String,
    image: Option<Stored>,
    txt: Option<Span>,
    cls: Option<u32>,
    json: Option<Json>,
    /// Why it cannot be used.
    bad: Option<(BadClass, String)>,
}

/// Words out of a JSON, put away.
#[derive(Clone, Copy, Default)]
struct Json {
    caption: Option<Span>,
    label: Option<u32>,
    split: Option<u32>,
}

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Image,
    Txt,
    Cls,
    Json,
}

impl Reading<'_> {
    fn entry(&mut self, entry: TarEntry<'_>) -> std::result::Result<(), Stop> {
        let (name, at, bytes, content) = match entry {
            TarEntry::File { name, at, bytes, content } => (name, at, bytes, content),
            TarEntry::Refused { name, reason, is_cut_off } => {
                let source = if name.is_empty() { self.name.clone() } else { format!("{}#{name}", self.name) };
                if is_cut_off {
                    self.found.warnings.push(format!("{source} {reason}"));
                }
                self.found.samples.reject(source, BadClass::Refused, reason);
                return Ok(());
            }
        };
        let Some((key, extension)) = key_and_extension(&name) else {
            skip(&mut self.found.skipped, "no key, no extension");
            return Ok(());
        };
        let Some(purpose) = self.purpose(&extension) else {
            skip(&mut self.found.skipped, &format!(".{extension}"));
            return Ok(());
        };
        let number = match self.parts.get(key) {
            Some(number) => *number,
            None => {
                self.parts.insert(key.to_owned(), self.pending.len());
                self.pending.push(Pending { key: key.to_owned(), ..Pending::default() });
                self.pending.len() - 1
            }
        };
        let sample = &self.pending[number];
        let is_there = match purpose {
            Purpose::Image => sample.image.is_some(),
            Purpose::Txt => sample.txt.is_some(),
            Purpose::Cls => sample.cls.is_some(),
            Purpose::Json => sample.json.is_some(),
        };
        if is_there {
            let reason = "its sample has such a file already; the first counts";
            self.found.samples.reject(format!("{}#{name}", self.name), BadClass::Refused, reason);
            return Ok(());
        }
        let limit = if purpose == Purpose::Image { MAX_IMAGE_BYTES } else { MAX_WORDS_BYTES };
        if bytes > limit {
            let class = if purpose == Purpose::Image { BadClass::TooManyPixels } else { BadClass::Refused };
            self.pending[number].bad =
                Some((class, format!(".{extension} has {bytes} bytes, and {limit} are allowed")));
            return Ok(());
        }
        if purpose == Purpose::Image {
            let image = match at {
                Some(at) => Stored::File(self.file, Span { at, bytes: bytes as u32 }),
                None => Stored::Spool(self.found.samples.spool.copy(content, bytes as u32)?.map_err(Stop::Archive)?),
            };
            self.pending[number].image = Some(image);
            return Ok(());
        }
        let mut words = Vec::with_capacity(bytes as usize);
        content.take(bytes).read_to_end(&mut words).map_err(Stop::Archive)?;
        if words.len() as u64 != bytes {
            return Err(Stop::Archive(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.words(number, purpose, &words)?;
        Ok(())
    }

    fn purpose(&self, extension: &str) -> Option<Purpose> {
        let is_image = match named(self.columns, Filled::Image) {
            Some(name) => extension.eq_ignore_ascii_case(name.trim_start_matches('.')),
            None => IMAGE_EXTENSIONS.contains(&extension),
        };
        match extension {
            _ if is_image => Some(Purpose::Image),
            "txt" => Some(Purpose::Txt),
            "cls" => Some(Purpose::Cls),
            "json" => Some(Purpose::Json),
            _ => None,
        }
    }

    fn words(&mut self, number: usize, purpose: Purpose, bytes: &[u8]) -> Result<()> {
        let Archives { samples, ignored_keys, .. } = &mut *self.found;
        let sample = &mut self.pending[number];
        if purpose == Purpose::Json {
            let ignored = &mut |key: &str| {
                if ignored_keys.len() < NAMED && !ignored_keys.contains(key) {
                    ignored_keys.insert(key.to_owned());
                }
            };
            match sidecar::read(bytes, self.columns, ignored) {
                Ok(words) => {
                    let caption = words.caption.map(|caption| samples.spool.append(caption.as_bytes())).transpose()?;
                    let label = words.label.map(|label| samples.labels.number(&label));
                    let split = words.split.map(|split| samples.splits.number(&split));
                    sample.json = Some(Json { caption, label, split });
                }
                Err(reason) => sample.bad = Some((BadClass::Refused, reason)),
            }
            return Ok(());
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) if purpose == Purpose::Txt => sample.txt = Some(samples.spool.append(text.trim().as_bytes())?),
            Ok(text) => sample.cls = Some(samples.labels.number(text.trim())),
            Err(_) => sample.bad = Some((BadClass::Refused, "its words are no UTF-8".to_owned())),
        }
        Ok(())
    }

    /// Every file has come.
    fn finish(self, split: Option<u32>) {
        let wants = |filled| named(self.columns, filled).is_some();
        for sample in self.pending {
            let name = format!("{}#{}", self.name, sample.key);
            let samples = &mut self.found.samples;
            let image = match (sample.bad, sample.image) {
                (Some((class, reason)), _) => {
                    samples.reject(name, class, reason);
                    continue;
                }
                (None, None) => {
                    samples.reject(name, BadClass::Missing, "no image of this key is in the archive");
                    continue;
                }
                (None, Some(image)) => image,
            };
            let json = sample.json.unwrap_or_default();
            // A key of the JSON that was named on the command line is meant.
            let caption = if wants(Filled::Caption) { json.caption } else { sample.txt.or(json.caption) };
            let label = if wants(Filled::Label) { json.label } else { sample.cls.or(json.label) };
            samples.push(&Found { name: &name, image, caption, label, split: json.split.or(split), further: None });
        }
    }
}

/// `a/0001.seg.png` is `a/0001` and `seg.png`; what begins with a dot has no key.
fn key_and_extension(name: &str) -> Option<(&str, String)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[base..].find('.').filter(|dot| *dot > 0)?;
    Some((&name[..base + dot], name[base + dot + 1..].to_ascii_lowercase()))
}

fn skip(skipped: &mut BTreeMap<String, u64>, what: &str) {
    let what = if skipped.len() < NAMED || skipped.contains_key(what) { what } else { "…" };
    *skipped.entry(what.chars().take(40).collect()).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::source::Source;
    use super::*;

    /// An entry's name and content.
    type Entry<'a> = (&'a str, &'a [u8]);

    fn archives(files: &[(&str, &[Entry<'_>])], columns: &[&str]) -> (tempfile::TempDir, Archives) {
        let folder = tempfile::tempdir().unwrap();
        let mut listed = vec![];
        for (name, entries) in files {
            let mut builder = tar::Builder::new(Vec::new());
            for (name, content) in *entries {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                builder.append_data(&mut header, name, *content).unwrap();
            }
            let bytes = builder.into_inner().unwrap();
            listed.push(Listed { path: PathBuf::from(name), bytes: bytes.len() as u64 });
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let columns: Vec<ColumnName> = columns.iter().map(|column| column.parse().unwrap()).collect();
        let spool = Spool::new(folder.path()).unwrap();
        let found = open(folder.path(), &listed, &columns, spool, &mut |_| Ok(())).unwrap();
        (folder, found)
    }

    fn rejected(found: &Archives) -> Vec<String> {
        found.samples.rejected.iter().map(|bad| format!("{}: {}", bad.source, bad.reason)).collect()
    }

    #[test]
    fn files_of_one_key_meet_wherever_they_stand() {
        let json: &[u8] = br#"{"caption": "json", "label": "bird", "split": "dev", "url": "u"}"#;
        let (_folder, found) = archives(
            &[(
                "train-0.tar",
                &[
                    ("a/1.jpg", b"one"),
                    ("a/2.cls", b"4\n"),
                    ("a/1.txt", b" words \n"),
                    ("b/1.PNG", b"other"),
                    ("a/2.seg.png", b"no image"),
                    ("b/1.json", json),
                    ("a/2.webp", b"two"),
                ],
            )],
            &[],
        );
        let samples = &found.samples;
        let all: Vec<_> = (0..samples.images())
            .map(|i| {
                let (image, caption) = samples.read_with_caption(i).unwrap();
                let words = (caption.map(|c| c.into_owned()), samples.label(i).map(|l| l.into_owned()));
                (samples.name(i).into_owned(), image, words, samples.split(i).map(str::to_owned))
            })
            .collect();
        let text = |text: &str| Some(text.to_owned());
        let name = |key: &str| format!("train-0.tar#{key}");
        assert_eq!(
            all,
            [
                (name("a/1"), b"one".to_vec(), (text("words"), None), text("train")),
                (name("a/2"), b"two".to_vec(), (None, text("4")), text("train")),
                (name("b/1"), b"other".to_vec(), (text("json"), text("bird")), text("validation")),
            ]
        );
        assert_eq!(found.skipped, BTreeMap::from([(".seg.png".to_owned(), 1)]));
        assert_eq!(found.ignored_keys, BTreeSet::from(["url".to_owned()]));
        assert_eq!(rejected(&found), [""; 0]);
    }

    #[test]
    fn samples_that_are_incomplete_or_contradict_themselves_have_a_reason() {
        let (_folder, found) = archives(
            &[
                ("0.tar", &[("1.txt", b"alone"), ("2.jpg", b"a"), ("2.png", b"b"), ("3.jpg", b"c"), ("3.json", b"{")]),
                ("1.tar", &[("1.jpg", b"same key, other archive"), ("4.jpg", b"d"), ("4.txt", b"\xff")]),
            ],
            &[],
        );
        let samples = &found.samples;
        let names: Vec<_> = (0..samples.images()).map(|i| samples.name(i).into_owned()).collect();
        assert_eq!(names, ["0.tar#2", "1.tar#1"]);
        assert_eq!(samples.read(0).unwrap(), b"a");
        let rejected = rejected(&found);
        for part in [
            "0.tar#2.png: refused: its sample has",
            "0.tar#1: missing: no image",
            "0.tar#3: refused: its json",
            "1.tar#4: refused: its words are no UTF-8",
        ] {
            assert!(rejected.iter().any(|bad| bad.starts_with(part)), "{part} is not in {rejected:?}");
        }
        assert_eq!(rejected.len(), 4);
    }

    #[test]
    fn named_extensions_and_keys_win() {
        let json: &[u8] = br#"{"alt": "words", "caption": "not these"}"#;
        let files: &[(&str, &[u8])] =
            &[("1.input.jpg", b"this"), ("1.jpg", b"not this"), ("1.json", json), ("1.txt", b"nor these")];
        let (_folder, found) = archives(&[("0.tar", files)], &["image=input.jpg", "caption=alt"]);
        let (image, caption) = found.samples.read_with_caption(0).unwrap();
        assert_eq!((image.as_slice(), caption.as_deref()), (&b"this"[..], Some("words")));
    }

    #[test]
    fn keys_end_at_the_first_dot_of_the_last_part() {
        let split = |name| key_and_extension(name).map(|(key, extension)| (key.to_owned(), extension));
        assert_eq!(split("a.b/c.JPG"), Some(("a.b/c".to_owned(), "jpg".to_owned())));
        assert_eq!(split("c.seg.png"), Some(("c".to_owned(), "seg.png".to_owned())));
        assert_eq!((split("a/._c.jpg"), split("README")), (None, None));
    }
}
