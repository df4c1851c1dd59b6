//! Text from files to batches, and a run of CPC over sentences: import, reading in place, resume, evaluation.
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, RecordBatch, StringArray},
        datatypes::{UInt32Type, UInt64Type},
    },
    parquet::arrow::ArrowWriter,
};
use diptych::{
    ingest::{ImportSettings, Kind},
    pair::{SampleKernel as _, SentencesSettings, sentences::Sentences},
    scan::{epoch::EpochPlan, quarantine::Quarantine, window_columns::TOKENS},
};
use serde_json::{Value, json};

use super::{
    home::Home,
    import::{all, imported, read, shards, texts, write},
    opened::Opened,
    scan::try_run,
    series_runs::{assert_equal_runs, checkpoints, copy, lines},
};

/// Document `number` has sentences that say which and where they are.
fn document(number: usize) -> String {
    (0..6 + number % 5).map(|sentence| format!("Text {number} says {sentence}. ")).collect()
}

/// 60 documents in JSON lines, two of them of no use.
fn corpus(path: &Path) {
    let line = |number: usize| {
        let text = if number == 7 { "...".to_owned() } else { document(number) };
        let (label, group) = (number % 3, format!("writer {}", number % 4));
        json!({ "text": text, "label": label, "group": group, "split": "train" }).to_string() + "\n"
    };
    fs::write(path, (0..60).map(line).collect::<String>()).expect("a file");
}

fn imported_corpus() -> Opened {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(&folder.path().join("corpus.jsonl"));
    let settings = ImportSettings { read_as: Some(Kind::Documents), row_group_rows: 10, ..ImportSettings::default() };
    imported(&folder.path().join("corpus.jsonl"), &folder.path().join("to"), &settings).expect("an import");
    Opened::new("documents", folder, "to", &[])
}

fn planned(data: &Opened, sql: &str, pair: &str) -> EpochPlan {
    let pair: SentencesSettings = toml::from_str(pair).expect("settings");
    let kernel = Arc::new(Sentences::training(&pair));
    let mut plan = EpochPlan { batch_rows: 8, ..data.epochs(sql, kernel, pair.group) };
    plan.scan.lanes = 2;
    plan
}

fn epoch(plan: &EpochPlan, number: u64, first: u64) -> Vec<RecordBatch> {
    try_run(plan, number, first, |batch| batch).expect("an epoch")
}

/// Document and first sentence of every window of a batch, whose sentences follow one another.
fn windows(batch: &RecordBatch, pair: &str) -> Vec<(usize, usize)> {
    let kernel = Sentences::training(&toml::from_str(pair).expect("settings"));
    let lists = batch.column_by_name(TOKENS).expect("tokens").as_fixed_size_list();
    let ids = lists.values().as_primitive::<UInt32Type>().values();
    let of_window = |ids: &[u32]| {
        let said: Vec<(usize, usize)> = kernel.texts_of(ids).iter().map(|sentence| numbers(sentence)).collect();
        assert!(said.windows(2).all(|pair| pair[1] == (pair[0].0, pair[0].1 + 1)), "{said:?}");
        said[0]
    };
    ids.chunks(kernel.shape().iter().product()).map(of_window).collect()
}

/// `text 1 2 says 3 .`: the tokenizer knows digits alone.
fn numbers(sentence: &str) -> (usize, usize) {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a number");
    let (document, place) = sentence.split_once("says").unwrap_or_else(|| panic!("{sentence:?}"));
    (digits(document), digits(place))
}

#[test]
fn tables_and_folders_of_text_become_rows_that_say_what_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    corpus(&folder.path().join("corpus.jsonl"));
    let to = folder.path().join("to");
    let settings = ImportSettings { read_as: Some(Kind::Documents), ..ImportSettings::default() };
    let report = imported(&folder.path().join("corpus.jsonl"), &to, &settings).expect("an import");
    assert_eq!((report.rows, report.quarantined, report.samples.as_str()), (59, 1, "documents"));
    let batch = read(&shards(&to)[0]);
    let sentences = batch.column_by_name("sentences").expect("a count").as_primitive::<UInt32Type>();
    let bytes = batch.column_by_name("text_bytes").expect("a length").as_primitive::<UInt64Type>();
    let (found, sources) = (texts(&batch, "text"), texts(&batch, "source"));
    for (row, source) in sources.iter().enumerate() {
        let number: usize = source.as_deref().expect("a name").rsplit_once('#').expect("a row").1.parse().expect("one");
        assert_eq!(found[row].as_deref(), Some(document(number).as_str()));
        assert_eq!(sentences.value(row) as usize, 6 + number % 5);
        assert_eq!(bytes.value(row) as usize, document(number).len());
        assert_eq!(texts(&batch, "group")[row], Some(format!("writer {}", number % 4)));
    }
    // Folders of files; their folders are classes.
    let from = folder.path().join("from");
    write(&from, "train/news/1.txt", "One. Two.");
    write(&from, "train/verse/2.md", "A rose\n\nis a rose");
    write(&from, "test/verse/3.txt", [0xff, 0xfe]);
    let report = imported(&from, &folder.path().join("files"), &settings).expect("an import");
    assert_eq!((report.kind.as_str(), report.rows, report.quarantined), ("class_folders_with_splits", 2, 1));
    let labels: BTreeSet<_> = all(&folder.path().join("files"), "label").into_iter().collect();
    assert_eq!(labels, [Some("news".to_owned()), Some("verse".to_owned())].into());
}

#[test]
fn texts_beside_other_files_are_skipped_unless_they_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let from = folder.path().join("from");
    write(&from, "a/1.png", super::import::png(1));
    write(&from, "a/notes.txt", "About a one.");
    let report = imported(&from, &folder.path().join("images"), &ImportSettings::default()).expect("an import");
    assert_eq!((report.rows, report.samples.as_str(), report.skipped.get(".txt")), (1, "images", Some(&1)));
    let settings = ImportSettings { read_as: Some(Kind::Documents), ..ImportSettings::default() };
    let report = imported(&from, &folder.path().join("texts"), &settings).expect("an import");
    assert_eq!((report.rows, report.samples.as_str(), report.skipped.get(".png")), (1, "documents", Some(&1)));
    let tables = folder.path().join("tables");
    write(&tables, "news.jsonl", "{\"text\": \"One. Two.\"}\n");
    write(&tables, "logo.png", super::import::png(1));
    let report = imported(&tables, &folder.path().join("news"), &settings).expect("an import");
    assert_eq!((report.rows, report.samples.as_str(), report.skipped.get(".png")), (1, "documents", Some(&1)));
    let references = ImportSettings { reference: true, ..settings };
    let error = imported(&from, &folder.path().join("index"), &references).expect_err("no images").to_string();
    assert!(error.contains("only images are read from where they are"), "{error}");
}

#[test]
fn windows_are_stretches_of_their_documents_and_threads_and_places_change_nothing() {
    let data = imported_corpus();
    let pair = "window_sentences = 3\nsentence_tokens = 8\nwindows_per_document = 2\ngroup = \"group\"";
    let plan = planned(&data, "SELECT sample_id FROM shards", pair);
    let whole = epoch(&plan, 1, 0);
    assert_eq!(whole.len(), 7, "59 documents, 8 a batch");
    let mut seen = BTreeSet::new();
    for batch in &whole {
        let found = windows(batch, pair);
        let sequences = batch.column_by_name("sequence_ordinal").expect("numbers").as_primitive::<UInt32Type>();
        let groups = batch.column_by_name("group_ordinal").expect("numbers").as_primitive::<UInt32Type>();
        for (row, (document, _)) in found.iter().enumerate() {
            let other = found[row ^ 1];
            assert!(other.0 == *document && other != found[row], "two windows of a document at different places");
            assert_eq!(sequences.value(row), sequences.value(row ^ 1));
            for (at, (of, _)) in found.iter().enumerate() {
                assert_eq!(groups.value(at) == groups.value(row), of % 4 == document % 4);
            }
        }
        seen.extend(found.iter().map(|(document, _)| *document));
    }
    assert_eq!(seen.len(), 56);
    assert_eq!(epoch(&EpochPlan { decode_threads: 1, ..plan.clone() }, 1, 0), whole);
    assert_eq!(epoch(&plan, 1, 4), whole[4..]);
    assert_ne!(windows(&epoch(&plan, 2, 0)[0], pair), windows(&whole[0], pair));
}

#[test]
fn short_documents_are_replaced_and_listed_and_sql_leaves_them_out() {
    let data = imported_corpus();
    let pair = "window_sentences = 8\nsentence_tokens = 8";
    let quarantine = Quarantine::in_memory();
    let plan =
        EpochPlan { quarantine: Some(quarantine.clone()), ..planned(&data, "SELECT sample_id FROM shards", pair) };
    assert!(epoch(&plan, 0, 0).iter().flat_map(|batch| windows(batch, pair)).all(|(number, _)| number % 5 >= 2));
    assert!(quarantine.state().bad > 0);
    let quarantine = Quarantine::in_memory();
    let sql = "SELECT sample_id FROM shards WHERE text_sentences(text) >= 8 AND sentences >= 8";
    let plan = EpochPlan { quarantine: Some(quarantine.clone()), ..planned(&data, sql, pair) };
    assert!(!epoch(&plan, 0, 0).is_empty());
    assert_eq!(quarantine.state().bad, 0);
}

#[test]
fn text_of_others_is_read_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let bodies: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(document)));
    let classes: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(|number| format!("{}", number % 2))));
    let batch = RecordBatch::try_from_iter([("body", bodies), ("class", classes)]).expect("columns");
    let file = File::create(folder.path().join("a.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
    let data = Opened::new("documents", folder, "a.parquet", &[("text", "body"), ("label", "class")]);
    let pair = "window_sentences = 4\nsentence_tokens = 8";
    let plan = planned(&data, "SELECT sample_id FROM shards WHERE label = '1'", pair);
    let found: Vec<(usize, usize)> = epoch(&plan, 0, 0).iter().flat_map(|batch| windows(batch, pair)).collect();
    assert!(found.len() == 16 && found.iter().all(|(number, _)| number % 2 == 1), "{found:?}");
}

/// What this project's sources say of themselves, a document per file, as JSON lines: prose that is there wherever the tests
/// are.
fn prose() -> String {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let comment = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix("//!").or_else(|| line.strip_prefix("///")).map(|text| text.trim().to_owned() + "\n")
    };
    let line = |(number, path): (usize, &PathBuf)| {
        let source = fs::read_to_string(path).expect("a file");
        // A blank line where code stands between comments.
        let text: String = source.lines().map(|line| comment(line).unwrap_or_else(|| "\n".to_owned())).collect();
        let split = if number % 4 == 3 { "test" } else { "train" };
        let label = path.parent().and_then(Path::file_name).expect("a room").to_string_lossy().into_owned();
        json!({ "text": text, "label": label, "split": split }).to_string() + "\n"
    };
    files.iter().enumerate().map(line).collect()
}

const PIPELINE: &str = r#"
[scan]
schema = "documents"
shards = ["shards"]
sql = "SELECT sample_id FROM shards WHERE sentences >= 4"
shuffle_window_rows = 64
shuffle_window_megabytes = 8
lanes = 2

[pair.sentences]
window_sentences = 4
sentence_tokens = 24

[prefetch]
batch_rows = 12
capacity_megabytes = 4

[method.cpc]
encoder.sentences = { vocabulary_tokens = 49_409, embedding_channels = 16, width_channels = 32, kernel_tokens = 3 }
context.gru = { width_channels = 32 }
predicted_frames = 2
negatives = "batch_same_time"

[train]
epochs = 30
optimizer.adamw = { rate = 3e-3 }
rate_scaling = "none"
ema_decay = 0.9
report_every_steps = 1
checkpoint_every_steps = 20
keep_checkpoints = 100

[evaluate]
bank_sql = "SELECT sample_id FROM shards WHERE split = 'train' AND sentences >= 2 AND label IN ('image', 'ingest')"
query_sql = "SELECT sample_id FROM shards WHERE split = 'test' AND sentences >= 2 AND label IN ('image', 'ingest')"
label = "label"
knn = { neighbours = 3, temperature = 0.1 }
"#;

#[test]
fn cpc_learns_which_sentences_follow_is_resumed_to_the_bit_and_scored_beside_its_floor() {
    let workshop = Home::new();
    fs::write(workshop.path("prose.jsonl"), prose()).expect("a file");
    fs::write(workshop.path("text.toml"), PIPELINE).expect("a file");
    let told = workshop.ok(&["import", "prose.jsonl", "shards", "--as", "documents"]);
    assert!(told.contains("of documents, from document_table"), "{told}");
    let told = workshop.ok(&["check", "text.toml"]);
    assert!(told.contains("12 rows a batch, each a window of 4 sentences of 24 tokens"), "{told}");
    let told = workshop.ok(&["preview", "text.toml", "--to", "text.png", "--pairs", "5"]);
    assert!(told.contains("5 documents, each a window of 4 sentences"), "{told}");
    assert_eq!(told.matches("\ndocument ").count(), 3, "the first windows are there to be read: {told}");
    assert!(image::open(workshop.path("text.png")).expect("a picture").width() > 24 * 10);

    workshop.ok(&["train", "text.toml", "--run", "whole", "--set", "augment.decode_threads=1"]);
    let (whole, resumed) = (workshop.path("whole"), workshop.path("resumed"));
    let losses: Vec<f64> = lines(&whole).iter().map(|line| line["loss"].as_f64().expect("a loss")).collect();
    let chance = 12_f64.ln();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..3]), mean(&losses[losses.len() - 3..]));
    assert!(first > 0.7 * chance, "an untrained encoder knows little: {first}");
    assert!(last < 0.9 * first && last < 0.9 * chance, "from {first} to {last}, and chance is {chance}");

    copy(&whole, &resumed);
    let steps: Vec<u64> = checkpoints(&resumed).into_keys().collect();
    for (step, checkpoint) in checkpoints(&resumed) {
        if step > steps[steps.len() / 3] {
            fs::remove_dir_all(checkpoint).expect("a checkpoint");
        }
    }
    workshop.ok(&["train", "--resume", "resumed", "--set", "augment.decode_threads=3"]);
    assert_equal_runs(&resumed, &whole);

    let told = workshop.ok(&["evaluate", "whole", "--json"]);
    let scores: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("JSON");
    let text = scores.to_string();
    assert!(text.contains("token_counts"), "the floor of documents: {text}");
}
