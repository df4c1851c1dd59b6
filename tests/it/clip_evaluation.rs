//! `embed`, `clip_score` in SQL, zero-shot classification and retrieval, from files to figures, by a small CLIP with random
//! weights: it knows nothing, so every figure is compared with what another command makes of the same model.
use std::{
    fs,
    path::{Path, PathBuf},
};

use diptych::model::clip::Naming;
use serde_json::{Value, json};

use crate::{
    cli::{fails, last_json, ok},
    clip_score::prepare,
};

const CAPTIONS: [&str; 10] = [
    "a red circle",
    "two dogs that run over a lawn in the early morning",
    "a red circle",
    "cat",
    "the sea",
    "a very long text that goes on and on about nothing in particular",
    "night",
    "three birds",
    "a house",
    "rain on a window",
];
const LABELS: [&str; 3] = ["hot_dog", "cat", "sea"];
/// An image whose header is sound and whose pixels are cut off.
const BAD: usize = 7;

/// A model, and shards of ten captioned images, one of them bad.
struct Workshop {
    folder: tempfile::TempDir,
    weights: PathBuf,
}

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (weights, _) = prepare(&folder.path().join("model"), Naming::Transformers);
        let images = folder.path().join("images");
        fs::create_dir(&images).expect("made");
        let mut rows = String::new();
        for (number, caption) in CAPTIONS.iter().enumerate() {
            let name = format!("{number}.png");
            let pixel = |x: u32, y: u32| {
                let n = number as u32;
                image::Rgb([(x * (n + 3)) as u8, (y * 7 + n * 20) as u8, (x * y + n * 31) as u8])
            };
            image::RgbImage::from_fn(24 + number as u32, 20, pixel).save(images.join(&name)).expect("written");
            if number == BAD {
                let whole = fs::read(images.join(&name)).expect("there");
                fs::write(images.join(&name), &whole[..whole.len() - 60]).expect("written");
            }
            let row = json!({ "file_name": name, "caption": caption, "label": LABELS[number % 3] });
            rows.push_str(&format!("{row}\n"));
        }
        fs::write(images.join("metadata.jsonl"), rows).expect("written");
        let workshop = Self { folder, weights };
        let words = ["--decode-check=false", "--keep-order", "--row-group-rows", "3"];
        ok(&[&["import", &workshop.text("images"), &workshop.text("shards")][..], &words].concat());
        workshop
    }

    fn text(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn weights(&self) -> &str {
        self.weights.to_str().expect("UTF-8")
    }

    /// Rows of a query over the shards with the model.
    fn rows(&self, sql: &str, more: &[&str]) -> Vec<Value> {
        let words = ["sql", sql, "--shards", &self.text("shards"), "--weights", self.weights(), "--json"];
        let printed = ok(&[&words[..], more].concat());
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// What `score` says of an image and texts.
    fn score(&self, number: usize, texts: &[&str], variant: &str) -> Vec<Value> {
        let image = self.text(&format!("images/{number}.png"));
        let words =
            ["score", "--weights", self.weights(), "--image", &image, "--clip-score", variant, "--json", "--text"];
        let report = last_json(&ok(&[&words[..], texts].concat()));
        report["images"][0]["texts"].as_array().expect("pairs").clone()
    }

    /// `evaluate --weights` with these settings of `[evaluate]`.
    fn evaluate(&self, sets: &[&str], more: &[&str]) -> Value {
        let shards = format!("scan.shards=[{:?}]", self.text("shards"));
        let mut words = vec!["evaluate", "simclr_small", "--weights", self.weights(), "--json", "--set", &shards];
        words.extend(sets.iter().flat_map(|set| ["--set", *set]));
        words.extend(more);
        last_json(&ok(&words))
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list")).iter().map(number).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Image and text embedding of each row, in order.
fn embeddings(workshop: &Workshop) -> Vec<[Value; 2]> {
    let sql = format!("SELECT * FROM '{}'", workshop.text("embedded/embeddings-00000.parquet"));
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        [row["image_embedding"].clone(), row["text_embedding"].clone()]
    };
    ok(&["sql", &sql, "--json"]).lines().map(row).collect()
}

#[test]
fn embeddings_are_unit_rows_in_order_and_a_bad_image_is_listed() {
    let workshop = Workshop::new();
    let (shards, to) = (workshop.text("shards"), workshop.text("embedded"));
    let words = ["embed", "--weights", workshop.weights(), "--shards", &shards, "--to", &to];
    let stopped = fails(1, &words);
    assert!(stopped.contains("1 of 10 samples cannot be used") && stopped.contains("max_bad_share"), "{stopped}");
    assert!(!Path::new(&to).exists(), "nothing is left of what failed");

    let sql = "SELECT sample_id, image, caption, source FROM shards";
    let report = last_json(&ok(&[&words[..], &["--sql", sql, "--max-bad-share", "0.1", "--json"]].concat()));
    assert_eq!((&report["rows"], &report["quarantined"]), (&10.into(), &1.into()));
    let listed = ok(&["sql", &format!("SELECT * FROM '{to}/quarantine.parquet'"), "--json"]);
    let bad: Value = serde_json::from_str(&listed).expect("one row");
    assert_eq!((&bad["sample_id"], &bad["class"]), (&(BAD as u64).into(), &"decode".into()));

    // Names, order, types, and the join with the shards.
    let joined = format!(
        "SELECT s.sample_id, s.caption, e.source = s.source AS same, e.image_embedding IS NULL AS is_bad, \
         arrow_typeof(e.text_embedding) AS type FROM shards s JOIN '{to}/embeddings-00000.parquet' e \
         ON s.sample_id = e.sample_id ORDER BY s.sample_id"
    );
    let rows = workshop.rows(&joined, &[]);
    assert_eq!(rows.len(), 10);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(
            (&row["same"], &row["is_bad"], &row["caption"]),
            (&true.into(), &(at == BAD).into(), &CAPTIONS[at].into())
        );
        assert!(row["type"].as_str().is_some_and(|name| name.starts_with("FixedSizeList(8")), "{row}");
    }
    let ids = ok(&["sql", &format!("SELECT sample_id FROM '{to}/embeddings-00000.parquet'"), "--json"]);
    let ids: Vec<Value> = ids.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(ids.iter().enumerate().all(|(at, row)| row["sample_id"] == at), "{ids:?}");

    for (at, [image, text]) in embeddings(&workshop).iter().enumerate() {
        let text = numbers(text);
        assert!((dot(&text, &text) - 1.0).abs() < 1e-6);
        if at == BAD {
            continue;
        }
        let image = numbers(image);
        assert!((dot(&image, &image) - 1.0).abs() < 1e-6);
        let cosine = number(&workshop.score(at, &[CAPTIONS[at]], "cosine")[0]["cosine"]);
        assert!((dot(&image, &text) - cosine).abs() < 1e-6, "{at}");
    }
}

#[test]
fn rows_without_something_to_embed_are_refused_before_the_model_is_read() {
    let workshop = Workshop::new();
    let (shards, to) = (workshop.text("shards"), workshop.text("embedded"));
    let embed =
        |sql: &str| fails(2, &["embed", "--weights", "nowhere", "--shards", &shards, "--to", &to, "--sql", sql]);
    let said = embed("SELECT label FROM shards");
    assert!(said.contains("no sample_id") && said.contains("neither image nor caption"), "{said}");
    let said = embed("SELECT sample_id, label AS image, width AS caption FROM shards");
    assert!(said.contains("image as Utf8") && said.contains("must be text"), "{said}");
}

#[test]
fn blank_captions_are_none_and_a_row_without_an_id_is_refused() {
    let workshop = Workshop::new();
    let (shards, to) = (workshop.text("shards"), workshop.text("embedded"));
    let blanks = "CASE WHEN label = 'sea' THEN '\t ' WHEN label = 'cat' THEN '' ELSE caption END AS caption";
    let words = ["embed", "--weights", workshop.weights(), "--shards", &shards, "--to", &to, "--sql"];
    let said = ok(&[&words[..], &[&format!("SELECT sample_id, {blanks} FROM shards")]].concat());
    assert!(said.contains("6 rows without a caption"), "{said}");
    let rows = workshop.rows(
        &format!("SELECT label, clip_score(image, caption) IS NULL AS is_none FROM (SELECT image, label, {blanks} FROM shards)"),
        &["--clip-score", "cosine"],
    );
    let scored = rows.iter().filter(|row| row["is_none"] == false).count();
    assert!(rows.iter().all(|row| row["label"] == "hot_dog" || row["is_none"] == true) && scored >= 3, "{rows:?}");

    let zero_shot = "evaluate.zero_shot={sql=\"SELECT image, CASE WHEN label = 'sea' THEN ' ' ELSE label END AS label FROM shards\"}";
    let found = &workshop.evaluate(&[zero_shot], &[])["zero_shot"]["label"];
    assert_eq!((&found["classes"], &found["left_out"]), (&2.into(), &4.into()), "{found}");

    let to = workshop.text("without_ids");
    let words = ["embed", "--weights", workshop.weights(), "--shards", &shards, "--to", &to, "--sql"];
    let said = fails(2, &[&words[..], &["SELECT NULL::BIGINT AS sample_id, image FROM shards"]].concat());
    assert!(said.contains("sample_id is NULL") && !Path::new(&to).exists(), "{said}");
}

#[test]
fn sql_scores_pairs_as_score_does() {
    let workshop = Workshop::new();
    for variant in ["hessel", "torchmetrics", "cosine"] {
        let sql = "SELECT sample_id, clip_score(image, caption) AS score FROM shards ORDER BY sample_id";
        let rows = workshop.rows(sql, &["--clip-score", variant]);
        assert_eq!(rows.len(), 10);
        for (at, row) in rows.iter().enumerate() {
            if at == BAD {
                assert_eq!(row["score"], Value::Null);
                continue;
            }
            let expected = number(&workshop.score(at, &[CAPTIONS[at]], variant)[0]["clip_score"]);
            assert!(
                (number(&row["score"]) - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{variant} {at}: {row}"
            );
        }
    }
    let said = fails(2, &["sql", "SELECT 1", "--weights", workshop.weights(), "--clip-score", "softmax_rank"]);
    assert!(said.contains("softmax_rank") && said.contains("diptych score"), "{said}");
}

#[test]
fn what_stands_beside_a_pair_does_not_change_its_score() {
    let workshop = Workshop::new();
    let sql = |filter: &str| {
        format!("SELECT sample_id, clip_score(image, caption) AS score FROM shards {filter} ORDER BY sample_id")
    };
    let together = workshop.rows(&sql(""), &["--clip-score", "cosine"]);
    for (at, row) in together.iter().enumerate().filter(|(at, _)| *at != BAD) {
        let alone = workshop.rows(&sql(&format!("WHERE sample_id = {at}")), &["--clip-score", "cosine"]);
        assert!((number(&alone[0]["score"]) - number(&row["score"])).abs() < 1e-6, "{at}");
    }
}

#[test]
fn softmax_rank_is_a_share_among_the_texts() {
    let workshop = Workshop::new();
    let pairs = workshop.score(0, &["a cat", "a dog", "the sea"], "softmax_rank");
    for pair in &pairs {
        assert!((number(&pair["clip_score"]) - number(&pair["probability"])).abs() < 1e-6, "{pair}");
    }
    let sum: f64 = pairs.iter().map(|pair| number(&pair["clip_score"])).sum();
    assert!((sum - 1.0).abs() < 1e-6);
}

#[test]
fn without_weights_the_error_names_the_option() {
    let workshop = Workshop::new();
    let shards = workshop.text("shards");
    let sql = "SELECT sample_id FROM shards WHERE clip_score(image, caption) > 0.5";
    for command in ["sql", "select"] {
        let said = fails(2, &[command, sql, "--shards", &shards]);
        assert!(said.contains("--weights"), "{said}");
    }
    let said = fails(2, &["select", "simclr_small", "--weights", workshop.weights()]);
    assert!(said.contains("goes with SQL") && said.contains("scan.clip_score.weights"), "{said}");
    assert!(ok(&["functions", "clip_score"]).contains("--weights"));
}

#[test]
fn the_best_share_of_pairs_is_one_selection() {
    let workshop = Workshop::new();
    let sql = "SELECT sample_id FROM (SELECT sample_id, percent_rank() OVER (ORDER BY clip_score(image, caption) \
               DESC NULLS LAST) AS share FROM shards) WHERE share <= 0.3";
    let (shards, to) = (workshop.text("shards"), workshop.text("kept.selection"));
    let words = ["select", sql, "--shards", &shards, "--weights", workshop.weights(), "--clip-score", "cosine"];
    let report = last_json(&ok(&[&words[..], &["--verify", "--to", &to, "--json"]].concat()));
    // Ranks 0, 1/9, 2/9 of ten.
    assert_eq!(report["items"], 3, "{report}");
    assert_eq!(report["tables"][0]["name"], "clip_score (cosine)");
    let named = "SELECT sample_id FROM (SELECT sample_id, percent_rank() OVER (ORDER BY score DESC NULLS LAST) AS share \
                 FROM (SELECT sample_id, clip_score(image, caption) AS score FROM shards)) WHERE share <= 0.3";
    let words = [&["select", named][..], &words[2..], &["--json"]].concat();
    assert_eq!(last_json(&ok(&words))["digest"], report["digest"]);
    let scores = workshop.rows(
        "SELECT sample_id, clip_score(image, caption) AS score FROM shards ORDER BY score DESC NULLS LAST LIMIT 3",
        &["--clip-score", "cosine"],
    );
    let extra =
        "SELECT sample_id, clip_score(image, caption) AS score FROM shards WHERE clip_score(image, caption) >= ";
    let sql = format!("{extra}{}", number(&scores[2]["score"]) - 1e-6);
    let words =
        ["select", &sql, "--shards", &shards, "--weights", workshop.weights(), "--clip-score", "cosine", "--json"];
    let by_threshold = last_json(&ok(&words));
    assert_eq!((&by_threshold["items"], &by_threshold["extra_columns"]), (&3.into(), &json!(["score Float32"])));
}

#[test]
fn the_sql_of_a_pipeline_asks_the_model_that_it_names() {
    let workshop = Workshop::new();
    let (shards, pipeline, run) = (workshop.text("shards"), workshop.text("p.toml"), workshop.text("run"));
    let scores = workshop.rows(
        "SELECT clip_score(image, caption) AS score FROM shards ORDER BY score DESC NULLS LAST LIMIT 5",
        &["--clip-score", "cosine"],
    );
    let least = number(&scores[4]["score"]) - 1e-6;
    let sql = format!("SELECT sample_id FROM shards WHERE clip_score(image, caption) >= {least}");
    let words =
        ["select", &sql, "--shards", &shards, "--weights", workshop.weights(), "--clip-score", "cosine", "--json"];
    let by_words = last_json(&ok(&words));

    let model = format!("[scan.clip_score]\nweights = {:?}\nvariant = \"cosine\"\n\n[augment]", workshop.weights());
    let text = PIPELINE
        .replace("SHARDS", &shards)
        .replace("SELECT sample_id FROM shards\"\nshuffle", &format!("{sql}\"\nshuffle"));
    fs::write(&pipeline, text.replace("[augment]", &model)).expect("written");
    assert!(ok(&["check", &pipeline]).contains("planned over 10 rows"));
    let by_pipeline = last_json(&ok(&["select", &pipeline, "--verify", "--json"]));
    for key in ["items", "digest", "tables"] {
        assert_eq!(by_pipeline[key], by_words[key], "{key}");
    }
    assert_eq!(by_pipeline["items"], 5);
    // Training keeps the selection: resuming asks no model.
    ok(&["train", &pipeline, "--run", &run, "--set", "train.epochs=1"]);
    let resolved = fs::read_to_string(Path::new(&run).join("pipeline.toml")).expect("saved");
    assert!(resolved.contains("[scan.clip_score]") && resolved.contains(workshop.weights()), "{resolved}");
    fs::remove_file(workshop.weights()).expect("removed");
    ok(&["train", "--resume", &run]);
    assert!(fails(1, &["select", &pipeline]).contains("safetensors"));
    let said = fails(2, &["check", &pipeline]);
    assert!(said.contains("`scan.sql`") && said.contains("safetensors"), "{said}");
    // A name in a comment or a literal asks for nothing.
    ok(&[
        "select",
        &pipeline,
        "--set",
        "scan.sql=SELECT sample_id FROM shards WHERE caption <> 'clip_score(' -- clip_score()",
    ]);
}

#[test]
fn check_and_train_want_captions_in_every_shard() {
    let workshop = Workshop::new();
    let [shards, told, bare, pipeline, run] =
        ["shards", "told", "bare", "p.toml", "run"].map(|name| workshop.text(name));
    ok(&["sql", "SELECT image AS picture, caption FROM shards", "--shards", &shards, "--to", &told]);
    ok(&["sql", "SELECT image AS picture FROM shards", "--shards", &shards, "--to", &bare]);
    fs::write(&pipeline, PIPELINE.split("[evaluate.retrieval]").next().expect("a part")).expect("written");
    let both = format!("scan.shards=[{told:?}, {bare:?}]");
    let both = ["--set", &both, "--set", "scan.columns={image='picture'}"];
    for words in [&["check", &pipeline][..], &["train", &pipeline, "--run", &run]] {
        let said = fails(2, &[words, &both].concat());
        assert!(said.contains("pair.image_text.caption") && said.contains("column \"caption\""), "{said}");
    }
    let brought = "scan.sql=SELECT sample_id, 'a dog' AS caption FROM shards";
    ok(&[&["check", &pipeline], &both[..], &["--set", brought]].concat());
}

#[test]
fn retrieval_is_what_the_embeddings_say() {
    let workshop = Workshop::new();
    let page = workshop.text("matches.html");
    let retrieval = "evaluate.retrieval={sql='SELECT sample_id, image, caption FROM shards', pictures=4}";
    let shards = format!("scan.shards=[{:?}]", workshop.text("shards"));
    let without = "evaluate.zero_shot={sql='SELECT image, label FROM shards'}";
    let words = ["evaluate", "simclr_small", "--weights", workshop.weights(), "--page", &page, "--set", &shards];
    let said = fails(2, &[&words[..], &["--set", without]].concat());
    assert!(said.contains("--page") && said.contains("pictures above 0") && !Path::new(&page).exists(), "{said}");
    let found = workshop.evaluate(&[retrieval], &["--page", &page]);
    let found = &found["retrieval"];
    assert_eq!((&found["image_to_text"]["queries"], &found["left_out"]), (&9.into(), &1.into()));
    assert!((number(&found["text_to_image"]["chance"]["r5"]) - 5.0 / 9.0).abs() < 1e-12);
    assert!(found["text_to_image"]["untrained"].is_null(), "released weights have no untrained model");

    let (shards, to) = (workshop.text("shards"), workshop.text("embedded"));
    ok(&["embed", "--weights", workshop.weights(), "--shards", &shards, "--to", &to, "--max-bad-share", "1"]);
    let rows: Vec<(Vec<f64>, Vec<f64>)> = embeddings(&workshop)
        .iter()
        .filter(|[image, _]| !image.is_null())
        .map(|[image, text]| (numbers(image), numbers(text)))
        .collect();
    assert_eq!(rows.len(), 9);
    // Both images with the caption "a red circle" tie in it: each has half of it.
    let captions: Vec<&str> = CAPTIONS.iter().enumerate().filter(|(at, _)| *at != BAD).map(|(_, text)| *text).collect();
    let expected: f64 = (0..9)
        .map(|image| {
            let cosine = |text: usize| dot(&rows[image].0, &rows[text].1);
            let own = cosine(image);
            let is_beaten = (0..9).any(|text| cosine(text) > own && captions[text] != captions[image]);
            let tied = captions.iter().filter(|caption| **caption == captions[image]).count() as f64;
            if is_beaten { 0.0 } else { 1.0 / tied }
        })
        .sum();
    assert!((number(&found["image_to_text"]["r1"]) - expected / 9.0).abs() < 1e-9, "{found}");
    let right =
        |text: usize| (0..9).all(|image| dot(&rows[image].0, &rows[text].1) <= dot(&rows[text].0, &rows[text].1));
    let expected = (0..9).filter(|&text| right(text)).count() as f64 / 9.0;
    assert!((number(&found["text_to_image"]["r1"]) - expected).abs() < 1e-9, "{found}");

    let page = fs::read_to_string(page).expect("written");
    assert_eq!((page.matches("class=\"match\"").count(), page.matches("<figure").count()), (4, 20));
    assert_eq!(page.matches("base64,/9j/").count(), 20, "a JPEG each");
    assert!(page.contains("a red circle") && !page.contains("http"));
}

#[test]
fn captions_of_one_image_count_together() {
    let workshop = Workshop::new();
    let lists = "evaluate.retrieval={sql='SELECT sample_id, image, make_array(caption, label) AS caption FROM shards'}";
    let found = workshop.evaluate(&[lists], &[]);
    let (images, texts) = (&found["retrieval"]["image_to_text"], &found["retrieval"]["text_to_image"]);
    assert_eq!((&images["queries"], &images["candidates"], &texts["queries"]), (&9.into(), &18.into(), &18.into()));
    // Rows with one key are one image, whichever of them comes first.
    let keyed = "evaluate.retrieval={sql='SELECT sample_id, image, caption, label AS image_key FROM shards'}";
    let found = workshop.evaluate(&[keyed], &[]);
    let (images, texts) = (&found["retrieval"]["image_to_text"], &found["retrieval"]["text_to_image"]);
    assert_eq!((&images["queries"], &texts["queries"], &texts["candidates"]), (&3.into(), &10.into(), &3.into()));
}

#[test]
fn zero_shot_classes_are_those_with_the_likeliest_prompt() {
    let workshop = Workshop::new();
    let zero_shot = "evaluate.zero_shot={sql='SELECT image, label FROM shards'}";
    let found = workshop.evaluate(&[zero_shot], &[]);
    let found = &found["zero_shot"]["label"];
    assert_eq!((&found["classes"], &found["samples"], &found["left_out"]), (&3.into(), &9.into(), &1.into()));
    let prompts = ["a photo of a cat.", "a photo of a hot dog.", "a photo of a sea."];
    let right = (0..10).filter(|&at| at != BAD).filter(|&at| {
        let pairs = workshop.score(at, &prompts, "cosine");
        let cosine = |at: usize| number(&pairs[at]["cosine"]);
        let best = (0..3).max_by(|&a, &b| cosine(a).total_cmp(&cosine(b)));
        best.map(|best| ["cat", "hot_dog", "sea"][best]) == Some(LABELS[at % 3])
    });
    assert!((number(&found["accuracy"]) - right.count() as f64 / 9.0).abs() < 1e-9, "{found}");
    assert_eq!((number(&found["top5"]), number(&found["top5_chance"])), (1.0, 1.0));
}

#[test]
fn templates_and_names_come_from_files_and_their_mistakes_are_named() {
    let workshop = Workshop::new();
    let (templates, names) = (workshop.text("templates.txt"), workshop.text("names.tsv"));
    fs::write(&templates, "a photo of a {}.\na drawing of a {}.\n").expect("written");
    fs::write(&names, "cat\tsmall cat\nhot_dog\n").expect("written");
    let zero_shot = format!(
        "evaluate.zero_shot={{sql='SELECT image, label FROM shards', templates={templates:?}, names={names:?}}}"
    );
    let found = workshop.evaluate(&[&zero_shot], &[]);
    let found = &found["zero_shot"]["label"];
    assert_eq!((&found["templates"], &found["classes"]), (&2.into(), &2.into()));
    assert_eq!(found["samples_of_unknown_class"], 3, "{found}");
    let listed = "evaluate.zero_shot={sql='SELECT image, label FROM shards', templates=['{}', 'a {} here', 'the {}']}";
    assert_eq!(workshop.evaluate(&[listed], &[])["zero_shot"]["label"]["templates"], 3);

    fs::write(&templates, "a photo\n").expect("written");
    let shards = format!("scan.shards=[{:?}]", workshop.text("shards"));
    let words = ["evaluate", "simclr_small", "--weights", workshop.weights(), "--set", &shards, "--set", &zero_shot];
    let said = fails(2, &words);
    assert!(said.contains("templates.txt") && said.contains("line 1"), "{said}");
    let said = fails(2, &["check", "simclr_small", "--set", &shards, "--set", &zero_shot]);
    assert!(said.contains("1 mistake") && said.contains("line 1"), "{said}");
}

#[test]
fn queries_of_an_evaluation_are_checked_for_their_columns() {
    let workshop = Workshop::new();
    let shards = format!("scan.shards=[{:?}]", workshop.text("shards"));
    let check = |set: &str| fails(2, &["check", "simclr_small", "--set", &shards, "--set", set]);
    let said = check("evaluate.retrieval={sql='SELECT sample_id, image FROM shards'}");
    assert!(said.contains("evaluate.retrieval.sql") && said.contains("no caption"), "{said}");
    let said = check("evaluate.zero_shot={sql='SELECT image FROM shards', label='kind'}");
    assert!(said.contains("no kind"), "{said}");
    assert!(check("evaluate.zero_shot={sql=''}").contains("evaluate.zero_shot.sql"));
    let weightless = ["evaluate", "simclr_small", "--weights", workshop.weights(), "--set", &shards];
    assert!(fails(2, &weightless).contains("neither [evaluate.zero_shot] nor [evaluate.retrieval]"));
}

/// A CLIP of the smallest size over the workshop's shards.
const PIPELINE: &str = r#"
[scan]
schema = "image_text"
shards = ["SHARDS"]
sql = "SELECT sample_id FROM shards"
shuffle_window_rows = 64
shuffle_window_megabytes = 8
lanes = 1
max_bad_share = 0.5

[augment]
image = [{ random_resized_crop = { side_pixels = 16, area = [0.7, 1.0] } }]

[pair.image_text]

[prefetch]
batch_rows = 4
capacity_megabytes = 2

[method.clip]
embedding_width = 8
activation = "gelu"
vision.vision_transformer = { image_side_pixels = 16, patch_side_pixels = 8, width = 8, blocks = 1, heads = 2, perceptron_width = 16 }
text = { context_tokens = 8, width = 8, blocks = 1, heads = 2, perceptron_width = 16 }

[train]
epochs = 2
optimizer.adamw = { rate = 1e-3, betas = [0.9, 0.98], epsilon = 1e-6, weight_decay = 0.1 }
report_every_steps = 1

[evaluate.retrieval]
sql = "SELECT sample_id, image, caption FROM shards"
pictures = 3

[evaluate.zero_shot]
sql = "SELECT image, label FROM shards"
"#;

#[test]
fn a_run_is_scored_by_text_and_embeds_as_its_exported_weights_do() {
    let workshop = Workshop::new();
    let (pipeline, run, shards) = (workshop.text("p.toml"), workshop.text("run"), workshop.text("shards"));
    fs::write(&pipeline, PIPELINE.replace("SHARDS", &shards)).expect("written");
    ok(&["train", &pipeline, "--run", &run]);
    let found = last_json(&ok(&["evaluate", &run, "--json"]));
    assert_eq!(
        (&found["retrieval"]["image_to_text"]["queries"], &found["retrieval"]["left_out"]),
        (&9.into(), &1.into())
    );
    assert_eq!(found["zero_shot"]["label"]["classes"], 3, "{found}");
    let beside = [
        (&found["zero_shot"]["label"]["accuracy"], &found["zero_shot"]["label"]["untrained"]),
        (&found["retrieval"]["image_to_text"]["r1"], &found["retrieval"]["image_to_text"]["untrained"]["r1"]),
        (&found["retrieval"]["text_to_image"]["r5"], &found["retrieval"]["text_to_image"]["untrained"]["r5"]),
    ];
    for (trained, beside) in beside {
        let difference = number(trained) - number(&beside["share"]);
        assert!((number(&beside["difference"]) - difference).abs() < 1e-9, "{beside}");
        assert!(beside["verdict"].is_string() && numbers(&beside["ci95"]).len() == 2, "{beside}");
    }
    let report = fs::read_to_string(Path::new(&run).join("report.html")).expect("a report");
    assert!(report.contains("Best images of captions") && report.contains("class=\"match\""));
    assert!(report.contains("<b>Retrieval</b>") && report.contains("by prompts"));
    assert!(report.contains("<small>untrained model</small>") && report.contains("<small>difference</small>"));
    assert!(report.contains("R@1 image to text among 9") && report.contains("its own image has rank"));
    let sql = found["retrieval"]["sql"].as_str().expect("the query");
    assert!(sql.starts_with("SELECT") && report.contains(&format!("Of <code>{sql}</code>")), "{sql}");

    let exported = workshop.text("exported");
    ok(&["export", &run, "--to", &exported]);
    let embed = |model: &[&str]| {
        let to = workshop.text("embedded");
        let words = ["embed", "--shards", &shards, "--to", &to, "--overwrite", "--max-bad-share", "1"];
        ok(&[&words[..], model].concat());
        embeddings(&workshop)
    };
    let (of_run, of_weights) = (embed(&["--run", &run]), embed(&["--weights", &exported]));
    assert_eq!(of_run.len(), 10);
    for (at, (a, b)) in of_run.iter().zip(&of_weights).enumerate() {
        assert_eq!((a[0].is_null(), b[0].is_null()), (at == BAD, at == BAD));
        for (a, b) in a.iter().zip(b).filter(|(a, _)| !a.is_null()) {
            assert!((dot(&numbers(a), &numbers(b)) - 1.0).abs() < 1e-5, "{at}: {a} {b}");
        }
    }
    let sql = "SELECT sample_id FROM shards WHERE clip_score(image, caption) IS NOT NULL";
    let report = last_json(&ok(&["select", sql, "--shards", &shards, "--run", &run, "--json"]));
    assert_eq!(report["items"], 9, "{report}");
}
