//! Import of what others have packed: WebDataset, Parquet of images, tables of paths.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, LargeBinaryArray, RecordBatch, StringArray, StructArray,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, UInt64Type};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::metadata::KeyValue;
use diptych::ingest::{ImportReport, ImportSettings, Kind, QUARANTINE_FILE};
use diptych::synthetic;
use diptych::{Error, Result};

use crate::import::{all, imported, names, png, read, shards, some, texts, write};

type Part<'a> = (&'a str, Vec<u8>);

fn tar_of(parts: &[Part<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in parts {
        append(&mut builder, name, tar::EntryType::Regular, content);
    }
    builder.into_inner().unwrap()
}

/// Whatever the name: the builder's own way refuses what these tests are about.
fn append(builder: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn hashes(folder: &Path) -> BTreeSet<u64> {
    let of = |path: &std::path::PathBuf| {
        let batch = read(path);
        batch.column_by_name("image_xxh3").unwrap().as_primitive::<UInt64Type>().values().to_vec()
    };
    shards(folder).iter().flat_map(of).collect()
}

/// source → class of damage.
fn quarantine(folder: &Path) -> BTreeMap<String, String> {
    let batch = read(&folder.join(QUARANTINE_FILE));
    let column = |name: &str| texts(&batch, name).into_iter().map(Option::unwrap).collect::<Vec<_>>();
    column("source").into_iter().zip(column("class")).collect()
}

/// source → (caption, label, split).
fn words(folder: &Path) -> BTreeMap<String, [Option<String>; 3]> {
    let column = |name: &str| all(folder, name).into_iter();
    let words = column("caption").zip(column("label").zip(column("split")));
    column("source").zip(words).map(|(source, (c, (l, s)))| (source.unwrap(), [c, l, s])).collect()
}

fn import_to(from: &Path, settings: &ImportSettings) -> (tempfile::TempDir, Result<ImportReport>) {
    let to = tempfile::tempdir().unwrap();
    let report = imported(from, to.path(), settings);
    (to, report)
}

fn defaults() -> ImportSettings {
    ImportSettings::default()
}

fn with_columns(columns: &[&str]) -> ImportSettings {
    ImportSettings { columns: columns.iter().map(|column| column.parse().unwrap()).collect(), ..defaults() }
}

fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>, huggingface: Option<&str>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    if let Some(text) = huggingface {
        writer.append_key_value_metadata(KeyValue::new("huggingface".to_owned(), text.to_owned()));
    }
    writer.close().unwrap();
}

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn binaries(values: &[Option<&[u8]>]) -> ArrayRef {
    Arc::new(BinaryArray::from(values.to_vec()))
}

#[test]
fn the_same_images_as_folders_and_as_archives_of_any_kind_are_the_same_rows() {
    let from = tempfile::tempdir().unwrap();
    synthetic::write_class_folders(from.path(), 4, 16, 1).unwrap();
    let (folders, report) = import_to(from.path(), &defaults());
    let of_folders = report.unwrap();
    let rows = of_folders.rows as usize;
    let expected = hashes(folders.path());
    assert_eq!(expected.len(), rows);
    let mut files = vec![];
    for split in ["train", "test"] {
        for class in names(&from.path().join(split)) {
            for file in names(&from.path().join(split).join(&class)) {
                let bytes = std::fs::read(from.path().join(split).join(&class).join(&file)).unwrap();
                files.push((split, format!("{class}/{file}"), class.clone(), bytes));
            }
        }
    }
    for packed in [false, true] {
        let archives = tempfile::tempdir().unwrap();
        for split in ["train", "test"] {
            let of_split: Vec<_> = files.iter().filter(|file| file.0 == split).collect();
            for (number, files) in of_split.chunks(13).enumerate() {
                let mut parts: Vec<(String, Vec<u8>)> = vec![];
                for (_, name, class, bytes) in files {
                    parts.push((name.clone(), bytes.clone()));
                    parts.push((name.replace(".png", ".cls"), class.clone().into_bytes()));
                }
                let parts: Vec<Part<'_>> = parts.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
                let tar = tar_of(&parts);
                let name = format!("{split}-{number:03}.tar");
                if packed {
                    write(archives.path(), &format!("{name}.gz"), gzip(&tar));
                } else {
                    write(archives.path(), &name, tar);
                }
            }
        }
        let (to, report) = import_to(archives.path(), &defaults());
        let report = report.unwrap();
        assert_eq!((report.kind.as_str(), report.rows as usize, report.quarantined), ("webdataset", rows, 0));
        assert_eq!(hashes(to.path()), expected);
        assert_eq!((&report.splits, &report.labels), (&of_folders.splits, &of_folders.labels));
        // In a random order that is named by the seed, and the same the next time.
        let (again, _) = import_to(archives.path(), &defaults());
        assert_eq!(all(again.path(), "source"), all(to.path(), "source"));
        let (kept, _) = import_to(archives.path(), &ImportSettings { keep_order: true, ..defaults() });
        assert_ne!(all(kept.path(), "source"), all(to.path(), "source"));
        let sources = all(kept.path(), "source");
        let key = files.iter().find(|file| file.0 == "test").unwrap().1.replace(".png", "");
        let archive = if packed { "test-000.tar.gz" } else { "test-000.tar" };
        assert_eq!(sources[0], Some(format!("{archive}#{key}")));
    }
}

#[test]
fn samples_of_an_archive_carry_their_words_and_bad_ones_their_reason() {
    let from = tempfile::tempdir().unwrap();
    let json = br#"{"caption": "from json", "label": 3, "split": "dev", "width": 12, "similarity": 0.3}"#.to_vec();
    write(
        from.path(),
        "00000.tar",
        tar_of(&[
            ("a.txt", b"from txt\n".to_vec()),
            ("b.png", png(1)),
            ("a.png", png(0)),
            ("b.json", json),
            ("c.json", b"{}".to_vec()),
            ("d.jpg", b"no image".to_vec()),
            ("e.png", png(2)),
            ("e.json", b"{not json".to_vec()),
            ("f.npy", vec![1]),
        ]),
    );
    write(from.path(), "00000_stats.json", "{}");
    let (to, report) = import_to(from.path(), &defaults());
    let report = report.unwrap();
    let expected = [
        ("00000.tar#a".to_owned(), [some("from txt"), None, None]),
        ("00000.tar#b".to_owned(), [some("from json"), some("3"), some("validation")]),
    ];
    assert_eq!(words(to.path()), BTreeMap::from(expected));
    assert_eq!(report.skipped, BTreeMap::from([(".json".to_owned(), 1), (".npy".to_owned(), 1)]));
    assert_eq!(report.ignored_columns.len(), 2, "{:?}", report.ignored_columns);
    assert_eq!(report.quarantined, 3);
    let bad = [("c", "missing"), ("d", "unknown_format"), ("e", "refused")];
    let bad = bad.map(|(key, class)| (format!("00000.tar#{key}"), class.to_owned()));
    assert_eq!(quarantine(to.path()), BTreeMap::from(bad));
    assert!(names(to.path()).iter().all(|name| !name.ends_with(".tmp")), "{:?}", names(to.path()));
}

#[test]
fn hostile_archives_lose_their_hostile_entries_only() {
    use tar::EntryType::{Block, Link, Regular, Symlink};
    let outside = tempfile::tempdir().unwrap();
    let from = outside.path().join("from");
    let mut builder = tar::Builder::new(Vec::new());
    let absolute = outside.path().join("absolute.png").display().to_string();
    append(&mut builder, "good.png", Regular, &png(0));
    append(&mut builder, "../leads_out.png", Regular, &png(1));
    append(&mut builder, &absolute, Regular, &png(1));
    append(&mut builder, "link.png", Symlink, b"");
    append(&mut builder, "hard.png", Link, b"");
    append(&mut builder, "device.png", Block, b"");
    append(&mut builder, "also_good.png", Regular, &png(2));
    let tar = builder.into_inner().unwrap();
    let mut eight_gigabytes = tar::Header::new_gnu();
    eight_gigabytes.set_path("huge.png").unwrap();
    eight_gigabytes.set_size(8 << 30);
    eight_gigabytes.set_cksum();
    // In the place of the end's two blocks of zeros.
    let huge = [&tar[..tar.len() - 1024], eight_gigabytes.as_bytes(), &[7; 4096]].concat();
    for (name, bytes) in [("huge.tar", huge.clone()), ("huge.tgz", gzip(&huge))] {
        write(&from, name, bytes);
        let (to, report) = import_to(&from, &defaults());
        let report = report.unwrap();
        assert_eq!(report.rows, 2, "{name}");
        let quarantine = quarantine(to.path());
        let refused = |part: &str| quarantine.iter().any(|(source, class)| source.contains(part) && class != "missing");
        for part in ["leads_out", "absolute", "link", "hard", "device", "#huge"] {
            assert!(refused(part), "{part} is not in {quarantine:?}");
        }
        std::fs::remove_file(from.join(name)).unwrap();
    }
    assert_eq!(names(outside.path()), ["from"]);
    assert_eq!(names(&from), [""; 0]);
}

#[test]
fn an_archive_cut_off_at_any_block_gives_what_is_whole_and_never_a_panic() {
    let from = tempfile::tempdir().unwrap();
    let long = "d/".repeat(80) + "long.png";
    let mut builder = tar::Builder::new(Vec::new());
    append(&mut builder, "a.png", tar::EntryType::Regular, &png(0));
    append(&mut builder, "a.txt", tar::EntryType::Regular, b"words");
    let mut header = tar::Header::new_gnu();
    let content = png(1);
    header.set_size(content.len() as u64);
    builder.append_data(&mut header, &long, &content[..]).unwrap();
    let whole = builder.into_inner().unwrap();
    let mut rows = vec![];
    for packed in [false, true] {
        let bytes = if packed { gzip(&whole) } else { whole.clone() };
        let step = if packed { 97 } else { 512 };
        for cut in (0..=bytes.len()).step_by(step) {
            write(from.path(), "cut.tar", &bytes[..cut]);
            let (to, report) = import_to(from.path(), &defaults());
            match report {
                Ok(report) => {
                    rows.push(report.rows);
                    // The second block of zeros, and the last bytes of a gzip, add nothing to what is read.
                    let is_whole = if packed { cut + 64 > bytes.len() } else { cut + 1024 > bytes.len() };
                    assert!(is_whole || report.quarantined > 0, "cut at {cut}, unnoticed");
                    let warned = report.warnings.iter().any(|warning| warning.contains("cut.tar"));
                    assert!(is_whole || warned, "cut at {cut}: {:?}", report.warnings);
                    let a = &words(to.path())["cut.tar#a"];
                    assert!(a[0].is_none() || a[0] == some("words"), "cut at {cut}: {a:?}");
                }
                Err(error) => assert!(error.to_string().contains("none of"), "cut at {cut}: {error}"),
            }
        }
    }
    assert!(rows.contains(&1) && rows.contains(&2), "{rows:?}");
}

#[test]
fn patterns_name_archives_and_a_missing_one_is_an_error() {
    let from = tempfile::tempdir().unwrap();
    for number in 0..3 {
        write(from.path(), &format!("s-{number:03}.tar"), tar_of(&[("a.png", png(number))]));
    }
    let import_pattern = |pattern: &str| import_to(&from.path().join(pattern), &defaults());
    for (pattern, rows) in [("s-{000..001}.tar", 2), ("*.tar", 3), ("s-002.tar", 1)] {
        let (to, report) = import_pattern(pattern);
        assert_eq!(report.unwrap().rows, rows, "{pattern}");
        assert!(words(to.path()).keys().all(|source| source.starts_with("s-00")), "{pattern}");
    }
    let error = import_pattern("s-{000..004}.tar").1.unwrap_err().to_string();
    assert!(error.contains("s-003.tar, s-004.tar"), "{error}");
    let error = import_pattern("s").1.unwrap_err().to_string();
    assert!(error.contains("is not there"), "{error}");
}

#[test]
fn what_from_is_can_be_said_and_is_asked_for_where_it_does_not_show() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "packed", tar_of(&[("a.png", png(0))]));
    let file = from.path().join("packed");
    let error = import_to(&file, &defaults()).1.unwrap_err().to_string();
    assert!(error.contains("--as") && error.contains("webdataset"), "{error}");
    let as_kind = |kind| ImportSettings { read_as: Some(kind), ..defaults() };
    assert_eq!(import_to(&file, &as_kind(Kind::Webdataset)).1.unwrap().rows, 1);
    write(from.path(), "cat/b.png", png(1));
    write(from.path(), "a.tar", tar_of(&[("a.png", png(0))]));
    let error = import_to(from.path(), &defaults()).1.unwrap_err().to_string();
    assert!(error.contains("--as webdataset or --as class_folders"), "{error}");
    assert_eq!(import_to(from.path(), &as_kind(Kind::Webdataset)).1.unwrap().kind, "webdataset");
    assert_eq!(import_to(from.path(), &as_kind(Kind::ClassFolders)).1.unwrap().kind, "class_folders");
    let error = import_to(from.path(), &as_kind(Kind::Parquet)).1.unwrap_err().to_string();
    assert!(error.contains("holds no .parquet") && error.contains("class_folders"), "{error}");
}

#[test]
fn both_formats_of_img2dataset_are_read_from_folders_and_patterns() {
    let from = tempfile::tempdir().unwrap();
    let image = png(0);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("status", strings(&[Some("success"), Some("failed")])), ("jpg", binaries(&[Some(&image[..]), None]))];
    parquet(&from.path().join("rows/0.parquet"), columns, None);
    write(from.path(), "tars/0.tar", tar_of(&[("a.png", png(1))]));
    write(from.path(), "neither/a.csv", "path\n");
    let settings = ImportSettings { read_as: Some(Kind::Img2dataset), ..defaults() };
    for (path, kind) in
        [("rows", "img2dataset"), ("rows/*", "img2dataset"), ("tars", "webdataset"), ("tars/*", "webdataset")]
    {
        let report = import_to(&from.path().join(path), &settings).1.unwrap();
        assert_eq!((report.kind.as_str(), report.rows, report.quarantined), (kind, 1, 0), "{path}");
    }
    let error = import_to(&from.path().join("neither"), &settings).1.unwrap_err().to_string();
    assert!(error.contains("holds no .parquet, .tar, .tar.gz or .tgz, so it cannot be read as img2dataset"), "{error}");
}

#[test]
fn what_img2dataset_marks_as_failed_is_counted_and_left_out() {
    let from = tempfile::tempdir().unwrap();
    let (a, b) = (png(0), png(1));
    let status = ["success", "failed_to_download", "success", "failed_to_resize", "failed_to_download", "success"];
    let images = [Some(&a[..]), None, Some(&b[..]), None, None, None];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("key", strings(&["0", "1", "2", "3", "4", "5"].map(Some))),
        ("status", strings(&status.map(Some))),
        ("url", strings(&["u0", "u1", "u2", "u3", "u4", "u5"].map(Some))),
        ("caption", strings(&[Some("one"), Some("x"), None, None, None, Some("y")])),
        ("jpg", binaries(&images)),
        ("width", Arc::new(Int64Array::from(vec![12; 6]))),
        ("similarity", Arc::new(Float64Array::from(vec![0.5, 0.0, 0.25, 0.0, 0.0, 0.0]))),
    ];
    parquet(&from.path().join("00000.parquet"), columns, None);
    write(from.path(), "00000_stats.json", "{}");
    let (to, report) = import_to(from.path(), &defaults());
    let report = report.unwrap();
    assert_eq!((report.kind.as_str(), report.rows, report.quarantined), ("img2dataset", 2, 1));
    let left_out = [("failed_to_download", 2), ("failed_to_resize", 1)];
    assert_eq!(report.left_out, BTreeMap::from(left_out.map(|(status, rows)| (status.to_owned(), rows))));
    assert_eq!(quarantine(to.path()), BTreeMap::from([("00000.parquet#5".to_owned(), "missing".to_owned())]));
    assert_eq!(words(to.path())["00000.parquet#0"][0], some("one"));
    let batch = read(&shards(to.path())[0]);
    let similarity = batch.column_by_name("similarity").unwrap().as_primitive::<Float64Type>();
    for (row, url) in texts(&batch, "url").into_iter().enumerate() {
        // Further columns stay with their row through the random order.
        assert_eq!(similarity.value(row), if url.as_deref() == Some("u0") { 0.5 } else { 0.25 });
    }
}

#[test]
fn hugging_face_files_have_images_in_structs_and_names_in_the_footer() {
    let from = tempfile::tempdir().unwrap();
    let contents = [png(0), png(1), png(2)];
    let [a, b, c] = contents.each_ref().map(|content| Some(&content[..]));
    let images = |bytes: Vec<Option<&[u8]>>, is_there: Vec<bool>| -> ArrayRef {
        let rows = bytes.len();
        let parts = vec![
            (Arc::new(Field::new("bytes", DataType::Binary, true)), binaries(&bytes)),
            (Arc::new(Field::new("path", DataType::Utf8, true)), strings(&vec![Some("p.png"); rows])),
        ];
        let (fields, columns): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Arc::new(StructArray::new(fields.into(), columns, Some(NullBuffer::from(is_there))))
    };
    let text = r#"{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}"#;
    let labels = |labels: Vec<Option<i64>>| Arc::new(Int64Array::from(labels)) as ArrayRef;
    let train: Vec<(&str, ArrayRef)> = vec![
        ("image", images(vec![a, b, c, a, None], vec![true, true, true, false, true])),
        ("label", labels(vec![Some(1), Some(-1), Some(2), Some(0), Some(0)])),
        ("text", strings(&[Some("t"), None, None, None, None])),
    ];
    parquet(&from.path().join("data/train-00000-of-00001.parquet"), train, Some(text));
    let test: Vec<(&str, ArrayRef)> = vec![("image", images(vec![c], vec![true])), ("label", labels(vec![Some(0)]))];
    parquet(&from.path().join("data/test-00000-of-00001.parquet"), test, Some(text));
    let (to, report) = import_to(from.path(), &defaults());
    let report = report.unwrap();
    assert_eq!((report.kind.as_str(), report.rows, report.quarantined), ("huggingface_parquet", 3, 3));
    let name = |split: &str, row: usize| format!("data/{split}-00000-of-00001.parquet#{row}");
    let expected = [
        (name("test", 0), [None, some("cat"), some("test")]),
        (name("train", 0), [some("t"), some("dog"), some("train")]),
        (name("train", 1), [None, None, some("train")]),
    ];
    assert_eq!(words(to.path()), BTreeMap::from(expected));
    let bad = [(2, "refused"), (3, "missing"), (4, "missing")];
    assert_eq!(quarantine(to.path()), BTreeMap::from(bad.map(|(row, class)| (name("train", row), class.to_owned()))));
}

#[test]
fn any_parquet_with_a_binary_column_is_read_by_the_names_that_are_given() {
    let from = tempfile::tempdir().unwrap();
    let image = png(0);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("blob", Arc::new(LargeBinaryArray::from(vec![Some(&image[..])]))),
        ("thumb", binaries(&[None])),
        ("alt_text", strings(&[Some("words")])),
        ("when", strings(&[Some("dev")])),
    ];
    let file = from.path().join("mine.parquet");
    parquet(&file, columns, None);
    let error = import_to(&file, &defaults()).1.unwrap_err().to_string();
    assert!(error.contains("mine.parquet") && error.contains("candidates are blob, thumb"), "{error}");
    let error = import_to(&file, &with_columns(&["image=blob", "caption=alt_txet"])).1.unwrap_err().to_string();
    assert!(error.contains("did you mean \"alt_text\"?"), "{error}");
    let (to, report) = import_to(&file, &with_columns(&["image=blob", "caption=alt_text", "split=when"]));
    let report = report.unwrap();
    assert_eq!((report.kind.as_str(), report.rows), ("parquet", 1));
    assert_eq!(words(to.path())["mine.parquet#0"], [some("words"), None, some("validation")]);
    assert_eq!(report.ignored_columns, ["thumb: Binary has no place in a shard"]);
    // Our own shards are such files too, and importing them changes no image.
    let (again, report) = import_to(to.path(), &defaults());
    assert_eq!(report.unwrap().rows, 1);
    assert_eq!(hashes(again.path()), hashes(to.path()));
}

#[test]
fn damaged_parquet_is_an_error_that_names_the_file_and_never_a_panic() {
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("damaged.parquet");
    let content: Vec<Vec<u8>> = (0..20).map(png).collect();
    let images: Vec<Option<&[u8]>> = content.iter().map(|image| Some(&image[..])).collect();
    let captions = vec![Some("some words"); 20];
    parquet(&file, vec![("image", binaries(&images)), ("caption", strings(&captions))], None);
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(import_to(&file, &defaults()).1.unwrap().rows, 20);
    let named = |error: Error| {
        let text = error.to_string();
        assert!(text.contains("damaged.parquet") || text.contains("none of"), "{text}");
    };
    for cut in (0..whole.len()).step_by(whole.len() / 40 + 1) {
        std::fs::write(&file, &whole[..cut]).unwrap();
        named(import_to(&file, &defaults()).1.unwrap_err());
    }
    let mut refused = 0;
    for number in 0..300_u64 {
        let place = diptych::seed::draws(7, "damage", &[number]).next_u64();
        let mut bytes = whole.clone();
        let at = (place % bytes.len() as u64) as usize;
        bytes[at] ^= (place >> 56) as u8 | 1;
        std::fs::write(&file, &bytes).unwrap();
        if let Err(error) = import_to(&file, &defaults()).1 {
            named(error);
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused} of 300 changes were noticed");
}

#[test]
fn tables_of_paths_find_their_files_and_quarantine_what_is_missing() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "images/a.png", png(0));
    write(from.path(), "images/b.png", png(1));
    let absolute = from.path().join("images/b.png").display().to_string();
    write(
        from.path(),
        "lists/train.tsv",
        format!("filepath\ttitle\tscore\n../images/a.png\tone, two\t0.5\n{absolute}\tthree\t1.5\ngone.png\tfour\t2\n"),
    );
    let (to, report) = import_to(&from.path().join("lists/train.tsv"), &defaults());
    let report = report.unwrap();
    assert_eq!((report.kind.as_str(), report.rows, report.quarantined), ("paths", 2, 1));
    assert_eq!(words(to.path())["../images/a.png"], [some("one, two"), None, some("train")]);
    assert_eq!(quarantine(to.path()), BTreeMap::from([("gone.png".to_owned(), "missing".to_owned())]));
    let batch = read(&shards(to.path())[0]);
    let scores = batch.column_by_name("score").unwrap().as_primitive::<Float64Type>();
    assert_eq!(scores.values().iter().sum::<f64>(), 2.0);
    write(from.path(), "lists/train.tsv", "url\ttext\nhttps://x.org/a.jpg\tone\n");
    let error = import_to(&from.path().join("lists"), &defaults()).1.unwrap_err().to_string();
    assert!(error.contains("does not download from the web") && error.contains("img2dataset"), "{error}");
    write(from.path(), "list.jsonl", "{\"where\": \"images/a.png\", \"alt\": \"words\", \"class\": 7}\n");
    let (to, report) = import_to(&from.path().join("list.jsonl"), &with_columns(&["image=where", "caption=alt"]));
    assert_eq!(report.unwrap().rows, 1);
    assert_eq!(words(to.path())["images/a.png"], [some("words"), some("7"), None]);
}

#[test]
fn folders_of_parquet_that_lists_paths_are_read_as_such() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "images/a.png", png(0));
    write(from.path(), "images/b.png", png(1));
    write(from.path(), "lists/c.csv", "path,caption\n../images/b.png,second\n");
    let paths = strings(&[Some("../images/a.png"), Some("gone.png")]);
    let list = vec![("path", paths), ("caption", strings(&[Some("first"), None]))];
    parquet(&from.path().join("lists/a.parquet"), list, None);
    let settings = ImportSettings { read_as: Some(Kind::Paths), keep_order: true, ..defaults() };
    let (to, report) = import_to(&from.path().join("lists"), &settings);
    let report = report.unwrap();
    assert_eq!((report.kind.as_str(), report.rows, report.quarantined), ("paths", 2, 1));
    assert_eq!(all(to.path(), "caption"), [some("first"), some("second")]);
    assert!(report.skipped.is_empty(), "{:?}", report.skipped);
    let error = import_to(&from.path().join("images"), &settings).1.unwrap_err().to_string();
    assert!(error.contains("holds no .csv, .tsv, .jsonl or .parquet"), "{error}");
}

#[test]
fn columns_of_a_metadata_folder_can_be_named_and_class_folders_have_none() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "a.png", png(0));
    let error = import_to(from.path(), &with_columns(&["caption=alt"])).1.unwrap_err().to_string();
    assert!(error.contains("read as class_folders") && error.contains("--column"), "{error}");
    write(from.path(), "metadata.csv", "where,alt,caption\na.png,this,not this\n");
    let (to, report) = import_to(from.path(), &with_columns(&["image=where", "caption=alt"]));
    assert_eq!(report.unwrap().kind, "metadata_folder");
    assert_eq!(words(to.path())["a.png"][0], some("this"));
    let twice = import_to(from.path(), &with_columns(&["label=a", "label=b"])).1.unwrap_err().to_string();
    assert!(twice.contains("a and b"), "{twice}");
}

#[test]
fn a_data_set_is_replaced_by_archives_and_no_spool_is_left() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "a.tgz", gzip(&tar_of(&[("a.png", png(0)), ("b.png", png(1))])));
    let (to, report) = import_to(from.path(), &defaults());
    assert_eq!(report.unwrap().rows, 2);
    let settings = ImportSettings { overwrite: true, shard_rows: Some(1), ..defaults() };
    assert_eq!(imported(from.path(), to.path(), &settings).unwrap().shards.len(), 2);
    assert_eq!(names(to.path()), ["diptych.json", "part-00000.parquet", "part-00001.parquet"]);
}
