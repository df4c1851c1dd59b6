//! Import: what lies in a folder becomes shards that can be streamed, completely or not at all.
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt32Type, UInt64Type};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use datafusion::parquet::basic::{Compression, Encoding as PageEncoding};
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use diptych::error::Stage;
use diptych::ingest::manifest::Manifest;
use diptych::ingest::source::Source;
use diptych::ingest::{CHUNK_BYTES, ImportReport, ImportSettings, Kind, Progress, import, import_source};
use diptych::schema::Schema;
use diptych::synthetic::{self, Encoding, SyntheticSettings};
use diptych::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

fn quiet(_: &Progress) -> Result<()> {
    Ok(())
}

pub(crate) fn imported(from: &Path, to: &Path, settings: &ImportSettings) -> Result<ImportReport> {
    import(from, to, settings, &mut quiet)
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub(crate) fn shards(folder: &Path) -> Vec<PathBuf> {
    let manifest = Manifest::load(folder).unwrap().expect("a manifest");
    manifest.shards.iter().map(|shard| folder.join(&shard.file)).collect()
}

pub(crate) fn read(path: &Path) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(|batch| batch.unwrap()).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn footer(path: &Path) -> ParquetMetaData {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path).unwrap(), options).unwrap();
    builder.metadata().as_ref().clone()
}

pub(crate) fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|text| text.map(str::to_owned)).collect()
}

/// Rows of all shards, in order.
pub(crate) fn all(folder: &Path, column: &str) -> Vec<Option<String>> {
    shards(folder).iter().flat_map(|shard| texts(&read(shard), column)).collect()
}

/// source → (label, split), of all rows.
pub(crate) fn places(folder: &Path) -> BTreeMap<String, (Option<String>, Option<String>)> {
    let (labels, splits) = (all(folder, "label"), all(folder, "split"));
    let rows = all(folder, "source").into_iter().zip(labels.into_iter().zip(splits));
    rows.map(|(source, place)| (source.unwrap(), place)).collect()
}

pub(crate) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(crate) fn write(root: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub(crate) fn png(number: u8) -> Vec<u8> {
    let settings = SyntheticSettings { train_per_class: 26, side_pixels: 12, ..SyntheticSettings::default() };
    settings.read(usize::from(number)).unwrap()
}

#[test]
fn class_folders_become_rows_with_label_split_and_verified_bytes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    synthetic::write_class_folders(from.path(), 6, 16, 1).unwrap();
    write(from.path(), "train/disk/notes.txt", "no image");
    write(from.path(), "train/disk/.hidden.png", "no image");
    let report = imported(from.path(), to.path(), &ImportSettings::default()).unwrap();
    assert_eq!((report.rows, report.quarantined), (80, 0));
    assert_eq!(report.splits, BTreeMap::from([("test".to_owned(), 20), ("train".to_owned(), 60)]));
    assert_eq!(report.labels["ring"], 8);
    assert_eq!(report.skipped, BTreeMap::from([(".txt".to_owned(), 1), ("hidden".to_owned(), 1)]));
    assert_eq!(names(to.path()), ["diptych.json", "test-00000.parquet", "train-00001.parquet"]);
    let places = places(to.path());
    assert_eq!(places.len(), 80);
    assert_eq!(places["test/ring/000001.png"], (some("ring"), some("test")));
    for shard in shards(to.path()) {
        let batch = read(&shard);
        let schema = Schema::named("image_text").unwrap();
        let found = schema.columns_in(&batch.schema(), "shard").unwrap();
        assert!(schema.stored().all(|column| found.get(&column.name).is_some()), "import writes every column");
        let (images, sources) = (batch.column_by_name("image").unwrap(), texts(&batch, "source"));
        let lengths = batch.column_by_name("image_bytes").unwrap().as_primitive::<UInt64Type>();
        let hashes = batch.column_by_name("image_xxh3").unwrap().as_primitive::<UInt64Type>();
        let widths = batch.column_by_name("width").unwrap().as_primitive::<UInt32Type>();
        for (row, source) in sources.iter().enumerate() {
            let image = images.as_binary::<i32>().value(row);
            assert_eq!(image, std::fs::read(from.path().join(source.as_ref().unwrap())).unwrap());
            assert_eq!((lengths.value(row), hashes.value(row)), (image.len() as u64, xxh3_64(image)));
            assert_eq!(widths.value(row), 16);
        }
        assert!(texts(&batch, "format").iter().all(|format| format.as_deref() == Some("png")));
        assert_eq!(batch.column_by_name("caption").unwrap().null_count(), batch.num_rows());
    }
}

#[test]
fn the_manifest_describes_the_shards_as_they_are() {
    let to = tempfile::tempdir().unwrap();
    let settings = ImportSettings { shard_rows: Some(300), ..ImportSettings::default() };
    let images = SyntheticSettings { train_per_class: 70, test_per_class: 10, side_pixels: 12, ..Default::default() };
    let report = synthetic::write_shards(to.path(), &images, &settings).unwrap();
    let manifest = Manifest::load(to.path()).unwrap().unwrap();
    assert_eq!(manifest.shards, report.shards);
    let rows: Vec<u64> = manifest.shards.iter().map(|shard| shard.rows).collect();
    assert_eq!(rows, [100, 300, 300, 100]);
    assert_eq!((manifest.rows, manifest.order.as_str()), (800, "keyed"));
    let mut fingerprints = BTreeSet::new();
    for (shard, ordinal) in manifest.shards.iter().zip(0..) {
        let path = to.path().join(&shard.file);
        let footer = footer(&path);
        assert_eq!(shard.ordinal, ordinal);
        assert_eq!(shard.rows, footer.file_metadata().num_rows() as u64);
        assert_eq!(shard.bytes, std::fs::metadata(&path).unwrap().len());
        // Taken apart from the library: size, then metadata, length and magic from the end of the file.
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() - 8;
        let length = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let mut expected = blake3::Hasher::new();
        expected.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes[at - length..]);
        assert_eq!(shard.fingerprint, expected.finalize().to_hex().to_string());
        assert!(fingerprints.insert(shard.fingerprint.clone()));
        let keys = footer.file_metadata().key_value_metadata().unwrap();
        let value = |key: &str| keys.iter().find(|kv| kv.key == key).and_then(|kv| kv.value.clone());
        assert_eq!(value("diptych.schema"), some("image_text"));
        assert_eq!(value("diptych.schema_version"), some("1"));
        assert_eq!(value("diptych.content_blake3").unwrap().len(), 64);
    }
    let mut sorted = names(to.path());
    sorted.retain(|name| name.ends_with(".parquet"));
    assert_eq!(sorted, manifest.shards.iter().map(|shard| shard.file.clone()).collect::<Vec<_>>());
}

#[test]
fn blob_pages_are_small_plain_and_indexed_and_narrow_columns_have_statistics() {
    for (side_pixels, encoding, most_rows_per_page) in [(28, Encoding::Png, 4), (120, Encoding::Jpeg, 2)] {
        let to = tempfile::tempdir().unwrap();
        let images = SyntheticSettings { train_per_class: 30, test_per_class: 0, side_pixels, encoding, seed: 2 };
        synthetic::write_shards(to.path(), &images, &ImportSettings::default()).unwrap();
        let footer = footer(&shards(to.path())[0]);
        let rows: Vec<i64> = footer.row_groups().iter().map(|group| group.num_rows()).collect();
        assert_eq!(rows, [256, 44]);
        let offsets = footer.offset_index().expect("an offset index");
        for (group, offsets) in footer.row_groups().iter().zip(offsets) {
            for (column, index) in group.columns().iter().zip(offsets) {
                let name = column.column_path().string();
                if name != "image" {
                    assert!(column.statistics().is_some_and(|s| s.null_count_opt().is_some()), "{name}");
                    assert!(column.column_index_offset().is_some(), "{name}");
                    assert!(matches!(column.compression(), Compression::ZSTD(_)), "{name}");
                    if name == "width" {
                        let statistics = column.statistics().unwrap();
                        let width = side_pixels.to_le_bytes();
                        assert_eq!(statistics.min_bytes_opt(), Some(&width[..]));
                        assert_eq!(statistics.max_bytes_opt(), Some(&width[..]));
                    }
                    continue;
                }
                assert_eq!(column.compression(), Compression::UNCOMPRESSED);
                assert!(column.statistics().is_none());
                assert!(column.dictionary_page_offset().is_none());
                assert!(column.encodings().all(|e| matches!(e, PageEncoding::PLAIN | PageEncoding::RLE)));
                let starts: Vec<i64> = index.page_locations().iter().map(|page| page.first_row_index).collect();
                let ends = starts.iter().skip(1).copied().chain([group.num_rows()]);
                let most = starts.iter().zip(ends).map(|(start, end)| end - start).max().unwrap();
                assert!(most <= most_rows_per_page, "{most} rows in a page at side {side_pixels}");
            }
        }
    }
}

#[test]
fn row_groups_and_shards_are_bounded_in_bytes() {
    let to = tempfile::tempdir().unwrap();
    let images =
        SyntheticSettings { train_per_class: 40, test_per_class: 0, side_pixels: 128, ..SyntheticSettings::default() };
    let settings = ImportSettings { row_group_megabytes: 1, shard_megabytes: 3, ..ImportSettings::default() };
    let report = synthetic::write_shards(to.path(), &images, &settings).unwrap();
    assert!(report.image_bytes > 8 << 20, "{}", report.image_bytes);
    assert!(report.shards.len() as u64 > report.image_bytes / (3 << 20));
    for shard in shards(to.path()) {
        let groups = footer(&shard);
        let bytes: Vec<i64> = groups.row_groups().iter().map(|group| group.column(0).compressed_size()).collect();
        assert!(bytes.iter().all(|bytes| *bytes < (1 << 20) + (64 << 10)), "{bytes:?}");
        assert!(bytes.iter().sum::<i64>() < (3 << 20) + (128 << 10), "{bytes:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let from = tempfile::tempdir().unwrap();
    synthetic::write_class_folders(from.path(), 40, 16, 1).unwrap();
    let bytes = |seed, threads| {
        let to = tempfile::tempdir().unwrap();
        let settings = ImportSettings { seed, threads, shard_rows: Some(150), ..ImportSettings::default() };
        imported(from.path(), to.path(), &settings).unwrap();
        let names = names(to.path());
        names.iter().map(|name| (name.clone(), std::fs::read(to.path().join(name)).unwrap())).collect::<Vec<_>>()
    };
    let base = bytes(1, 1);
    assert_eq!(base.len(), 5);
    assert!(base == bytes(1, 4), "four threads write other bytes than one");
    assert!(base != bytes(2, 1), "another seed writes the same bytes");
}

#[test]
fn classes_are_mixed_unless_the_order_is_kept() {
    let images =
        SyntheticSettings { train_per_class: 300, test_per_class: 0, side_pixels: 8, ..SyntheticSettings::default() };
    let labels = |keep_order| {
        let to = tempfile::tempdir().unwrap();
        let settings = ImportSettings { keep_order, ..ImportSettings::default() };
        synthetic::write_shards(to.path(), &images, &settings).unwrap();
        all(to.path(), "label")
    };
    // Highest share of same-class pairs in any 256 consecutive rows.
    let worst = |labels: &[Option<String>]| {
        let share = |window: &[Option<String>]| {
            let mut counts = BTreeMap::new();
            window.iter().for_each(|label| *counts.entry(label).or_insert(0_u64) += 1);
            let pairs: u64 = counts.values().map(|n| n * (n - 1)).sum();
            pairs as f64 / (256.0 * 255.0)
        };
        labels.windows(256).map(share).fold(0.0, f64::max)
    };
    let full_shuffle = 299.0 / 2999.0;
    let mixed = labels(false);
    assert!(worst(&mixed) <= 1.2 * full_shuffle, "{} against {full_shuffle}", worst(&mixed));
    let kept = labels(true);
    assert_eq!(worst(&kept), 1.0);
    let mut sorted = mixed;
    sorted.sort();
    let mut sorted_kept = kept;
    sorted_kept.sort();
    assert_eq!(sorted, sorted_kept);
}

#[test]
fn quarantine_names_exactly_the_corrupt_files() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    synthetic::write_class_folders(from.path(), 20, 24, 3).unwrap();
    let good = std::fs::read(from.path().join("train/disk/000000.png")).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let jpeg = SyntheticSettings { encoding: Encoding::Jpeg, ..SyntheticSettings::default() }.read(0).unwrap();
    // The frame header (after ff c0: length, precision, height, width) carries no checksum that the change would break.
    let mut huge = jpeg.clone();
    let frame = huge.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    huge[frame + 5..frame + 9].fill(0xff);
    let damaged: [(&str, &[u8], &str); 7] = [
        ("train/disk/a empty.png", b"", "empty"),
        ("train/disk/b text.JPG", b"<html>404 not found</html>", "unknown_format"),
        ("train/ring/c header.png", &good[..20], "header"),
        ("train/ring/d cut.png", &good[..good.len() - 40], "decode"),
        ("train/ring/e 猫.png", &flipped, "decode"),
        ("test/ring/f huge.jpg", &huge, "too_many_pixels"),
        ("test/ring/g cut.jpeg", &jpeg[..jpeg.len() * 2 / 3], "decode"),
    ];
    for (name, bytes, _) in &damaged {
        write(from.path(), name, bytes);
    }
    write(from.path(), "test/ring/sound.jpeg", &jpeg);
    let report = imported(from.path(), to.path(), &ImportSettings::default()).unwrap();
    assert_eq!((report.rows, report.quarantined), (241, 7));
    let table = read(&to.path().join("quarantine.parquet"));
    let found: BTreeMap<_, _> = texts(&table, "source").into_iter().zip(texts(&table, "class")).collect();
    let expected = damaged.map(|(name, _, class)| (some(name), some(class)));
    assert_eq!(found, BTreeMap::from(expected));
    assert!(texts(&table, "message").iter().all(|message| message.as_ref().is_some_and(|m| !m.is_empty())));
    let sources: BTreeSet<String> = all(to.path(), "source").into_iter().map(Option::unwrap).collect();
    assert_eq!(sources.len(), 241);
    assert!(sources.contains("test/ring/sound.jpeg"));
    assert!(damaged.iter().all(|(name, ..)| !sources.contains(*name)));
    assert_eq!(Manifest::load(to.path()).unwrap().unwrap().quarantined, 7);
}

#[test]
fn without_the_decode_check_only_headers_are_judged() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = png(1);
    write(from.path(), "cat/good.png", &good);
    write(from.path(), "cat/cut.png", &good[..good.len() - 40]);
    write(from.path(), "cat/header.png", &good[..20]);
    let settings = ImportSettings { decode_check: false, ..ImportSettings::default() };
    let report = imported(from.path(), to.path(), &settings).unwrap();
    assert_eq!((report.rows, report.quarantined), (2, 1));
}

#[test]
fn metadata_of_every_kind_carries_captions_labels_splits_and_further_columns() {
    let rows = [("a 1.png", "eine Katze", "7", "train", 3), ("sub/b.png", "un chien", "9", "test", 4)];
    let csv = |root: &Path| {
        let lines =
            rows.map(|(file, caption, label, split, stars)| format!("{file},{caption},{label},{split},{stars}\n"));
        write(root, "metadata.csv", format!("file_name,caption,label,split,stars\n{}", lines.concat()));
    };
    let json_lines = |root: &Path| {
        let lines = rows.map(|(file, caption, label, split, stars)| {
            format!(
                "{{\"file_name\":{file:?},\"caption\":{caption:?},\"label\":{label},\"split\":{split:?},\"stars\":{stars}}}\n"
            )
        });
        write(root, "metadata.jsonl", lines.concat());
    };
    let parquet = |root: &Path| {
        csv(root);
        let reader = datafusion::arrow::csv::ReaderBuilder::new(std::sync::Arc::new(
            datafusion::arrow::csv::reader::Format::default()
                .with_header(true)
                .infer_schema(File::open(root.join("metadata.csv")).unwrap(), None)
                .unwrap()
                .0,
        ));
        let mut reader = reader.with_header(true).build(File::open(root.join("metadata.csv")).unwrap()).unwrap();
        let batch = reader.next().unwrap().unwrap();
        assert_eq!(batch.column_by_name("label").unwrap().data_type(), &DataType::Int64);
        std::fs::remove_file(root.join("metadata.csv")).unwrap();
        let file = File::create(root.join("metadata.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    };
    for kind in ["csv", "jsonl", "parquet"] {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (number, (file, ..)) in rows.iter().enumerate() {
            write(from.path(), file, png(number as u8));
        }
        write(from.path(), "unlisted.png", png(9));
        match kind {
            "csv" => csv(from.path()),
            "jsonl" => json_lines(from.path()),
            _ => parquet(from.path()),
        }
        let report = imported(from.path(), to.path(), &ImportSettings::default()).unwrap();
        assert_eq!((report.kind.as_str(), report.rows, report.unlisted), ("metadata_folder", 2, 1), "{kind}");
        let places = places(to.path());
        assert_eq!(places["a 1.png"], (some("7"), some("train")), "{kind}");
        assert_eq!(places["sub/b.png"], (some("9"), some("test")), "{kind}");
        let captions: BTreeSet<_> = all(to.path(), "caption").into_iter().flatten().collect();
        assert_eq!(captions, BTreeSet::from(["eine Katze".to_owned(), "un chien".to_owned()]), "{kind}");
        let test_shard = read(&shards(to.path())[0]);
        let stars = test_shard.column_by_name("stars").unwrap().as_primitive::<Int64Type>();
        assert_eq!(stars.values(), &[4], "{kind}");
    }
}

fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_be_bytes()));
    bytes.extend(values);
    bytes
}

#[test]
fn idx_files_become_lossless_pngs_with_named_labels() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pixels: Vec<u8> = (0..40 * 28 * 28).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(from.path(), "train-images-idx3-ubyte", idx(&[30, 28, 28], &pixels[..30 * 784]));
    write(from.path(), "train-labels-idx1-ubyte", idx(&[30], &[[9_u8, 0, 3].repeat(10)].concat()));
    write(from.path(), "t10k-images-idx3-ubyte", idx(&[10, 28, 28], &pixels[30 * 784..]));
    write(from.path(), "t10k-labels-idx1-ubyte", idx(&[10], &[8; 10]));
    let label_names = diptych::ingest::known_label_names("fashion_mnist").unwrap();
    let settings = ImportSettings { label_names, ..ImportSettings::default() };
    let report = imported(from.path(), to.path(), &settings).unwrap();
    assert_eq!((report.kind.as_str(), report.rows), ("idx", 40));
    let expected = [("ankle_boot", 10), ("bag", 10), ("dress", 10), ("t_shirt", 10)];
    assert_eq!(report.labels, BTreeMap::from(expected.map(|(name, rows)| (name.to_owned(), rows))));
    assert_eq!(report.splits["test"], 10);
    for shard in shards(to.path()) {
        let batch = read(&shard);
        for (row, source) in texts(&batch, "source").into_iter().enumerate() {
            let source = source.unwrap();
            let (file, index) = source.split_once('#').unwrap();
            let number = index.parse::<usize>().unwrap() + if file.starts_with("t10k") { 30 } else { 0 };
            let image = batch.column_by_name("image").unwrap().as_binary::<i32>().value(row);
            let decoded = image::load_from_memory(image).unwrap();
            assert_eq!(decoded.as_luma8().unwrap().as_raw(), &pixels[number * 784..(number + 1) * 784]);
        }
    }
}

#[test]
fn an_import_that_is_stopped_leaves_nothing() {
    let to = tempfile::tempdir().unwrap();
    let images = SyntheticSettings { train_per_class: 900, test_per_class: 0, side_pixels: 8, ..Default::default() };
    let settings = ImportSettings { shard_rows: Some(1000), ..ImportSettings::default() };
    let mut seen = 0;
    let stopped = import_source(&images, to.path(), &settings, &mut |progress| {
        if let Progress::Writing { shards, .. } = progress {
            seen = seen.max(*shards);
        }
        if seen > 2 { Err(Error::at(Stage::Import, "", "stop")) } else { Ok(()) }
    });
    assert!(stopped.unwrap_err().to_string().contains("stop"));
    assert!(seen > 2, "it was stopped before there was anything to leave");
    assert_eq!(names(to.path()), [""; 0]);
    synthetic::write_shards(to.path(), &images, &settings).unwrap();
}

const CRASH_FOLDER: &str = "DIPTYCH_TEST_CRASH_FOLDER";

/// Run by the test below in a process of its own: dies in the middle, without destructors.
#[test]
fn crashing_child() {
    let Some(to) = std::env::var_os(CRASH_FOLDER) else { return };
    let images = SyntheticSettings { train_per_class: 900, test_per_class: 0, side_pixels: 8, ..Default::default() };
    let settings = ImportSettings { shard_rows: Some(1000), ..ImportSettings::default() };
    let _ = import_source(&images, Path::new(&to), &settings, &mut |progress| {
        if matches!(progress, Progress::Writing { shards: 4.., .. }) {
            std::process::abort();
        }
        Ok(())
    });
}

#[test]
fn a_process_that_dies_leaves_complete_shards_and_no_manifest() {
    let to = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["crashing_child", "--test-threads=1"])
        .env(CRASH_FOLDER, to.path())
        .output()
        .unwrap();
    assert!(!child.status.success(), "the import finished before it could die");
    let left = names(to.path());
    assert!(!left.contains(&"diptych.json".to_owned()), "{left:?}");
    let complete: Vec<&String> = left.iter().filter(|name| name.ends_with(".parquet")).collect();
    assert!(complete.len() >= 4, "{left:?}");
    for shard in complete {
        assert_eq!(read(&to.path().join(shard)).num_rows(), 1000);
    }
    assert!(left.iter().any(|name| name.ends_with(".parquet.tmp")), "it died between two shards: {left:?}");
    // The next import begins anew: what was left is gone, and what it writes is what it would have written anyway.
    let images = SyntheticSettings { train_per_class: 1, test_per_class: 1, side_pixels: 8, ..Default::default() };
    synthetic::write_shards(to.path(), &images, &ImportSettings::default()).unwrap();
    assert_eq!(names(to.path()), ["diptych.json", "test-00000.parquet", "train-00001.parquet"]);
}

#[test]
fn a_data_set_is_replaced_only_when_told_to() {
    let to = tempfile::tempdir().unwrap();
    let images =
        |train_per_class| SyntheticSettings { train_per_class, side_pixels: 8, ..SyntheticSettings::default() };
    let settings = ImportSettings { shard_rows: Some(100), ..ImportSettings::default() };
    synthetic::write_shards(to.path(), &images(30), &settings).unwrap();
    let before = names(to.path());
    let refused = synthetic::write_shards(to.path(), &images(1), &settings).unwrap_err().to_string();
    assert!(refused.contains("--overwrite"), "{refused}");
    assert_eq!(names(to.path()), before);
    let settings = ImportSettings { overwrite: true, ..ImportSettings::default() };
    // A source that is not there must not cost the data set that is.
    assert!(imported(Path::new("no such folder"), to.path(), &settings).is_err());
    let empty = tempfile::tempdir().unwrap();
    assert!(imported(empty.path(), to.path(), &settings).is_err());
    assert_eq!(names(to.path()), before);
    synthetic::write_shards(to.path(), &images(1), &settings).unwrap();
    assert_eq!(names(to.path()), ["diptych.json", "test-00000.parquet", "train-00001.parquet"]);
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    write(&from, "notes.txt", "");
    let refused = |settings: &ImportSettings| imported(&from, &to, settings).unwrap_err().to_string();
    let settings = ImportSettings { shard_megabytes: 0, row_group_rows: 0, ..ImportSettings::default() };
    let error = refused(&settings);
    assert!(error.contains("shard_megabytes is 0") && error.contains("row_group_rows is 0"), "{error}");
    assert!(refused(&ImportSettings::default()).contains("holds no images"));
    write(&from, "cat/a.png", "no image");
    assert!(refused(&ImportSettings::default()).contains("none of 1 images can be used; the first is cat/a.png"));
    write(&from, "cat/b.png", png(0));
    let error = imported(&from, &from, &ImportSettings::default()).unwrap_err().to_string();
    assert!(error.contains("both source and destination"), "{error}");
    let named = ImportSettings { label_names: vec!["a".to_owned()], ..ImportSettings::default() };
    assert!(refused(&named).contains("label names"));
    write(&from, "raw/train-images-idx3-ubyte", "");
    assert!(refused(&ImportSettings::default()).contains("IDX files beside images"));
    assert!(!to.exists(), "what failed left an empty folder");
    // A destination inside the source is no source.
    std::fs::remove_dir_all(from.join("raw")).unwrap();
    let inside = from.join("shards");
    assert_eq!(imported(&from, &inside, &ImportSettings::default()).unwrap().rows, 1);
    let settings = ImportSettings { overwrite: true, ..ImportSettings::default() };
    assert_eq!(imported(&from, &inside, &settings).unwrap().rows, 1);
}

/// A megabyte of nothing each; counts what is read.
struct Megabytes {
    images: usize,
    read: AtomicU64,
}

impl Source for Megabytes {
    fn kind(&self) -> &'static str {
        "megabytes"
    }
    fn images(&self) -> usize {
        self.images
    }
    fn name(&self, image: usize) -> Cow<'_, str> {
        Cow::Owned(image.to_string())
    }
    fn expected_bytes(&self, _image: usize) -> u64 {
        1 << 20
    }
    fn read(&self, _image: usize) -> Result<Vec<u8>> {
        self.read.fetch_add(1, Ordering::SeqCst);
        Ok(vec![0; 1 << 20])
    }
    fn split(&self, _image: usize) -> Option<&str> {
        None
    }
    fn label(&self, _image: usize) -> Option<Cow<'_, str>> {
        None
    }
}

#[test]
fn images_are_not_imported_where_audio_was_asked_for() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "cat/1.png", png(1));
    write(from.path(), "cat/2.png", png(2));
    let settings = ImportSettings { read_as: Some(Kind::AudioFolder), ..ImportSettings::default() };
    let error = |remedy: &str| {
        let error = imported(from.path(), to.path(), &settings).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("holds no audio (wav,") && text.contains(remedy), "{text}");
        assert!(names(to.path()).is_empty(), "something was written");
    };
    error("leave --as audio_folder away to import its 2 images");
    write(from.path(), "metadata.csv", "file_name,label\ncat/1.png,cat\n");
    error("import its 2 images");
    std::fs::remove_dir_all(from.path().join("cat")).unwrap();
    error("name a folder that holds some");
}

#[test]
fn reading_is_at_most_two_chunks_ahead_of_writing() {
    let to = tempfile::tempdir().unwrap();
    let source = Megabytes { images: 300, read: AtomicU64::new(0) };
    let chunk = CHUNK_BYTES >> 20;
    let mut calls = 0;
    let mut before = 0;
    let refused = import_source(&source, to.path(), &ImportSettings::default(), &mut |progress| {
        if let Progress::Writing { done, .. } = progress {
            // Between two calls one chunk is written while one is read: more than that is never held.
            let ahead = source.read.load(Ordering::SeqCst) - before;
            assert!(ahead <= 2 * chunk, "{ahead} MB were read ahead");
            before = *done;
            calls += 1;
        }
        Ok(())
    });
    assert!(refused.unwrap_err().to_string().contains("none of 300 images"));
    assert!(calls >= 300 / chunk, "{calls} calls");
    assert_eq!(source.read.load(Ordering::SeqCst), 300);
}

/// One of whose images cannot be read.
struct BrokenDisk(SyntheticSettings);

impl Source for BrokenDisk {
    fn kind(&self) -> &'static str {
        "broken_disk"
    }
    fn images(&self) -> usize {
        self.0.images()
    }
    fn name(&self, image: usize) -> Cow<'_, str> {
        self.0.name(image)
    }
    fn expected_bytes(&self, image: usize) -> u64 {
        self.0.expected_bytes(image)
    }
    fn read(&self, image: usize) -> Result<Vec<u8>> {
        match image {
            77 => Err(Error::at(Stage::Import, self.name(image), "cannot be read").caused_by("input/output error")),
            _ => self.0.read(image),
        }
    }
    fn split(&self, image: usize) -> Option<&str> {
        self.0.split(image)
    }
    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        self.0.label(image)
    }
}

#[test]
fn what_cannot_be_read_stops_the_import_and_is_no_bad_image() {
    let to = tempfile::tempdir().unwrap();
    let source = BrokenDisk(SyntheticSettings { train_per_class: 20, side_pixels: 8, ..SyntheticSettings::default() });
    let error = import_source(&source, to.path(), &ImportSettings::default(), &mut quiet).unwrap_err();
    assert!(error.report().contains("input/output error"), "{}", error.report());
    assert_eq!(names(to.path()), [""; 0]);
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "cat/a.png", png(0));
    std::os::unix::fs::symlink("nowhere", from.path().join("cat/c.png")).unwrap();
    let report = imported(from.path(), to.path(), &ImportSettings::default()).unwrap();
    assert_eq!((report.rows, report.quarantined), (1, 1), "a link that leads nowhere is one image less");
}
