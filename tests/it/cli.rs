//! The binary from end to end on tiny synthetic images: what scripts may rely on.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use diptych::{
    ingest::{ImportSettings, Kind},
    pipeline::{EMBEDDED, Plan},
    schema::Schema,
    select::{select::select, shards::ShardSet},
};
use serde_json::Value;

use super::{import::imported, series::recordings};

pub(crate) const CLASSES: [&str; 3] = ["bar", "disc", "ring"];
const PER_CLASS: [(&str, usize); 2] = [("train", 48), ("test", 16)];
const SIDE: u32 = 28;

pub(crate) fn diptych() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diptych"));
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(words: &[&str]) -> Output {
    diptych().args(words).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs it and wants success.
pub(crate) fn ok(words: &[&str]) -> String {
    let output = run(words);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{words:?}: {}\n{stdout}\n{stderr}", output.status);
    assert!(!stderr.contains('\u{1b}'), "a progress bar without a terminal: {stderr:?}");
    stdout
}

/// Runs it, wants this exit code, returns stderr.
pub(crate) fn fails(code: i32, words: &[&str]) -> String {
    let output = run(words);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
    assert!(output.stdout.is_empty(), "a failure printed results: {}", text(&output.stdout));
    stderr
}

pub(crate) fn last_json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error} in {stdout}"))
}

/// Three classes of shapes, each image with a position and brightness of its own.
fn draw(class: usize, number: usize) -> image::RgbImage {
    let centre = (10.0 + (number % 7) as f32, 10.0 + (number % 5) as f32);
    let light = 120 + (number * 7 % 120) as u8;
    image::RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (dx, dy) = (x as f32 - centre.0, y as f32 - centre.1);
        let radius = (dx * dx + dy * dy).sqrt();
        let inside = match class {
            0 => dx.abs() < 2.0,
            1 => radius < 6.0,
            _ => (4.0..7.0).contains(&radius),
        };
        if inside { image::Rgb([light, 255 - light, 90]) } else { image::Rgb([(x * 3) as u8, (y * 3) as u8, 20]) }
    })
}

pub(crate) struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    /// A folder with imported shards.
    pub(crate) fn new() -> Self {
        let workshop = Self { folder: tempfile::tempdir().unwrap() };
        for (split, count) in PER_CLASS {
            for (number, class) in CLASSES.iter().enumerate() {
                let folder = workshop.path("images").join(split).join(class);
                fs::create_dir_all(&folder).unwrap();
                for i in 0..count {
                    draw(number, i).save(folder.join(format!("{i}.png"))).unwrap();
                }
            }
        }
        let (images, shards) = (workshop.path("images"), workshop.path("shards"));
        ok(&["import", images.to_str().unwrap(), shards.to_str().unwrap(), "--row-group-rows", "32"]);
        workshop
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The words of a command with everything set small.
    pub(crate) fn words(&self, command: &str, rest: &[&str]) -> Vec<String> {
        let shards = format!("scan.shards=[{:?}]", self.path("shards").to_str().unwrap());
        let sets = [
            shards.as_str(),
            "prefetch.batch_rows=32",
            "prefetch.capacity_megabytes=2",
            "scan.lanes=2",
            "scan.shuffle_window_rows=64",
            "method.simclr.encoder.convnet.base_width=4",
            "train.report_every_steps=1",
            "train.epochs=2",
            "evaluate.labels_per_class=[1, 10]",
            "augment.decode_threads=2",
        ];
        let mut words = vec![command.to_owned(), "simclr_small".to_owned()];
        words.extend(sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        words.extend(rest.iter().map(ToString::to_string));
        words
    }

    pub(crate) fn ok(&self, command: &str, rest: &[&str]) -> String {
        ok(&self.words(command, rest).iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn fails(&self, code: i32, command: &str, rest: &[&str]) -> String {
        fails(code, &self.words(command, rest).iter().map(String::as_str).collect::<Vec<_>>())
    }
}

pub(crate) fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_first_journey_works_end_to_end() {
    let workshop = Workshop::new();
    assert!(workshop.ok("check", &[]).contains("no mistakes"));
    assert!(workshop.ok("check", &["--resolved"]).contains("[method.simclr.encoder.convnet]"));

    let selection_file = workshop.path("train.selection");
    let selected = workshop.ok("select", &["--json", "--verify", "--to", selection_file.to_str().unwrap()]);
    let selected = last_json(&selected);
    assert_eq!(selected["items"], 144);
    assert_eq!(selected["of"], 192);
    assert_eq!(selected["blob_bytes_read"], 0);
    assert_eq!(selected["digest"].as_str().unwrap().len(), 64);
    assert!(selection_file.is_file());

    let explained = workshop.ok("explain", &[]);
    for stage in ["OrderedScanExec", "AugmentExec", "prefetch", "simclr"] {
        assert!(explained.contains(stage), "{stage} is missing from\n{explained}");
    }
    let analyzed = workshop.ok("explain", &["--analyze"]);
    assert!(analyzed.contains("metrics="), "{analyzed}");

    let sheet = workshop.path("views.png");
    workshop.ok("preview", &["--to", sheet.to_str().unwrap(), "--pairs", "6"]);
    let sheet = image::open(&sheet).unwrap();
    assert!(sheet.width() >= 2 * SIDE && sheet.height() >= 2 * SIDE);

    let bench = last_json(&workshop.ok("bench", &["--json", "--batches", "6"]));
    assert!(bench["samples_per_second"].as_f64().unwrap() > 0.0, "{bench}");
    assert_eq!(bench["samples"], 6 * 32);
    assert_eq!(bench["bad_rows"], 0);
    assert!(bench["peak_memory_bytes"].as_u64().unwrap() > 1_000_000, "{bench}");

    let run = workshop.path("run");
    let run = run.to_str().unwrap();
    workshop.ok("train", &["--run", run, "--set", "train.max_steps=5"]);
    let steps = lines(&Path::new(run).join("metrics.jsonl"));
    // 144 items are 4 batches of 32 an epoch.
    assert_eq!(steps.len(), 5);
    for key in ["step", "epoch", "loss", "learning_rate", "samples_per_second", "data_wait_share", "batch_digest"] {
        assert!(steps[0].get(key).is_some(), "{key} is missing from {}", steps[0]);
    }
    assert!(Path::new(run).join("checkpoints/step-5/weights.safetensors").is_file());
    assert!(Path::new(run).join("views.png").is_file());
    let refused = workshop.fails(2, "train", &["--run", run]);
    assert!(refused.contains("--resume"), "{refused}");

    ok(&["train", "--resume", run, "--set", "train.max_steps=8"]);
    let steps = lines(&Path::new(run).join("metrics.jsonl"));
    assert_eq!(
        steps.iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>(),
        (1..=8).collect::<Vec<_>>()
    );

    let scores = last_json(&ok(&["evaluate", run, "--json"]));
    let encoder = scores.to_string();
    assert!(encoder.contains("knn") && encoder.contains("linear_probe"), "{scores}");
    let saved: Value = serde_json::from_slice(&fs::read(Path::new(run).join("scores.json")).unwrap()).unwrap();
    assert_eq!(saved, scores);
    let report = fs::read_to_string(Path::new(run).join("report.html")).unwrap();
    assert!(report.contains("data:image/png;base64,") && !report.contains("src=\"http"), "not self-contained");
}

#[test]
fn five_mistakes_are_reported_without_touching_data() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let text = "seeed = 1\n[scan]\nshards = [\"/nowhere/at/all\"]\nlanes = \"eight\"\n[augment]\nimage = [{ random_resized_crop = \
                { side_pixels = 28 } }]\n[pair.two_views]\ncolumn = \"imgae\"\n[prefetch]\nbatch_rows = 1\n[method.simclr]\n\
                encoder.convnet = {}\n[train]\nepochs = 0\noptimizer.adamw = {}\n";
    fs::write(&file, text).unwrap();
    for command in ["check", "select", "explain", "bench"] {
        let stderr = fails(2, &[command, file.to_str().unwrap()]);
        assert!(stderr.contains("5 mistakes"), "{stderr}");
        for part in [
            "line 1, column 1: `seeed`",
            "`scan.lanes`",
            "did you mean \"image\"?",
            "`prefetch.batch_rows`",
            "`train.epochs`",
        ] {
            assert!(stderr.contains(part), "{part} is missing from {stderr}");
        }
    }
    let run = folder.path().join("run");
    fails(2, &["train", file.to_str().unwrap(), "--run", run.to_str().unwrap()]);
    assert!(!run.exists(), "a pipeline with mistakes made a run folder");
}

#[test]
fn exit_codes_tell_a_wrong_command_from_a_failed_run() {
    fails(2, &["trian"]);
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().to_str().unwrap(), folder.path().join("to"));
    fails(2, &["import", from, to.to_str().unwrap(), "--as", "webdataset"]);
    fails(2, &["preview", "simclr_small", "--to", "views.jpg"]);
    let device = fails(2, &["check", "simclr_small", "--set", "device=gpu"]);
    assert!(device.contains("no device \"gpu\""), "{device}");
    fails(2, &["train", "simclr_small"]);
    let unknown = fails(2, &["check", "simclr_smal"]);
    assert!(unknown.contains("did you mean \"simclr_small\"?"), "{unknown}");
    let missing = fails(1, &["select", "simclr_small", "--set", "scan.shards=[\"/nowhere/at/all\"]"]);
    assert!(missing.contains("/nowhere/at/all"), "{missing}");
    fails(2, &["train", "--resume", "/nowhere/at/all"]);
    fails(2, &["evaluate", "/nowhere/at/all"]);
    assert!(run(&["--help"]).status.success());
}

#[test]
fn a_device_of_another_build_is_told_with_its_feature() {
    if cfg!(feature = "cuda") {
        return;
    }
    let stderr = fails(2, &["check", "simclr_small", "--set", "device=cuda:0"]);
    assert!(stderr.contains("--features cuda"), "{stderr}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    use std::io::Read as _;
    let mut child = diptych()
        .args(["check", "simclr", "--resolved"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
    assert!(!stderr.contains("error"), "{stderr}");
}

#[test]
fn the_sql_of_every_built_in_pipeline_is_accepted() {
    let workshop = Workshop::new();
    let (recorded, series) = (workshop.path("recorded"), workshop.path("series"));
    fs::create_dir(&recorded).unwrap();
    recordings(&recorded, 4);
    imported(&recorded, &series, &ImportSettings::default()).unwrap();
    let (texts, documents) = (workshop.path("texts"), workshop.path("documents"));
    fs::create_dir(&texts).unwrap();
    fs::write(texts.join("a.txt"), "One. Two. Three.").unwrap();
    let as_documents = ImportSettings { read_as: Some(Kind::Documents), ..ImportSettings::default() };
    imported(&texts, &documents, &as_documents).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for (name, _) in EMBEDDED {
            let pipeline = Plan::read(name, &[]).unwrap().pipeline;
            let schema = Schema::named(&pipeline.scan.schema).unwrap();
            let folder = match schema.name.as_str() {
                "time_series" => series.clone(),
                "documents" => documents.clone(),
                _ => workshop.path("shards"),
            };
            let shards = ShardSet::open(&[folder.to_str().unwrap().to_owned()], &schema).await.unwrap();
            let evaluate = pipeline.evaluate.unwrap();
            for sql in [pipeline.scan.sql.as_ref().unwrap(), &evaluate.bank_sql, &evaluate.query_sql] {
                // The column that scripts/emoji.py writes beside captions.
                let sql = sql.replace("keywords", "caption");
                let selected = select(&shards, &schema, &sql).await;
                assert!(selected.is_ok(), "{name}: {sql}: {}", selected.unwrap_err().report());
            }
        }
    });
}

#[test]
fn selections_are_made_by_sql_shown_combined_and_trained_on() {
    let workshop = Workshop::new();
    let path = |name: &str| workshop.path(name).to_str().unwrap().to_owned();
    fs::write(workshop.path("weights.csv"), "label,weight\nbar,1.0\ndisc,0.5\nring,0.0\n").unwrap();
    let (shards, table) = (path("shards"), format!("weights={}", path("weights.csv")));
    let select = |sql: &str, to: &str| {
        let words = ["select", sql, "--shards", &shards, "--tables", &table, "--to", &path(to), "--verify", "--json"];
        last_json(&ok(&words))
    };
    let train = "SELECT sample_id, label FROM shards WHERE split = 'train'";
    let all = select(train, "all.selection");
    assert_eq!((all["items"].as_u64(), all["extra_columns"][0].as_str()), (Some(144), Some("label Utf8")));
    assert_eq!(all["tables"][0]["name"], "weights");
    let few = select(
        "SELECT sample_id, label FROM shards JOIN weights USING (label)
         WHERE split = 'train' AND sample_uniform(sample_id, 7) < weight",
        "few.selection",
    );
    let few = few["items"].as_u64().unwrap();
    assert!((55..90).contains(&few), "{few}");

    fs::rename(workshop.path("shards"), workshop.path("moved")).unwrap();
    let [one, two, three] = ["all.selection", "few.selection", "rest.selection"].map(path);
    let shown = last_json(&ok(&["selection", "show", &two, "--json"]));
    assert!(
        shown["items"] == few && shown["provenance"]["sql"].as_str().unwrap().contains("sample_uniform"),
        "{shown}"
    );
    let rest = last_json(&ok(&["selection", "minus", &one, &two, "--to", &three, "--json"]));
    assert_eq!(rest["items"].as_u64(), Some(144 - few));
    let difference = last_json(&ok(&["selection", "diff", &one, &three, "--json"]));
    assert_eq!((difference["only_in_first"].as_u64(), difference["same"].as_bool()), (Some(few), Some(false)));
    let union = last_json(&ok(&["selection", "union", &two, &three, "--to", &path("union.selection"), "--json"]));
    assert_eq!(union["digest"], all["digest"]);
    let none = last_json(&ok(&["selection", "intersect", &two, &three, "--to", &path("none.selection"), "--json"]));
    assert_eq!(none["items"], 0);

    // The run trains on the file's samples wherever the shards are; too few of them are named.
    let moved = format!("scan.shards=[{:?}]", path("moved"));
    let words = ["--set", &moved, "--set", &format!("scan.selection={one}"), "--set", "train.epochs=1"];
    workshop.ok("train", &[&words[..], &["--run", &path("run")]].concat());
    let steps = lines(&workshop.path("run").join("metrics.jsonl"));
    assert_eq!(steps.iter().rfind(|line| line.get("batch_digest").is_some()).unwrap()["step"], 4);
    // Row groups of half the size: another footer, so other shards.
    let images = path("images");
    ok(&["import", &images, &path("other"), "--row-group-rows", "16"]);
    let other = format!("scan.shards=[{:?}]", path("other"));
    let words = ["--set", &other, "--set", &format!("scan.selection={one}"), "--run", &path("nowhere")];
    let missing = workshop.fails(1, "train", &words);
    assert!(missing.contains("all.selection: its shards are not those") && missing.contains(".parquet"), "{missing}");
    let sql = fails(2, &["select", train]);
    assert!(sql.contains("--shards"), "{sql}");
}

#[test]
fn a_mixture_trains_and_resumes_as_if_never_stopped() {
    let workshop = Workshop::new();
    let shards = workshop.path("shards").to_str().unwrap().to_owned();
    let source = |class: &str, weight: f64| {
        format!(
            "{{ shards = [{shards:?}], sql = \"SELECT sample_id FROM shards WHERE label {class}\", weight = {weight} }}"
        )
    };
    let text = EMBEDDED[1].1.replace("shards = [\"data/shards\"]", "").replace(
        "lanes = 8",
        &format!("lanes = 8\nsources = {{ most = {}, few = {} }}", source("<> 'disc'", 0.75), source("= 'disc'", 0.25)),
    );
    let text = text.lines().filter(|line| !line.starts_with("sql = ")).collect::<Vec<_>>().join("\n");
    fs::write(workshop.path("mixed.toml"), text).unwrap();
    let pipeline = workshop.path("mixed.toml").to_str().unwrap().to_owned();
    let words = |command: &str, rest: &[&str]| -> Vec<String> {
        let small = workshop.words(command, rest);
        let mut words: Vec<String> = small.into_iter().filter(|word| !word.starts_with("scan.shards=")).collect();
        // Without its value the first `--set` goes too.
        words.remove(2);
        words[1].clone_from(&pipeline);
        words
    };
    let ok = |command: &str, rest: &[&str]| ok(&words(command, rest).iter().map(String::as_str).collect::<Vec<_>>());
    let selected = ok("select", &["--json"]);
    assert!(selected.contains("source few: ") && selected.contains("passes over its 64 items"), "{selected}");
    let report = last_json(&selected);
    let count = |name: &str| report["sources"][name]["epoch_items"].as_u64().unwrap();
    assert_eq!(count("few") + count("most"), report["epoch_items"].as_u64().unwrap());
    assert!(ok("explain", &[]).contains("sources=2"));
    let [whole, parts] = ["whole", "parts"].map(|name| workshop.path(name).to_str().unwrap().to_owned());
    ok("train", &["--set", "train.max_steps=6", "--run", &whole]);
    ok("train", &["--set", "train.max_steps=2", "--run", &parts]);
    assert!(workshop.path("parts/few.selection.selection").is_file());
    let resumed = run(&["train", "--resume", &parts, "--set", "train.max_steps=6"]);
    assert!(resumed.status.success(), "{}", text_of(&resumed));
    let digests = |run: &str| {
        let of_steps = lines(&workshop.path(run).join("metrics.jsonl"));
        let of_steps = of_steps.iter().filter(|line| line.get("batch_digest").is_some());
        of_steps.map(|line| (line["batch_digest"].clone(), line["loss"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(digests("whole"), digests("parts"));
    assert_eq!(digests("whole").len(), 6);
}

fn text_of(output: &Output) -> String {
    text(&output.stderr)
}
