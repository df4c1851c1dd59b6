//! The binary from end to end: what each command says of mistakes, of its ends, and of the numbers it gives.
use std::{fs, path::Path};

use diptych::synthetic::{Encoding, SyntheticSettings};
use serde_json::Value;

use super::cli::{Workshop, diptych, fails, last_json, lines, ok, text};

fn steps(run: &Path) -> Vec<u64> {
    let lines = lines(&run.join("metrics.jsonl"));
    lines.iter().filter(|line| line.get("batch_digest").is_some()).map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn check_plans_the_sql_where_the_shards_can_be_opened() {
    let workshop = Workshop::new();
    assert!(workshop.ok("check", &[]).contains("SQL of 3 queries planned over 192 rows"));
    let elsewhere = workshop.ok("check", &["--set", "scan.shards=[\"/nowhere/at/all\"]"]);
    assert!(
        elsewhere.contains("no mistakes") && elsewhere.contains("shards not found: SQL not checked"),
        "{elsewhere}"
    );
    let sets = ["--set", "scan.sql=SELEKT 1", "--set", "evaluate.bank_sql=SELECT label FROM shards"];
    let stderr = workshop.fails(2, "check", &sets);
    for part in ["2 mistakes", "`scan.sql`", "`evaluate.bank_sql`", "returns no column sample_id"] {
        assert!(stderr.contains(part), "{part} is missing from {stderr}");
    }
}

#[test]
fn sql_that_cannot_be_planned_is_a_mistake_of_the_pipeline() {
    let workshop = Workshop::new();
    for sql in ["SELEKT 1", "SELECT sample_id FROM shards WHERE wdith > 3", "SELECT sample_id FROM shards LIMIT 3"] {
        workshop.fails(2, "select", &["--set", &format!("scan.sql={sql}")]);
    }
    let swallowed = "SELECT sample_id FROM shards WHERE split IS DISTINCT FROM 'test' AND width >= 64";
    for (command, key) in [("select", "scan.sql"), ("check", "evaluate.bank_sql"), ("check", "evaluate.query_sql")] {
        let stderr = workshop.fails(2, command, &["--set", &format!("{key}={swallowed}")]);
        assert!(stderr.contains("put parentheses"), "{stderr}");
    }
}

#[test]
fn wrong_sql_is_told_by_every_command_that_plans_it() {
    let workshop = Workshop::new();
    let [shards, run, sheet, to] = ["shards", "run", "views.png", "embedded"].map(|name| workshop.path(name));
    let [shards, run, sheet, to] = [&shards, &run, &sheet, &to].map(|path| path.to_str().unwrap());
    for condition in ["wdith > 3", "nosuch(width) > 3", "text_words(width) > 3", "width > ALL"] {
        let sql = format!("SELECT sample_id FROM shards WHERE {condition}");
        let set = format!("scan.sql={sql}");
        for (command, rest) in [
            ("check", &[][..]),
            ("select", &[]),
            ("explain", &[]),
            ("bench", &["--batches", "1"]),
            ("preview", &["--to", sheet]),
            ("train", &["--run", run]),
        ] {
            let stderr = workshop.fails(2, command, &[rest, &["--set", set.as_str()]].concat());
            assert!(stderr.contains("is not accepted"), "{command}, {condition}: {stderr}");
        }
        assert!(!Path::new(run).exists(), "{condition} left a run folder");
        fails(2, &["select", &sql, "--shards", shards]);
        fails(2, &["sql", &sql, "--shards", shards]);
    }
    workshop.ok("train", &["--run", run, "--set", "train.max_steps=1"]);
    let wrong = "SELECT sample_id FROM shards WHERE wdith > 3";
    fails(2, &["evaluate", run, "--set", &format!("evaluate.query_sql={wrong}")]);
    fails(2, &["sql", wrong, "--shards", shards, "--to", to]);
    // What only the rows show is a failed run.
    let late = "SELECT sample_id FROM shards WHERE CAST(label AS INT) > 3";
    workshop.fails(1, "select", &["--set", &format!("scan.sql={late}")]);
    fails(1, &["sql", late, "--shards", shards]);
}

#[test]
fn columns_and_schemas_that_are_not_there_are_mistakes_and_missing_files_are_not() {
    let workshop = Workshop::new();
    let shards = workshop.path("shards");
    let shards = shards.to_str().unwrap();
    let sql = "SELECT count(*) FROM shards";
    for words in [
        &["sql", sql, "--shards", shards, "--schema", "imagetext"][..],
        &["sql", sql, "--shards", shards, "--column", "imgae=jpg"],
        &["sql", sql, "--shards", shards, "--column", "image=jpg"],
        &["lint", "--shards", shards, "--schema", "imagetext"],
        &["lint", "--shards", shards, "--column", "imgae=jpg"],
    ] {
        fails(2, words);
    }
    workshop.fails(2, "select", &["--set", "scan.columns={image='jpg'}"]);
    workshop.fails(2, "check", &["--set", "scan.columns={image='jpg'}"]);
    // A shard without a label trains, and cannot be evaluated by it.
    let bare = workshop.path("bare");
    let bare = bare.to_str().unwrap();
    let pictures = "SELECT image AS picture FROM shards WHERE split = 'train'";
    ok(&["sql", pictures, "--shards", shards, "--to", bare]);
    let half = |side: &str, share: &str| {
        format!("evaluate.{side}_sql=SELECT sample_id FROM shards WHERE sample_uniform(sample_id, 7) {share}")
    };
    let sets = [
        format!("scan.shards=[{bare:?}]"),
        "scan.columns={image='picture'}".to_owned(),
        "scan.sql=SELECT sample_id FROM shards".to_owned(),
        half("bank", "< 0.5"),
        half("query", ">= 0.5"),
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    let checked = diptych().args(workshop.words("check", &sets)).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stderr).contains("no shard has a column \"label\""), "{}", text(&checked.stderr));
    let run = workshop.path("run");
    let run = run.to_str().unwrap();
    workshop.ok("train", &[&sets[..], &["--run", run, "--set", "train.max_steps=1"]].concat());
    assert!(fails(2, &["evaluate", run]).contains("has no column \"label\""));

    fails(1, &["sql", sql, "--shards", "/nowhere/*.parquet"]);
    fails(1, &["select", "SELECT sample_id FROM shards", "--shards", shards, "--tables", "t=/nowhere/t.csv"]);
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_written_are_a_failed_run() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = diptych().args(["check", "simclr", "--resolved"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("cannot write results"), "{}", text(&output.stderr));
}

#[test]
fn results_replace_nothing_of_another_kind_and_are_local() {
    let workshop = Workshop::new();
    // Another ending than .png is refused before.
    let pipeline = workshop.path("mine.png");
    fs::write(&pipeline, "seed = 1\n").unwrap();
    let name = pipeline.to_str().unwrap();
    for (command, kind) in [("select", "no selection"), ("preview", "no PNG")] {
        let output = diptych().args(workshop.words(command, &["--to", name])).output().unwrap();
        assert!(!output.status.success() && text(&output.stderr).contains(kind), "{}", text(&output.stderr));
        assert_eq!(fs::read_to_string(&pipeline).unwrap(), "seed = 1\n");
        let stderr = workshop.fails(2, command, &["--to", "s3://bucket/x"]);
        assert!(stderr.contains("written to local files"), "{stderr}");
    }
    let stderr = workshop.fails(2, "train", &["--run", "s3://bucket/x"]);
    assert!(stderr.contains("written to local files"), "{stderr}");
    let saved = workshop.path("a.selection");
    for _ in 0..2 {
        workshop.ok("select", &["--to", saved.to_str().unwrap()]);
    }
}

#[test]
fn a_short_run_reports_its_ends_and_can_be_used_from_another_folder() {
    let workshop = Workshop::new();
    let mut words = workshop.words("train", &["--run", "run", "--set", "train.max_steps=3"]);
    words.extend(["--set", "train.report_every_steps=10", "--set", "scan.shards=[\"shards\"]"].map(str::to_owned));
    let output = diptych().current_dir(workshop.path("")).args(&words).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run = workshop.path("run");
    assert_eq!(steps(&run), [1, 3]);

    let run_name = run.to_str().unwrap();
    let finished = ok(&["train", "--resume", run_name]);
    assert!(finished.contains("nothing is left to do") && !finished.contains("NaN"), "{finished}");
    let stderr = fails(2, &["train", "--resume", run_name, "--accept-change", "bogus"]);
    assert!(stderr.contains("bogus") && stderr.contains("selection, order, seed"), "{stderr}");
    ok(&["evaluate", run_name]);
}

#[test]
fn neighbours_while_training_are_those_of_the_weights_that_evaluate_scores() {
    let workshop = Workshop::new();
    let run = workshop.path("run");
    let sets = [
        "evaluate.knn_every_epochs=1",
        "evaluate.knn={neighbours=20,candidates=[1,20]}",
        "evaluate.labels_per_class=[1,100]",
        "train.ema_decay=0.9",
    ];
    let mut words = vec!["--run", run.to_str().unwrap()];
    words.extend(sets.iter().flat_map(|set| ["--set", *set]));
    workshop.ok("train", &words);
    let lines = lines(&run.join("metrics.jsonl"));
    let scored: Vec<&Value> = lines.iter().filter_map(|line| line["scores"].get("knn_accuracy")).collect();
    assert_eq!(scored.len(), 2, "one an epoch: {lines:?}");

    let scores = last_json(&ok(&["evaluate", run.to_str().unwrap(), "--json"]));
    assert_eq!(&scores["knn_at"]["label"]["20"]["accuracy"], scored[1], "{scores}");
    for (side, items) in [("bank", 144), ("queries", 48)] {
        assert_eq!(scores[side]["digest"].as_str().map(str::len), Some(64), "{scores}");
        assert_eq!((&scores[side]["items"], &scores[side]["left_out"]), (&items.into(), &0.into()), "{scores}");
    }
    assert_eq!(scores["data"]["label"]["samples_per_class"], serde_json::json!([48, 48]));
    assert!(scores["few_labels"]["label"].get("100").is_none(), "no class has 100: {scores}");
    assert!(scores["left_out"]["label"]["100"].as_str().unwrap().contains("48"), "{scores}");
}

#[test]
fn class_folders_without_splits_are_evaluated_by_the_remedy_as_printed() {
    let workshop = Workshop::new();
    let (flat, shards, run) = (workshop.path("images/train"), workshop.path("flat"), workshop.path("run"));
    let [flat, shards, run] = [&flat, &shards, &run].map(|path| path.to_str().unwrap());
    ok(&["import", flat, shards]);
    let named = format!("scan.shards=[{shards:?}]");
    workshop.ok("train", &["--run", run, "--set", "train.max_steps=1", "--set", &named]);
    let stderr = fails(1, &["evaluate", run]);
    let remedies: Vec<&str> = stderr.split("--set \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(remedies.len(), 2, "{stderr}");
    ok(&["evaluate", run, "--set", remedies[0], "--set", remedies[1]]);
}

#[test]
fn the_papers_pipeline_takes_a_step_at_224_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let photos =
        SyntheticSettings { train_per_class: 1, test_per_class: 0, side_pixels: 80, seed: 1, encoding: Encoding::Jpeg };
    photos.write_files(folder.path().join("photos").as_path()).unwrap();
    ok(&["import", &path("photos"), &path("shards")]);
    let shards = format!("scan.shards=[{:?}]", path("shards"));
    assert!(ok(&["check", "simclr", "--set", &shards]).contains("256 rows a batch, each two 224-pixel views"));
    let run = path("run");
    let sets = [shards.as_str(), "prefetch.batch_rows=2", "train.max_steps=1"];
    let mut words = vec!["train", "simclr", "--run", &run];
    words.extend(sets.iter().flat_map(|set| ["--set", *set]));
    ok(&words);
    let lines = lines(&Path::new(&run).join("metrics.jsonl"));
    assert!(lines[0]["loss"].as_f64().unwrap().is_finite() && lines[0]["effective_rank"].is_f64(), "{lines:?}");
}
