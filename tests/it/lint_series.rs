//! `diptych lint` over shards of series with one of everything that is odd.
use std::{fs, fs::File, path::Path, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, Float64Array, ListArray, RecordBatch, UInt32Array, UInt64Array},
        datatypes::{Float32Type, UInt64Type},
    },
    parquet::arrow::ArrowWriter,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    cli::{last_json, run, text},
    import,
    series::recordings,
};

fn write(path: &Path, series: &[Vec<f32>], declared: impl Fn(usize, u64) -> u64) {
    let bytes = |values: &Vec<f32>| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let hashes = series.iter().enumerate().map(|(row, values)| declared(row, xxh3_64(&bytes(values))));
    let lists = series.iter().map(|values| Some(values.iter().copied().map(Some).collect::<Vec<_>>()));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("samples", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists))),
        ("channels", Arc::new(UInt32Array::from(vec![2; series.len()]))),
        ("steps", Arc::new(UInt64Array::from_iter_values(series.iter().map(|values| values.len() as u64 / 2)))),
        ("rate_hz", Arc::new(Float64Array::from(vec![8_000.0; series.len()]))),
        ("samples_bytes", Arc::new(UInt64Array::from_iter_values(series.iter().map(|values| 4 * values.len() as u64)))),
        ("samples_xxh3", Arc::new(UInt64Array::from_iter_values(hashes))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
}

/// Two channels of a wave; no two alike.
fn wave(number: usize) -> Vec<f32> {
    (0..400).map(|at| 0.4 * (0.05 * (number + 3) as f32 * at as f32).sin() + 0.01).collect()
}

#[test]
fn everything_odd_about_series_is_found_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut series: Vec<Vec<f32>> = (0..9).map(wave).collect();
    series[1] = vec![0.0; 400];
    series[2][7] = f32::NAN;
    (0..200).for_each(|step| series[3][2 * step] = 0.25);
    series[4].iter_mut().for_each(|x| *x = (*x * 10.0).clamp(-1.0, 1.0));
    series[5] = series[0].clone();
    series[6].pop();
    series[7].clear();
    write(&folder.path().join("odd.parquet"), &series, |row, hash| hash ^ u64::from(row == 8));
    let shards = folder.path().join("odd.parquet").display().to_string();
    let to = folder.path().join("lint").display().to_string();
    let output = run(&["lint", "--shards", &shards, "--schema", "time_series", "--to", &to, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = last_json(&text(&output.stdout));
    let series = report["findings"]["series"].as_object().expect("findings");
    let classes: Vec<&str> = series.keys().map(String::as_str).collect();
    assert_eq!(classes, ["channels", "checksum", "clipped", "constant", "empty", "non_finite", "silent"]);
    assert!(series.values().all(|count| count == 1), "{series:?}");
    assert_eq!(report["findings"]["duplicate"]["exact"], 1);
    assert_eq!(report["bad_images"], 3, "empty, channels and checksum are what training refuses");
    let table = import::read(&Path::new(&to).join("lint.parquet"));
    let rows = table.column_by_name("row").expect("rows").as_primitive::<UInt64Type>();
    let classes = import::texts(&table, "class");
    let row_of =
        |class: &str| rows.value(classes.iter().position(|found| found.as_deref() == Some(class)).expect(class));
    let expected = [
        ("silent", 1),
        ("non_finite", 2),
        ("constant", 3),
        ("clipped", 4),
        ("exact", 5),
        ("channels", 6),
        ("empty", 7),
        ("checksum", 8),
    ];
    assert_eq!(expected.map(|(class, _)| row_of(class)), expected.map(|(_, row)| row));
    assert!(fs::read_to_string(Path::new(&to).join("lint.html")).expect("a page").contains("MB of series"));
    let failing = run(&["lint", "--shards", &shards, "--schema", "time_series", "--fail-on", "bad"]);
    assert!(
        !failing.status.success() && text(&failing.stderr).contains("3 series are bad"),
        "{}",
        text(&failing.stderr)
    );
    let narrow = run(&["lint", "--shards", &shards, "--schema", "time_series", "--no-images", "--json"]);
    assert_eq!(last_json(&text(&narrow.stdout))["findings"].as_object().expect("none").len(), 0);
}

#[test]
fn imported_recordings_are_clean_and_their_kinds_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).expect("a folder");
    recordings(&from, 12);
    import::imported(&from, &to, &diptych::ingest::ImportSettings::default()).expect("an import");
    let output = run(&["lint", "--shards", &to.display().to_string(), "--schema", "time_series", "--json"]);
    let report = last_json(&text(&output.stdout));
    assert_eq!(report["findings"].as_object().expect("none").len(), 0, "{report}");
    assert_eq!(report["statistics"]["formats"]["1 channel at 8000 Hz"], 12);
    assert!(text(&output.stdout).contains("12 rows in 1 shard"), "{}", text(&output.stdout));
    let documents = run(&["lint", "cpc_text", "--set", "scan.shards=[\"nowhere\"]"]);
    assert!(text(&documents.stderr).contains("images and series"), "{}", text(&documents.stderr));
}
