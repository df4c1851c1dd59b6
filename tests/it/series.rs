//! Series from files to batches: import, the fetch of lists, windows, bad rows, resume.
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array},
        datatypes::{Float32Type, Float64Type, Int16Type, UInt32Type, UInt64Type},
    },
    parquet::arrow::ArrowWriter,
};
use diptych::{
    augment::recipe::AugmentSettings,
    batch::series::SeriesBatch,
    ingest::{ImportSettings, MOST_ROW_NUMBERS},
    pair::{ContextFutureSettings, Numbers, context_future::ContextFuture},
    scan::{ScanSettings, World, epoch::EpochPlan, order::Order, quarantine::Quarantine},
    select::select::select,
};

use super::{
    import::{imported, read, shards, texts},
    opened::Opened,
    scan::{runtime, try_run},
};

const RATE: u32 = 8_000;
const SPEAKERS: [&str; 3] = ["anna", "bert", "cleo"];

/// A WAV file of one channel and 16 bits.
fn wav(samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut file = b"RIFF".to_vec();
    file.extend_from_slice(&(36 + data.len() as u32).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend_from_slice(&RATE.to_le_bytes());
    file.extend_from_slice(&(2 * RATE).to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data");
    file.extend_from_slice(&(data.len() as u32).to_le_bytes());
    file.extend_from_slice(&data);
    file
}

/// Sample `step` of recording `number`: tells both, so that a window says where it is from.
fn sample(number: usize, step: usize) -> i16 {
    (number * 200 + step % 200) as i16 - 16_000
}

fn recording(number: usize) -> Vec<i16> {
    (0..400 + 10 * (number % 7)).map(|step| sample(number, step)).collect()
}

/// A folder of `count` recordings of three speakers.
pub(crate) fn recordings(folder: &Path, count: usize) {
    let mut table = "file_name,label,group,split,start_time,take\n".to_owned();
    for number in 0..count {
        fs::write(folder.join(format!("{number:03}.wav")), wav(&recording(number))).expect("a file");
        let (label, speaker) = (number % 10, SPEAKERS[number % 3]);
        table.push_str(&format!("{number:03}.wav,{label},{speaker},train,2024-05-01T00:00:0{label}Z,{number}\n"));
    }
    fs::write(folder.join("metadata.csv"), table).expect("a table");
}

/// 96 recordings in small row groups.
fn imported_recordings() -> Opened {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("from");
    fs::create_dir(&from).expect("a folder");
    recordings(&from, 96);
    let settings = ImportSettings { row_group_rows: 12, shard_rows: Some(40), ..ImportSettings::default() };
    imported(&from, &folder.path().join("to"), &settings).expect("an import");
    Opened::new("time_series", folder, "to", &[])
}

fn planned(data: &Opened, sql: &str, pair: &str) -> EpochPlan {
    let pair: ContextFutureSettings = toml::from_str(pair).expect("settings");
    let kernel = ContextFuture::training(&pair, &AugmentSettings::default()).expect("a kernel");
    data.epochs(sql, Arc::new(kernel), pair.group)
}

const EVERY: &str = "SELECT sample_id FROM shards";

fn epoch(plan: &EpochPlan, number: u64, first: u64) -> Vec<RecordBatch> {
    try_run(plan, number, first, |batch| batch).expect("an epoch")
}

fn series(batch: &RecordBatch) -> SeriesBatch {
    SeriesBatch::from_record_batch(batch).expect("windows")
}

#[test]
fn audio_becomes_rows_that_say_what_they_are() {
    let data = imported_recordings();
    let folder = data.folder.path().join("to");
    let mut seen = BTreeSet::new();
    for shard in shards(&folder) {
        let batch = read(&shard);
        let lists = batch.column_by_name("samples").expect("samples").as_list::<i32>();
        let sources = texts(&batch, "source");
        let number = |name: &str, row: usize| batch.column_by_name(name).expect("a column").slice(row, 1);
        for (row, source) in sources.iter().enumerate() {
            let index: usize = source.as_deref().expect("a source")[..3].parse().expect("a number");
            let samples = lists.value(row).as_primitive::<Int16Type>().values().to_vec();
            assert_eq!(samples, recording(index));
            assert_eq!(number("steps", row).as_primitive::<UInt64Type>().value(0), samples.len() as u64);
            assert_eq!(number("samples_bytes", row).as_primitive::<UInt64Type>().value(0), 2 * samples.len() as u64);
            assert_eq!(number("channels", row).as_primitive::<UInt32Type>().value(0), 1);
            assert_eq!(number("rate_hz", row).as_primitive::<Float64Type>().value(0), 8_000.0);
            let text = |name: &str| texts(&batch, name)[row].clone();
            assert_eq!(text("group").as_deref(), Some(SPEAKERS[index % 3]));
            assert_eq!(text("label"), Some((index % 10).to_string()));
            assert!(batch.column_by_name("start_time").expect("a column").is_valid(row));
            assert!(batch.column_by_name("take").is_some(), "further columns are carried");
            seen.insert(index);
        }
    }
    assert_eq!(seen.len(), 96);
}

#[test]
fn windows_are_stretches_of_their_series_and_rows_say_which_are_of_one() {
    let data = imported_recordings();
    let pair = "window_steps = 150\nwindows_per_series = 3\nhop_steps = 5\ngroup = \"group\"";
    let plan = EpochPlan { batch_rows: 8, ..planned(&data, EVERY, pair) };
    let batches = epoch(&plan, 0, 0);
    assert_eq!(batches.len(), 12);
    for batch in &batches {
        let found = series(batch);
        assert_eq!((found.rows, found.channels, found.steps), (24, 1, 150));
        let expected: Vec<u32> = (0..8).flat_map(|sequence| [sequence; 3]).collect();
        assert_eq!(found.sequences, expected);
        let groups = found.groups.as_deref().expect("groups");
        let speakers = batch.column_by_name("group").expect("the shards' own").as_string::<i32>();
        let mut starts = BTreeSet::new();
        for (row, window) in found.windows.chunks(150).enumerate() {
            let values: Vec<i32> = window.iter().map(|x| (x * 32_768.0) as i32 + 16_000).collect();
            let number = values[0] / 200;
            let first = values[0] % 200;
            assert!(values.iter().enumerate().all(|(at, value)| *value == number * 200 + (first + at as i32) % 200));
            assert_eq!(first % 5, 0);
            assert_eq!(speakers.value(row), SPEAKERS[number as usize % 3]);
            let of_group = groups
                .iter()
                .zip(speakers.iter())
                .all(|(group, speaker)| (*group == groups[row]) == (speaker == Some(speakers.value(row))));
            assert!(of_group, "groups number the speakers");
            starts.insert((number, first));
        }
        assert!(starts.len() > 20, "windows of a series are at different places");
    }
}

#[test]
fn threads_change_nothing_and_an_epoch_goes_on_at_any_batch() {
    let data = imported_recordings();
    let plan = planned(&data, EVERY, "window_steps = 100\nwindows_per_series = 2");
    let whole = epoch(&plan, 3, 0);
    for decode_threads in [1, 5] {
        assert_eq!(epoch(&EpochPlan { decode_threads, ..plan.clone() }, 3, 0), whole);
    }
    for first in [1, 4] {
        assert_eq!(epoch(&plan, 3, first as u64), whole[first..]);
    }
    assert_ne!(series(&epoch(&plan, 4, 0)[0]).windows, series(&whole[0]).windows);
    let ranks: Vec<_> =
        (0..2).map(|rank| epoch(&EpochPlan { world: World { rank, size: 2 }, ..plan.clone() }, 3, 0)).collect();
    for (number, batch) in whole.iter().enumerate() {
        let windows = |batch: &RecordBatch| -> BTreeSet<Vec<u32>> {
            series(batch).windows.chunks(100).map(|window| window.iter().map(|x| x.to_bits()).collect()).collect()
        };
        let union: BTreeSet<Vec<u32>> = ranks.iter().flat_map(|rank| windows(&rank[number])).collect();
        assert_eq!(union, windows(batch));
    }
}

#[test]
fn short_and_damaged_series_are_replaced_and_listed() {
    let data = imported_recordings();
    // A seventh of them has 400 steps, and so on: 410 leaves those out.
    let quarantine = Quarantine::in_memory();
    let plan = EpochPlan { quarantine: Some(quarantine.clone()), ..planned(&data, EVERY, "window_steps = 410") };
    let short = (0..96).filter(|number| number % 7 == 0).count() as u64;
    for batch in epoch(&plan, 0, 0) {
        let found = series(&batch);
        assert_eq!(found.rows, 16);
        assert_eq!(found.sequences.iter().collect::<BTreeSet<_>>().len(), 16, "no series is in a batch twice");
    }
    assert!(quarantine.state().rows >= short, "{:?}", quarantine.state());
    let strict = EpochPlan { scan: ScanSettings { max_bad_share: 0.0, ..plan.scan.clone() }, ..plan };
    let told =
        runtime().block_on(select(&data.shards, &data.schema, "SELECT sample_id FROM shards WHERE steps >= 410"));
    assert_eq!(told.expect("a selection").0.items(), 96 - short);
    drop(strict);
}

/// Each series once for every window of 100 steps at a hop of 50.
const EVERY_WINDOW: &str = "SELECT sample_id FROM (SELECT sample_id, unnest(range(0, CAST((steps - 100) / 50 + 1 AS BIGINT))) \
                            FROM shards)";

#[test]
fn a_selection_that_repeats_series_sees_every_window_once_in_random_order() {
    let data = imported_recordings();
    let plan = EpochPlan {
        drop_last: false,
        ..planned(&data, EVERY_WINDOW, "window_steps = 100\nhop_steps = 50\noffsets = \"successive\"")
    };
    let expected: usize = (0..96).map(|number| (recording(number).len() - 100) / 50 + 1).sum();
    let mut seen = BTreeSet::new();
    let (mut firsts, mut neighbours) = (vec![], 0);
    for batch in epoch(&plan, 2, 0) {
        let of = |name: &str| batch.column_by_name(name).expect("a column");
        let occurrences = of("occurrence").as_primitive::<UInt32Type>().values().to_vec();
        for (window, occurrence) in series(&batch).windows.chunks(100).zip(occurrences) {
            let values: Vec<i32> = window.iter().map(|x| (x * 32_768.0) as i32 + 16_000).collect();
            let (number, start) = (values[0] / 200, 50 * occurrence as i32);
            let is_stretch = |(at, value): (usize, &i32)| *value == number * 200 + (start + at as i32) % 200;
            assert!(values.iter().enumerate().all(is_stretch), "series {number} from {start} on");
            assert!(start as usize + 100 <= recording(number as usize).len());
            assert!(seen.insert((number, start)));
            neighbours += usize::from(firsts.last().is_some_and(|last| *last == number));
            firsts.push(number);
        }
    }
    assert_eq!(seen.len(), expected);
    assert!(neighbours * 5 < expected, "{neighbours} windows follow one of their own series");
}

#[test]
fn series_that_stay_in_memory_are_the_same_and_are_not_read_again() {
    let data = imported_recordings();
    let pair = "window_steps = 100\nscale = \"series_rms\"\ngroup = \"group\"";
    let stay = planned(&data, EVERY, pair);
    let anew = planned(&data, EVERY, pair);
    let anew = EpochPlan { scan: ScanSettings { kept_megabytes: 0, ..anew.scan.clone() }, ..anew };
    // Room for about half of them.
    let some = EpochPlan { memory_bytes: 210_000, ..planned(&data, EVERY, pair) };
    let read = |plan: &EpochPlan, number: u64| {
        let before = data.shards.store.wire();
        (epoch(plan, number, 0), data.shards.store.wire().since(before).blob_bytes)
    };
    for number in 0..4 {
        let (batches, all) = read(&anew, number);
        let (of_stay, bytes_of_stay) = read(&stay, number);
        let (of_some, bytes_of_some) = read(&some, number);
        assert_eq!((&of_stay, &of_some), (&batches, &batches), "epoch {number}");
        match number {
            0 => assert!(bytes_of_stay > 0 && bytes_of_some > 0),
            _ => assert!(
                bytes_of_stay == 0 && bytes_of_some * 4 > all && bytes_of_some < all,
                "{bytes_of_some} of {all}"
            ),
        }
    }
    let kept = |plan: &EpochPlan| (plan.handed_on.kept.bytes(), plan.memory().expect("enough").kept_bytes);
    let numbers: usize = (0..96).map(|number| recording(number).len()).sum();
    assert_eq!(kept(&stay).0, 2 * numbers as u64 + 96 * 128);
    let (bytes, limit) = kept(&some);
    assert!(bytes <= limit && bytes + 2_000 > limit, "{bytes} of {limit}");
    assert_eq!(kept(&anew), (0, 0));
    let evaluation = EpochPlan { order: Order::Sequential, ..planned(&data, EVERY, pair) };
    assert_eq!(kept(&evaluation).1, 0, "what is read once does not stay");
}

#[test]
fn a_damaged_series_is_bad_in_each_of_its_windows_whatever_was_kept_of_it() {
    let data = imported_recordings();
    let path = shards(&data.folder.path().join("to")).remove(0);
    let whole = read(&path);
    let at = whole.schema().index_of("samples_xxh3").expect("hashes");
    let mut hashes = whole.column(at).as_primitive::<UInt64Type>().values().to_vec();
    hashes[5] ^= 1;
    let damaged = whole.column_by_name("samples").expect("samples").as_list::<i32>().value(5);
    let damaged = (i32::from(damaged.as_primitive::<Int16Type>().value(0)) + 16_000) / 200;
    let mut columns = whole.columns().to_vec();
    columns[at] = Arc::new(UInt64Array::from(hashes));
    let batch = RecordBatch::try_new(whole.schema(), columns).expect("columns");
    let folder = tempfile::tempdir().expect("a folder");
    let file = File::create(folder.path().join("a.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
    let data = Opened::new("time_series", folder, "a.parquet", &[]);
    let quarantine = Quarantine::in_memory();
    let plan = EpochPlan {
        quarantine: Some(quarantine.clone()),
        drop_last: false,
        ..planned(&data, EVERY_WINDOW, "window_steps = 100\nhop_steps = 50\noffsets = \"successive\"")
    };
    let windows = (recording(damaged as usize).len() - 100) / 50 + 1;
    for number in 0..2 {
        let mut replaced = 0;
        for batch in epoch(&plan, number, 0) {
            for window in series(&batch).windows.chunks(100) {
                assert_ne!(((window[0] * 32_768.0) as i32 + 16_000) / 200, damaged);
            }
            replaced += batch.column_by_name("replaced").expect("a column").as_boolean().true_count();
        }
        assert_eq!(replaced, windows, "epoch {number}");
    }
    assert_eq!(quarantine.state().rows, 1, "each bad row comes into the table once");
}

#[test]
fn evaluation_leaves_bad_series_out_and_pads_short_ones() {
    let data = imported_recordings();
    let pair: ContextFutureSettings = toml::from_str("window_steps = 430\nevaluation_windows = 2").expect("settings");
    let kernel = Arc::new(ContextFuture::evaluation(&pair).expect("a kernel"));
    let plan = EpochPlan {
        kernel,
        order: Order::Sequential,
        drop_last: false,
        extra_columns: vec!["label".to_owned(), "group".to_owned()],
        ..planned(&data, EVERY, "window_steps = 430")
    };
    let batches = epoch(&plan, 0, 0);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 192);
    let found = series(&batches[0]);
    assert_eq!(found.sequences[..4], [0, 0, 1, 1]);
    assert!(found.groups.is_none());
    assert!(found.windows.chunks(430).any(|window| window[429] == 0.0), "padded");
}

#[test]
fn long_series_become_rows_of_bounded_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("from");
    fs::create_dir(&from).expect("a folder");
    let long: Vec<i16> = (0..MOST_ROW_NUMBERS + 1_000).map(|step| (step % 30_000) as i16).collect();
    fs::write(from.join("long.wav"), wav(&long)).expect("a file");
    fs::write(from.join("cut.wav"), &wav(&long[..5_000])[..7_000]).expect("a file");
    let settings = ImportSettings { keep_order: true, numbers: Numbers::F32, ..ImportSettings::default() };
    let report = imported(&from, &folder.path().join("to"), &settings).expect("an import");
    assert_eq!((report.rows, report.quarantined, report.samples.as_str()), (2, 1, "series"));
    let batch = read(&shards(&folder.path().join("to"))[0]);
    let steps =
        |name: &str| batch.column_by_name(name).expect("a column").as_primitive::<UInt64Type>().values().to_vec();
    assert_eq!(steps("steps"), [MOST_ROW_NUMBERS as u64, 1_000]);
    assert_eq!(steps("start_step"), [0, MOST_ROW_NUMBERS as u64]);
    let lists = batch.column_by_name("samples").expect("samples").as_list::<i32>();
    let second = lists.value(1);
    let expected = f32::from(long[MOST_ROW_NUMBERS + 7]) / 32_768.0;
    assert_eq!(second.as_primitive::<Float32Type>().value(7), expected);
}

#[test]
fn lists_of_others_are_read_where_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = (0..40).map(|row| Some((0..60).map(move |step| (step != 7).then_some(f64::from(row * 100 + step / 2)))));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("signal", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows))),
        ("channels", Arc::new(UInt32Array::from(vec![2; 40]))),
        ("class", Arc::new(StringArray::from_iter_values((0..40).map(|row| format!("{}", row % 4))))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    let file = File::create(folder.path().join("a.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
    let data = Opened::new("time_series", folder, "a.parquet", &[("samples", "signal"), ("label", "class")]);
    let plan = planned(&data, EVERY, "window_steps = 30\nchannels = 2");
    let mut rows = BTreeSet::new();
    for batch in epoch(&plan, 0, 0) {
        let found = series(&batch);
        assert_eq!((found.channels, found.steps), (2, 30));
        for window in found.windows.chunks(60) {
            let first = window[0];
            assert_eq!((first % 100.0, window[29], window[30], window[59]), (0.0, first + 29.0, first, first + 29.0));
            // Value 7 was null: step 3 of channel 1 takes the step before.
            assert_eq!((window[33], window[3]), (first + 2.0, first + 3.0));
            rows.insert(first as u32 / 100);
        }
    }
    assert_eq!(rows.len(), 32, "two batches of 16");
}

#[test]
fn ts_files_become_series_of_all_channels() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("from");
    fs::create_dir(&from).expect("a folder");
    for (name, lines) in [("Toy_TRAIN.ts", 20), ("Toy_TEST.ts", 5)] {
        let mut text = "@problemName Toy\n@timeStamps false\n@classLabel true up down\n@data\n".to_owned();
        for line in 0..lines {
            let values = |shift: i32| (0..30).map(|step| (step + shift).to_string()).collect::<Vec<_>>().join(",");
            text.push_str(&format!(
                "{}:{}:{}\n",
                values(line),
                values(1_000 + line),
                ["up", "down"][line as usize % 2]
            ));
        }
        fs::write(from.join(name), text).expect("a file");
    }
    let report = imported(&from, &folder.path().join("to"), &ImportSettings::default()).expect("an import");
    assert_eq!((report.kind.as_str(), report.rows), ("ts", 25));
    assert_eq!(report.splits, [("train".to_owned(), 20), ("test".to_owned(), 5)].into());
    let data = Opened::new("time_series", folder, "to", &[]);
    let sql = "SELECT sample_id FROM shards WHERE split = 'train' AND series_steps(samples) = 60";
    let plan = EpochPlan { batch_rows: 10, ..planned(&data, sql, "window_steps = 8\nchannels = 2") };
    let batches = epoch(&plan, 0, 0);
    assert_eq!(batches.len(), 2);
    for window in series(&batches[0]).windows.chunks(16) {
        assert!(
            (0..8).all(|step| window[8 + step] == 1_000.0 + window[step] && window[step] == window[0] + step as f32)
        );
    }
}
