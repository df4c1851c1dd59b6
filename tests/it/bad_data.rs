//! Training over damaged shards as a process: what is replaced, listed, judged, and what a full disk does to the table.
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, UInt64Array},
        compute::cast,
        datatypes::{DataType, Field, Schema, UInt64Type},
    },
    parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
};
use diptych::{
    ingest::ImportSettings,
    synthetic::{Encoding, SyntheticSettings, write_shards},
};
use xxhash_rust::xxh3::xxh3_64;

use super::cli::{fails, lines, ok};

const ROWS: u64 = 600;
const BATCH: u64 = 20;
/// 1 % of the rows; damage by turns: header, first scan rows, bytes that are not those imported.
const BAD: [u64; 6] = [7, 101, 250, 333, 480, 599];

/// Shards whose `BAD` rows, counted over all of them, are damaged.
struct Damaged {
    folder: tempfile::TempDir,
}

fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(|batch| batch.unwrap()).collect()
}

fn damage(encoded: &mut [u8], kind: usize) {
    let scan = encoded.windows(2).position(|marker| marker == [0xff, 0xda]).expect("a JPEG has a scan");
    match kind {
        0 => encoded[..8].fill(0),
        1 => encoded[scan + 16..].fill(0xff),
        _ => encoded[scan + 16] ^= 1,
    }
}

/// Rewrites a shard whose first row is number `first` of the set; returns how many rows it has.
fn rewrite(path: &Path, first: u64) -> u64 {
    let mut rows = 0;
    let mut batches = Vec::new();
    for batch in read(path) {
        let place = |name: &str| batch.schema().index_of(name).unwrap();
        let images = cast(batch.column(place("image")), &DataType::Binary).unwrap();
        let mut images: Vec<Vec<u8>> = images.as_binary::<i32>().iter().map(|image| image.unwrap().to_vec()).collect();
        let hashes = batch.column(place("image_xxh3")).as_primitive::<UInt64Type>();
        let mut hashes: Vec<u64> = hashes.values().to_vec();
        for (kind, bad) in BAD.iter().enumerate() {
            let Some(row) = bad.checked_sub(first + rows).filter(|row| *row < images.len() as u64) else { continue };
            let row = row as usize;
            damage(&mut images[row], kind % 3);
            if kind % 3 != 2 {
                // The decoder is to find it, not the hash.
                hashes[row] = xxh3_64(&images[row]);
            }
        }
        rows += images.len() as u64;
        let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns[place("image")] = Arc::new(BinaryArray::from_iter_values(&images));
        columns[place("image_xxh3")] = Arc::new(UInt64Array::from(hashes));
        fields[place("image")] = Arc::new(Field::new("image", DataType::Binary, false));
        batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap());
    }
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batches[0].schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    rows
}

impl Damaged {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shards = folder.path().join("shards");
        let images = SyntheticSettings {
            train_per_class: ROWS as usize / 10,
            test_per_class: 0,
            side_pixels: 28,
            seed: 4,
            encoding: Encoding::Jpeg,
        };
        write_shards(&shards, &images, &ImportSettings { shard_rows: Some(200), ..ImportSettings::default() }).unwrap();
        // What the manifest says of them holds no longer.
        fs::remove_file(shards.join("diptych.json")).unwrap();
        let mut paths: Vec<PathBuf> = fs::read_dir(&shards).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
        paths.retain(|path| !path.ends_with("quarantine.parquet"));
        paths.sort();
        let rows = paths.iter().fold(0, |first, path| first + rewrite(path, first));
        assert_eq!((rows, paths.len()), (ROWS, 3));
        Self { folder }
    }

    fn run(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn words(&self, run: &Path, sets: &[&str]) -> Vec<String> {
        let shards = format!("scan.shards=[{:?}]", self.folder.path().join("shards").to_str().unwrap());
        let batch_rows = format!("prefetch.batch_rows={BATCH}");
        let small = [
            shards.as_str(),
            &batch_rows,
            "prefetch.capacity_megabytes=1",
            "prefetch.pixel_digest=true",
            "scan.lanes=2",
            "scan.shuffle_window_rows=100",
            "scan.max_bad_share=0.02",
            "method.simclr.encoder.convnet.base_width=4",
            "train.report_every_steps=1",
            "train.epochs=1",
        ];
        let sets = small.iter().chain(sets).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        let words = ["train", "simclr_small", "--run", run.to_str().unwrap()].map(str::to_owned);
        words.into_iter().chain(sets).collect()
    }
}

fn refs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// Rows of the quarantine table, counted over the shards.
fn listed(run: &Path) -> Vec<u64> {
    let mut rows = Vec::new();
    for batch in read(&run.join("quarantine/part-00000.parquet")) {
        let ids = batch.column_by_name("sample_id").unwrap().as_primitive::<UInt64Type>();
        rows.extend(ids.values().iter().map(|id| (id >> 40) * 200 + (id & ((1 << 40) - 1))));
        assert_eq!(ids.null_count(), 0);
    }
    rows
}

fn digests(run: &Path) -> Vec<String> {
    let digest = |line: &serde_json::Value| line["batch_digest"].as_str().map(str::to_owned);
    lines(&run.join("metrics.jsonl")).iter().filter_map(digest).collect()
}

#[test]
fn one_percent_of_damaged_images_is_replaced_alike_and_listed_exactly() {
    let data = Damaged::new();
    let (first, second) = (data.run("first"), data.run("second"));
    for (run, threads) in [(&first, "augment.decode_threads=1"), (&second, "augment.decode_threads=4")] {
        ok(&refs(&data.words(run, &[threads])));
        let rows = listed(run);
        assert_eq!(rows.len(), BAD.len(), "each once: {rows:?}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(BAD));
        let last = lines(&run.join("metrics.jsonl")).pop().unwrap();
        assert_eq!(last["bad_items"], BAD.len());
    }
    assert_eq!(digests(&first).len() as u64, ROWS / BATCH);
    assert_eq!(digests(&first), digests(&second), "other substitutes");
}

#[test]
fn above_the_share_a_run_stops_or_is_judged_at_its_end() {
    let data = Damaged::new();
    // 1,000 items are reached in the second epoch.
    let long = data.run("long");
    let sets = ["scan.max_bad_share=0.005", "train.epochs=4"];
    let stderr = fails(1, &refs(&data.words(&long, &sets)));
    assert!(stderr.contains("scan.max_bad_share = 0.005") && stderr.contains("of 1000 samples"), "{stderr}");
    assert!(digests(&long).len() <= 50, "went on for {} batches", digests(&long).len());
    assert!(long.join("checkpoints/step-30").is_dir(), "the epoch that ended has its checkpoint");

    let short = data.run("short");
    let output = super::cli::run(&refs(&data.words(&short, &["scan.max_bad_share=0.005"])));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("6 of 600 samples cannot be used"), "{stderr}");
    assert!(short.join("checkpoints/step-30").is_dir() && short.join("report.html").is_file());
}

#[test]
fn a_run_that_ends_early_lists_what_it_trained_on_and_no_more() {
    let data = Damaged::new();
    let (whole, part) = (data.run("whole"), data.run("part"));
    ok(&refs(&data.words(&whole, &[])));
    let bad_by_step: Vec<u64> =
        lines(&whole.join("metrics.jsonl")).iter().map(|line| line["bad_items"].as_u64().unwrap()).collect();
    // The queue holds everything: the data half is done long before the trainer.
    for step in [3, 12, 21] {
        let _ = fs::remove_dir_all(&part);
        let max_steps = format!("train.max_steps={step}");
        let words = data.words(&part, &[&max_steps, "prefetch.capacity_megabytes=64"]);
        let output = super::cli::run(&refs(&words));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let expected = bad_by_step[step - 1];
        // Substitutes that were bad themselves are listed too, but none of these runs has one.
        assert_eq!(listed(&part).len() as u64, expected, "after {step} steps");
        let told = format!("{expected} bad rows were replaced");
        assert!(stderr.contains(&told) || expected == 0, "{stderr}");
        ok(&["train", "--resume", part.to_str().unwrap(), "--set", "train.max_steps=30"]);
        assert_eq!(listed(&part).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(BAD));
        assert_eq!(digests(&part), digests(&whole));
    }
}

#[test]
fn a_table_that_cannot_be_written_stops_the_run_at_its_last_checkpoint() {
    let data = Damaged::new();
    let run = data.run("run");
    ok(&refs(&data.words(&run, &["train.max_steps=1", "train.checkpoint_every_steps=1", "train.keep_checkpoints=99"])));
    let before = listed(&run).len();
    let in_the_way = run.join("quarantine/part-00000.parquet.tmp");
    fs::create_dir(&in_the_way).unwrap();
    let name = run.to_str().unwrap();
    let resume = ["train", "--resume", name, "--set", "train.max_steps=30"];
    let stderr = fails(1, &resume);
    assert!(stderr.contains("quarantine") && stderr.contains("cannot be written"), "{stderr}");
    // No checkpoint names rows that the table has not.
    let newest = (1..=30).rev().find(|step| run.join(format!("checkpoints/step-{step}")).is_dir()).unwrap();
    let state = fs::read_to_string(run.join(format!("checkpoints/step-{newest}/state.json"))).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["progress"]["quarantine_offset"], before, "step {newest}");
    fs::remove_dir(&in_the_way).unwrap();
    ok(&resume);
    assert_eq!(listed(&run).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(BAD));
}
