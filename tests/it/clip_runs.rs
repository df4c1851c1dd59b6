//! Images with texts from files to a checkpoint that others read: through the data half, and through the commands.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{ArrayRef, BinaryArray, ListBuilder, RecordBatch, StringArray, StringBuilder},
        datatypes::{Field, Schema as ArrowSchema},
    },
    parquet::arrow::ArrowWriter,
};
use diptych::{
    batch::PairCaptions,
    pipeline::Plan,
    run::{choose::choose, data::Data},
    scan::epoch::EpochPlan,
    tokenize::clip,
};
use serde_json::Value;

use super::home::Home;

const CONCEPTS: usize = 40;

const PIPELINE: &str = r#"
[scan]
schema = "image_text"
shards = ["SHARDS"]
sql = "SELECT sample_id FROM shards WHERE split = 'train'"
shuffle_window_rows = 64
shuffle_window_megabytes = 8
lanes = 2
max_bad_share = 0.5

[augment]
image = [{ random_resized_crop = { side_pixels = 16, area = [0.7, 1.0] } }]

[pair.image_text]
separator = "|"

[prefetch]
batch_rows = 16
capacity_megabytes = 2
pixel_digest = true

[method.clip]
embedding_width = 8
activation = "gelu"
vision.vision_transformer = { image_side_pixels = 16, patch_side_pixels = 8, width = 8, blocks = 1, heads = 2, perceptron_width = 16 }
text = { context_tokens = 8, width = 8, blocks = 1, heads = 2, perceptron_width = 16 }
patch_dropout = 0.5

[train]
epochs = 4
optimizer.adamw = { rate = 1e-3, betas = [0.9, 0.98], epsilon = 1e-6, weight_decay = 0.1 }
report_every_steps = 1

[evaluate]
bank_sql = "SELECT sample_id FROM shards WHERE sample_uniform(sample_id, 7) < 0.6"
query_sql = "SELECT sample_id FROM shards WHERE sample_uniform(sample_id, 7) >= 0.6"
labels_per_class = []
"#;

fn png(number: usize) -> Vec<u8> {
    let image = image::RgbImage::from_fn(20, 20, |x, y| {
        let level = |factor: usize| (number * factor + x as usize * 5 + y as usize * 3) as u8;
        image::Rgb([level(7), level(29), level(53)])
    });
    let mut encoded = std::io::Cursor::new(vec![]);
    image.write_to(&mut encoded, image::ImageFormat::Png).expect("encodes");
    encoded.into_inner()
}

/// Texts of a picture; every tenth picture has none.
fn caption(number: usize) -> String {
    match number % 10 {
        3 => String::new(),
        _ => format!("picture {number}|the {number}th thing"),
    }
}

/// With pictures as shards, and the pipeline.
fn home() -> Home {
    let home = Home::new();
    let (pictures, shards) = (home.path("pictures"), home.path("shards"));
    fs::create_dir(&pictures).expect("a folder");
    let mut table = String::from("file_name,caption,label,split\n");
    for number in 0..CONCEPTS {
        fs::write(pictures.join(format!("{number}.png")), png(number)).expect("a picture");
        table += &format!("{number}.png,{},class {},train\n", caption(number), number % 2);
    }
    fs::write(pictures.join("metadata.csv"), table).expect("a table");
    home.ok(&["import", "pictures", "shards"]);
    fs::write(home.path("p.toml"), PIPELINE.replace("SHARDS", &shards.display().to_string())).expect("a file");
    home
}

fn plan(home: &Home, sets: &[String]) -> Plan {
    Plan::read(home.path("p.toml").to_str().expect("UTF-8"), sets).expect("no mistake")
}

/// Every batch of some epochs: tokens, hashes of images, digest of pixels, whether an item was replaced.
fn epochs(plan: &Plan) -> Vec<String> {
    let data = Data::open(plan).expect("shards");
    let training = data.training(plan, choose(&data, plan).expect("a selection").mixture, None).expect("epochs");
    (0..2).flat_map(|epoch| batches(&data, plan, &training, epoch)).collect()
}

fn batches(data: &Data, plan: &Plan, training: &EpochPlan, epoch: u64) -> Vec<String> {
    let mut queue = data.queue(plan, training, epoch, 0).expect("a queue");
    let mut found = vec![];
    while let Some(batch) = queue.next_batch().expect("a batch") {
        let captions = PairCaptions::from_record_batch(&batch).expect("texts");
        let texts: Vec<String> = captions.tokens.iter().map(|ids| clip::text(ids)).collect();
        found.push(format!("{texts:?} {:?} {:?}", captions.images, batch.column_by_name("pixel_digest")));
    }
    found
}

#[test]
fn texts_and_images_are_the_same_whatever_the_threads_and_others_in_another_epoch() {
    let workshop = home();
    let with = |threads: usize| epochs(&plan(&workshop, &[format!("augment.decode_threads={threads}")]));
    let one = with(1);
    assert_eq!(one, with(3));
    assert_eq!(one.len(), 4);
    assert_ne!(one[..2], one[2..]);
    let other_seed = epochs(&plan(&workshop, &["seed=5".into()]));
    assert_ne!(one, other_seed);
    // Both texts of a picture come up, and never the mark between them.
    let all = one.concat();
    assert!(all.contains("picture 1 ") || all.contains("picture 2 "), "{all}");
    assert!(all.contains("th thing") && !all.contains('|'), "{all}");
}

#[test]
fn samples_without_a_text_are_replaced_and_listed() {
    let workshop = home();
    workshop.ok(&["train", "p.toml", "--run", "run"]);
    let metrics = fs::read_to_string(workshop.path("run/metrics.jsonl")).expect("metrics");
    let last: Value = metrics
        .lines()
        .rev()
        .find(|line| line.contains("batch_digest"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .expect("a line");
    // Four pictures of forty, met once per epoch where a batch holds them; 32 of 40 are in a batch.
    let bad = last["bad_items"].as_u64().expect("a count");
    assert!((6..=16).contains(&bad), "{bad}");
    let table = format!("{}/*.parquet", workshop.path("run/quarantine").display());
    let listed = workshop.ok(&["sql", &format!("SELECT class, count(*) AS n FROM '{table}' GROUP BY class"), "--json"]);
    assert!(listed.contains("no_caption"), "{listed}");
    // Without patience for them the run stops.
    let words = [
        "train",
        "p.toml",
        "--run",
        "strict",
        "--set",
        "scan.sql=SELECT sample_id FROM shards WHERE caption IS NULL OR caption = ''",
    ];
    let output = workshop.run(&words);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("fill no batch") || error.contains("replace"), "{error}");
}

#[test]
fn lists_of_texts_and_texts_of_a_query_are_taken_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let rows = 24;
    let images = BinaryArray::from_iter_values((0..rows).map(png));
    let names = StringArray::from_iter_values((0..rows).map(|row| format!("row {row}")));
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..rows {
        lists.append_value([Some(format!("first {row}")), Some(format!("second {row}"))]);
    }
    let columns: Vec<(&str, ArrayRef)> =
        vec![("image", Arc::new(images)), ("captions", Arc::new(lists.finish())), ("name", Arc::new(names))];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Arc::new(ArrowSchema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, column)| column).collect())
        .expect("fits");
    let file = File::create(folder.path().join("x.parquet")).expect("a file");
    let mut writer = ArrowWriter::try_new(file, schema, None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");

    let text = PIPELINE.replace("SHARDS", &folder.path().display().to_string());
    let read = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        epochs(&Plan::parse("p.toml", &text, &sets).expect("no mistake")).concat()
    };
    let every = "scan.sql=SELECT sample_id FROM shards";
    let of_lists = read(&[every, "pair.image_text.caption=captions"]);
    assert!(of_lists.contains("\"first") && of_lists.contains("\"second"), "{of_lists}");
    let brought = read(&[
        "scan.sql=SELECT sample_id, 'a drawing of ' || name AS words FROM shards",
        "pair.image_text.caption=words",
    ]);
    assert!(brought.contains("a drawing of row 1"), "{brought}");

    let plan = |column: &str| {
        Plan::parse("p.toml", &text, &[every.into(), format!("pair.image_text.caption={column}")]).expect("no mistake")
    };
    let refused = |column: &str| {
        let plan = plan(column);
        let data = Data::open(&plan).expect("shards");
        let mixture = choose(&data, &plan).expect("a selection").mixture;
        let planned = data.training(&plan, mixture, None).and_then(|training| data.queue(&plan, &training, 0, 0));
        planned.map(|_| ()).expect_err("no texts").report()
    };
    let error = refused("captoin");
    assert!(error.contains("no column \"captoin\"") && error.contains("captions"), "{error}");
}

fn weights(run: &Path, step: u64) -> Vec<u8> {
    fs::read(run.join(format!("checkpoints/step-{step}/weights.safetensors"))).expect("a checkpoint")
}

/// Lines of the metrics without what the clock says.
fn timeless(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        if let Value::Object(entries) = &mut line {
            entries
                .retain(|key, _| !key.ends_with("_seconds") && key != "samples_per_second" && key != "data_wait_share");
        }
        line
    });
    lines.collect()
}

#[test]
fn a_run_is_previewed_trained_resumed_evaluated_exported_and_scored_with() {
    let workshop = home();
    assert!(workshop.ok(&["check", "p.toml"]).contains("an image of 16 pixels a side and its text"));
    let words = workshop.ok(&["preview", "p.toml", "--to", "views.png", "--pairs", "6"]);
    assert!(words.contains("6 images of 16 pixels with their texts"), "{words}");
    // Three lines at most stand below each image.
    let picture = image::open(workshop.path("views.png")).expect("a PNG");
    assert!(picture.width() > 800 && picture.height() > 128 + 20, "{} x {}", picture.width(), picture.height());

    workshop.ok(&["train", "p.toml", "--run", "whole"]);
    workshop.ok(&["train", "p.toml", "--run", "parts", "--set", "train.max_steps=3"]);
    workshop.ok(&["train", "--resume", "parts", "--set", "train.max_steps=100"]);
    let (whole, parts) = (workshop.path("whole"), workshop.path("parts"));
    assert_eq!(timeless(&whole), timeless(&parts));
    assert_eq!(weights(&whole, 8), weights(&parts, 8));
    let page = fs::read_to_string(whole.join("report.html")).expect("a report");
    assert!(
        page.contains("Images and texts") && page.contains("<h2>A batch</h2>") && page.contains("under each the text")
    );

    let scores = workshop.ok(&["evaluate", "whole", "--json"]);
    assert!(scores.contains("in front of the projection") && scores.contains("raw_pixels"), "{scores}");

    let said = workshop.ok(&["export", "whole", "--to", "exported"]);
    assert!(said.contains("step 8") && said.contains("transformers"), "{said}");
    for file in ["config.json", "preprocessor_config.json", "model.safetensors"] {
        assert!(workshop.path("exported").join(file).is_file(), "{file}");
    }
    workshop.ok(&["export", "whole", "--to", "for-open-clip", "--for", "open_clip"]);
    fs::write(workshop.path("x.png"), png(1)).expect("a picture");
    let score = |folder: &str| -> Value {
        let said =
            workshop.ok(&["score", "--weights", folder, "--image", "x.png", "--text", "picture 1", "a cat", "--json"]);
        serde_json::from_str(said.lines().last().expect("a line")).expect("JSON")
    };
    let (theirs, ours) = (score("exported"), score("for-open-clip"));
    assert_eq!(theirs["images"][0]["texts"], ours["images"][0]["texts"]);
    assert_eq!(theirs["activation"], "gelu");
    let again = workshop.run(&["export", "whole", "--to", "exported"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"));
    if let Some(kept) = std::env::var_os("DIPTYCH_KEEP_EXPORT") {
        let kept = Path::new(&kept);
        fs::create_dir_all(kept).expect("a folder");
        for folder in ["exported", "for-open-clip"] {
            for entry in fs::read_dir(workshop.path(folder)).expect("there") {
                let path = entry.expect("readable").path();
                fs::copy(&path, kept.join(path.file_name().expect("a name"))).expect("copied");
            }
        }
    }
}
