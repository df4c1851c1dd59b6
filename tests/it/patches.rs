//! CPC on images through the binary: one view, a grid of patches, rows predicted downwards.
use std::path::Path;

use diptych::{
    ingest::ImportSettings,
    synthetic::{SyntheticSettings, write_shards},
};
use serde_json::Value;

use super::cli::{fails, last_json, lines, ok};

/// The words of a command over `folder/shards` with everything set small: 32 pixels, a grid of 7 by 7 patches of 8.
fn words(folder: &Path, command: &str, rest: &[&str]) -> Vec<String> {
    let shards = format!("scan.shards=[{:?}]", folder.join("shards").to_str().expect("text"));
    let crop = "{ random_resized_crop = { side_pixels = 32, area = [0.5, 1.0] } }";
    let patches = "{ side_pixels = 8, hop_pixels = 4, encoder = { convnet = { base_width = 4 } } }";
    let sets = [
        shards,
        format!("augment.image=[{crop}, {{ horizontal_flip = {{ probability = 0.5 }} }}]"),
        "augment.evaluation=[]".to_owned(),
        format!("method.cpc.encoder={{ patches = {patches} }}"),
        "method.cpc.context={ gru = { width_channels = 12 } }".to_owned(),
        "method.cpc.predicted_frames=3".to_owned(),
        "method.cpc.negatives=batch_all_time".to_owned(),
        "prefetch.batch_rows=10".to_owned(),
        "scan.lanes=2".to_owned(),
        "train.epochs=3".to_owned(),
        "train.report_every_steps=1".to_owned(),
        "evaluate.labels_per_class=[1]".to_owned(),
    ];
    let mut words = vec![command.to_owned(), "cpc_patches".to_owned()];
    words.extend(sets.into_iter().flat_map(|set| ["--set".to_owned(), set]));
    words.extend(rest.iter().map(ToString::to_string));
    words
}

fn run(folder: &Path, command: &str, rest: &[&str]) -> String {
    ok(&words(folder, command, rest).iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn rows_of_patches_are_predicted_downwards_and_their_contexts_are_scored() {
    let folder = tempfile::tempdir().expect("a folder");
    let images =
        SyntheticSettings { train_per_class: 12, test_per_class: 4, side_pixels: 40, ..SyntheticSettings::default() };
    write_shards(&folder.path().join("shards"), &images, &ImportSettings::default()).expect("shards");
    let folder = folder.path();

    let told = run(folder, "check", &[]);
    assert!(told.contains("10 rows a batch, each one 32-pixel view"), "{told}");
    let sheet = folder.join("views.png");
    let told = run(folder, "preview", &["--to", sheet.to_str().expect("text"), "--pairs", "6"]);
    assert!(told.contains("6 images, each one 32-pixel view"), "{told}");
    // Enlarged threefold, six in one line, nothing beside any.
    assert_eq!(image::image_dimensions(&sheet).expect("a picture"), (6 * (96 + 12) + 12, 96 + 2 * 12));

    let at = folder.join("run");
    run(folder, "train", &["--run", at.to_str().expect("text")]);
    let metrics = lines(&at.join("metrics.jsonl"));
    let steps: Vec<&Value> = metrics.iter().filter(|line| line.get("batch_digest").is_some()).collect();
    assert_eq!(steps.len(), 36);
    let first = &steps[0]["method"];
    // 10 images of 7 columns, in each of which 7 − k rows have a k-th below: all of them but itself are negatives.
    for k in 1..=3 {
        let candidates = f64::from(10 * 7 * (7 - k));
        let chance = first["chance_losses"][k as usize - 1].as_f64().expect("a number");
        assert!((chance - candidates.ln()).abs() < 1e-9, "k = {k}: {chance}");
    }
    assert_eq!(first["first_disjoint_step"][0], 2.0, "the next patch begins half way down");
    assert!(first.get("information_nats").is_none(), "columns of one image are not independent");
    let mean = |lines: &[&Value]| lines.iter().map(|line| line["loss"].as_f64().expect("a loss")).sum::<f64>() / 6.0;
    let (before, after) = (mean(&steps[..6]), mean(&steps[30..]));
    assert!(after < before, "{before} {after}");

    let scores = last_json(&ok(&["evaluate", at.to_str().expect("text"), "--json"]));
    assert_eq!(scores["data"]["label"]["queries"], 40);
    let probe = &scores["linear_probe"]["label"];
    assert!(probe["floor"].is_f64() && probe["untrained"].is_f64(), "{scores}");
    assert!(probe["protocol"].as_str().expect("words").contains("raw_pixels"), "{probe}");
    let report = std::fs::read_to_string(at.join("report.html")).expect("a report");
    assert!(report.contains("<h2>Views</h2>") && report.contains("Accuracy k steps ahead"));
}

#[test]
fn pairings_that_a_method_cannot_take_are_told_by_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = ["--set", "pair={ two_views = {} }"];
    let words = words(folder.path(), "check", &pair);
    let told = fails(2, &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(told.contains("pair.one_view"), "{told}");
    let told = fails(2, &["check", "simclr_small", "--set", "pair={ one_view = {} }"]);
    assert!(told.contains("takes two views") && told.contains("pair.two_views"), "{told}");
    let told = fails(2, &["check", "cpc_series", "--set", "pair={ past_future = { window_steps = 9, channels = 6 } }"]);
    assert!(told.contains("pair.context_future"), "{told}");
}
