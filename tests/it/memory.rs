//! Memory of the data half as a process: bounded by settings, not by the data set.
use std::{fs, path::Path};

use diptych::{
    ingest::ImportSettings,
    synthetic::{Encoding, SyntheticSettings, write_shards},
};

use super::cli::{last_json, ok};

/// Images of one copy of the data.
const IMAGES: usize = 200;
/// Copies in the larger set.
const COPIES: usize = 8;
/// What may grow with the number of shards: footers, page indexes, the selection.
const GROWTH_BYTES: f64 = 32e6;

/// Peak memory of one epoch over the shards of a folder.
fn peak_bytes(shards: &Path, images: usize) -> f64 {
    let shards = format!("scan.shards=[{:?}]", shards.to_str().unwrap());
    let batches = (images / 20).to_string();
    let sets = [
        shards.as_str(),
        "scan.lanes=2",
        "scan.shuffle_window_rows=50",
        "scan.shuffle_window_megabytes=4",
        "prefetch.batch_rows=20",
        "prefetch.capacity_megabytes=2",
        "memory_megabytes=24",
        "augment.decode_threads=2",
    ];
    let mut words = vec!["bench", "simclr_small", "--json", "--batches", &batches];
    words.extend(sets.iter().flat_map(|set| ["--set", *set]));
    let measured = last_json(&ok(&words));
    assert_eq!(measured["samples"], images, "{measured}");
    measured["peak_memory_bytes"].as_f64().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn eight_times_the_shards_take_no_more_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (once, eightfold) = (folder.path().join("once"), folder.path().join("eightfold"));
    let photos = SyntheticSettings {
        train_per_class: IMAGES / 10,
        test_per_class: 0,
        side_pixels: 224,
        seed: 2,
        encoding: Encoding::Png,
    };
    let import =
        ImportSettings { shard_rows: Some(100), row_group_rows: 25, decode_check: false, ..ImportSettings::default() };
    let report = write_shards(&once, &photos, &import).unwrap();
    // More than the windows hold; and seven times this is more than the bound below forgives.
    assert!(report.image_bytes > 15_000_000, "{} bytes", report.image_bytes);
    fs::create_dir(&eightfold).unwrap();
    for shard in fs::read_dir(&once).unwrap().map(|entry| entry.unwrap().path()) {
        let name = shard.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".parquet") && name != "quarantine.parquet" {
            for copy in 0..COPIES {
                fs::copy(&shard, eightfold.join(format!("{copy}-{name}"))).unwrap();
            }
        }
    }
    let (one, eight) = (peak_bytes(&once, IMAGES), peak_bytes(&eightfold, COPIES * IMAGES));
    assert!(eight <= 1.25 * one + GROWTH_BYTES, "{eight} bytes for eight times the data, {one} for once");
}
