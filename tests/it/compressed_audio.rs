//! Import of Ogg Vorbis and MP3: tones that `tests/golden/tones.py` made, and what is left of them when they are cut.
use std::{f64::consts::TAU, fs};

use datafusion::arrow::{
    array::AsArray as _,
    datatypes::{Float64Type, Int16Type, UInt64Type},
};
use diptych::ingest::ImportSettings;

use super::import::{imported, read, shards, texts, write};

const RATE: f64 = 16_000.0;
const STEPS: usize = 8_000;
const FILES: [(&str, &[u8]); 2] =
    [("tone.mp3", include_bytes!("../golden/tone.mp3")), ("tone.ogg", include_bytes!("../golden/tone.ogg"))];

/// Amplitude of a tone of `hz` in samples.
fn amplitude(samples: &[f64], hz: f64, rate: f64) -> f64 {
    let part = |wave: fn(f64) -> f64| {
        let products = samples.iter().enumerate().map(|(step, x)| x * wave(TAU * hz * step as f64 / rate));
        2.0 * products.sum::<f64>() / samples.len() as f64
    };
    part(f64::sin).hypot(part(f64::cos))
}

/// By file: rate, and samples of which 1.0 is the full scale.
fn decoded(settings: &ImportSettings) -> Vec<(String, f64, Vec<f64>)> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in FILES {
        write(&folder.path().join("from"), name, content);
    }
    let to = folder.path().join("to");
    let report = imported(&folder.path().join("from"), &to, settings).expect("an import");
    assert_eq!((report.rows, report.quarantined), (2, 0));
    let batch = read(&shards(&to)[0]);
    let lists = batch.column_by_name("samples").expect("samples").as_list::<i32>();
    let rates = batch.column_by_name("rate_hz").expect("rates").as_primitive::<Float64Type>();
    let steps = batch.column_by_name("steps").expect("steps").as_primitive::<UInt64Type>();
    let row = |(row, name): (usize, Option<String>)| {
        let samples = lists.value(row);
        let samples: Vec<f64> =
            samples.as_primitive::<Int16Type>().values().iter().map(|x| f64::from(*x) / 32_768.0).collect();
        assert_eq!(samples.len() as u64, steps.value(row));
        (name.expect("a name"), rates.value(row), samples)
    };
    texts(&batch, "source").into_iter().enumerate().map(row).collect()
}

#[test]
fn a_tone_comes_out_as_loud_as_it_went_in_and_nothing_beside_it() {
    for (name, rate, samples) in decoded(&ImportSettings { keep_order: true, ..ImportSettings::default() }) {
        assert_eq!(rate, RATE, "{name}");
        // MP3 has frames of 1,152 (576 here) steps and silence around what was encoded; Vorbis says its length.
        let most = if name.ends_with(".ogg") { STEPS } else { STEPS + 2 * 1_152 };
        assert!((STEPS..=most).contains(&samples.len()), "{name}: {} steps", samples.len());
        let middle = &samples[2_000..6_000];
        let (tone, beside) = (amplitude(middle, 440.0, RATE), amplitude(middle, 1_240.0, RATE));
        assert!((tone - 0.5).abs() < 0.03, "{name}: 440 Hz at {tone}");
        assert!(beside < 0.01, "{name}: 1,240 Hz at {beside}");
        let rms = (middle.iter().map(|x| x * x).sum::<f64>() / middle.len() as f64).sqrt();
        assert!((rms - 0.5 / 2_f64.sqrt()).abs() < 0.03, "{name}: {rms}");
    }
}

#[test]
fn a_tone_at_another_rate_is_the_same_tone() {
    let settings = ImportSettings { keep_order: true, rate_hz: Some(8_000.0), ..ImportSettings::default() };
    let whole = decoded(&ImportSettings { keep_order: true, ..ImportSettings::default() });
    for ((name, rate, samples), (_, _, before)) in decoded(&settings).into_iter().zip(whole) {
        assert_eq!((rate, samples.len()), (8_000.0, before.len().div_ceil(2)), "{name}");
        assert!((amplitude(&samples[1_000..3_000], 440.0, 8_000.0) - 0.5).abs() < 0.03, "{name}");
    }
}

#[test]
fn damaged_files_go_to_quarantine_and_harm_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("from");
    for (name, content) in FILES {
        write(&from, name, content);
        write(&from, &format!("no_{name}"), b"words that are no audio at all, whatever the name says");
    }
    // Vorbis' packets lie in pages with checksums.
    let mut ogg = FILES[1].1.to_vec();
    let last = ogg.len() - 400;
    ogg[last] ^= 0x55;
    write(&from, "flipped.ogg", &ogg);
    let to = folder.path().join("to");
    let report = imported(&from, &to, &ImportSettings::default()).expect("an import");
    assert_eq!((report.rows, report.quarantined), (2, 3), "{:?}", fs::read_dir(&to).map(Iterator::count));
    let bad = read(&to.join(diptych::ingest::QUARANTINE_FILE));
    let mut sources: Vec<_> = texts(&bad, "source").into_iter().flatten().collect();
    sources.sort_unstable();
    assert_eq!(sources, ["flipped.ogg", "no_tone.mp3", "no_tone.ogg"]);
}

#[test]
fn sources_without_a_rate_are_told_before_anything_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("from");
    write(&from, "a/1.png", super::import::png(1));
    let settings = ImportSettings { rate_hz: Some(8_000.0), ..ImportSettings::default() };
    let error = imported(&from, &folder.path().join("to"), &settings).expect_err("images").to_string();
    assert!(error.contains("images say no rate; leave --rate-hz away"), "{error}");
    // A table without times is a bad sample: the next one may have some.
    let tables = folder.path().join("tables");
    write(&tables, "bare.csv", "x\n1\n2\n3\n4\n");
    write(&tables, "timed.csv", "t,x\n0,1\n0.5,2\n1,3\n1.5,4\n");
    let settings = ImportSettings {
        rate_hz: Some(4.0),
        read_as: Some(diptych::ingest::Kind::CsvSeries),
        ..ImportSettings::default()
    };
    let report = imported(&tables, &folder.path().join("series"), &settings).expect("an import");
    assert_eq!((report.rows, report.quarantined), (1, 1));
    let wrong = ImportSettings { rate_hz: Some(0.0), ..ImportSettings::default() };
    let error = imported(&tables, &folder.path().join("none"), &wrong).expect_err("no rate").to_string();
    assert!(error.contains("rate_hz is 0; give a number above 0"), "{error}");
}
