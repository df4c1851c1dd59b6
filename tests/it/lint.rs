//! `diptych lint` over shards with one of everything that is odd.
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, BinaryArray, RecordBatch, StringArray, UInt32Array, UInt64Array},
        datatypes::{DataType, Field, Schema as ArrowSchema, UInt64Type},
    },
    parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, imageops::FilterType};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

const SIDE: u32 = 48;

/// A row: image, caption.
struct Row {
    image: Vec<u8>,
    caption: Option<String>,
    /// Whether the hash beside the image is of other bytes.
    is_altered: bool,
    width: u32,
}

impl Row {
    fn new(image: Vec<u8>, caption: &str) -> Self {
        Self { image, caption: Some(caption.to_owned()), is_altered: false, width: SIDE }
    }
}

/// No two alike.
fn picture(number: u32) -> DynamicImage {
    DynamicImage::from(RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let mut draws =
            diptych::seed::draws(4, "blocks of a lint test", &[u64::from(number), u64::from(x / 8), u64::from(y / 8)]);
        Rgb([0; 3].map(|_: u8| draws.below(256) as u8))
    }))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn good(number: u32) -> Row {
    Row::new(encoded(&picture(number), ImageFormat::Png), &format!("picture {number} of coloured blocks"))
}

fn write(path: &Path, rows: &[Row]) {
    let text = |of: &dyn Fn(&Row) -> Option<String>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let hash = |row: &Row| xxh3_64(&row.image) ^ u64::from(row.is_altered);
    let columns: Vec<(Field, ArrayRef)> = vec![
        (
            Field::new("image", DataType::Binary, false),
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.image))),
        ),
        (
            Field::new("width", DataType::UInt32, false),
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.width))),
        ),
        (Field::new("height", DataType::UInt32, false), Arc::new(UInt32Array::from(vec![SIDE; rows.len()]))),
        (
            Field::new("format", DataType::Utf8, false),
            text(&|row| Some(if row.image.starts_with(&[0xff]) { "jpeg" } else { "png" }.into())),
        ),
        (Field::new("caption", DataType::Utf8, true), text(&|row| row.caption.clone())),
        (Field::new("label", DataType::Utf8, true), text(&|row| (row.image.len() % 2 == 0).then(|| "even".to_owned()))),
        (Field::new("split", DataType::Utf8, true), text(&|_| Some("train".to_owned()))),
        (Field::new("source", DataType::Utf8, false), text(&|_| Some("x".to_owned()))),
        (
            Field::new("image_bytes", DataType::UInt64, false),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.image.len() as u64))),
        ),
        (
            Field::new("image_xxh3", DataType::UInt64, false),
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(hash))),
        ),
    ];
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), arrays).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn lint(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_diptych")).arg("lint").args(words).stdin(Stdio::null()).output().unwrap()
}

fn last_json(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Two shards: 20 sound rows in each, and in the second one of everything that is odd.
fn odd(folder: &Path) {
    write(&folder.join("a.parquet"), &(0..20).map(good).collect::<Vec<_>>());
    let mut rows: Vec<Row> = (20..40).map(good).collect();
    let cut = encoded(&picture(50), ImageFormat::Png);
    let brighter = picture(3).brighten(6).resize_exact(SIDE, SIDE, FilterType::Nearest);
    rows.push(Row::new(cut[..cut.len() / 2].to_vec(), "an image that is cut off"));
    rows.push(Row { is_altered: true, ..good(51) });
    rows.push(Row { width: 999, ..good(52) });
    rows.push(Row::new(good(7).image, "a second copy of another picture"));
    rows.push(Row::new(encoded(&brighter, ImageFormat::Jpeg), "the third picture a little brighter"));
    rows.push(Row::new(good(53).image, "IMG_0001.JPG"));
    rows.push(Row::new(good(54).image, "<p>a paragraph of text</p>"));
    rows.push(Row { caption: None, ..good(55) });
    for number in 60..66 {
        rows.push(Row::new(good(number).image, "the same words again and again"));
    }
    write(&folder.join("b.parquet"), &rows);
}

#[test]
fn one_of_everything_that_is_odd_is_found_once() {
    let folder = tempfile::tempdir().unwrap();
    odd(folder.path());
    let (data, to) = (folder.path().display().to_string(), folder.path().join("out"));
    let output =
        lint(&["--shards", &format!("{data}/*.parquet"), "--repeated", "5", "--to", to.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = last_json(&output);
    assert_eq!(report["statistics"]["rows"], 54);
    assert_eq!((&report["shards"], &report["unread_shards"], &report["bad_images"]), (&2.into(), &0.into(), &2.into()));
    let expected = serde_json::json!({
        "caption": { "file_name": 1, "html": 1, "repeated": 1 },
        "duplicate": { "exact": 1, "near": 1 },
        "image": { "checksum": 1, "decode": 1, "differs": 1 },
    });
    assert_eq!(report["findings"], expected);
    assert_eq!(report["statistics"]["nulls"]["caption"], 1);
    assert_eq!(report["statistics"]["formats"]["jpeg"], 1);
    let widths = &report["statistics"]["histograms"][0];
    assert_eq!((&widths["least"], &widths["most"]), (&48.0.into(), &999.0.into()));

    let table = fs::File::open(to.join("lint.parquet")).unwrap();
    let batch = ParquetRecordBatchReaderBuilder::try_new(table).unwrap().build().unwrap().next().unwrap().unwrap();
    assert_eq!(batch.num_rows(), 8);
    let column = |name: &str| Arc::clone(batch.column_by_name(name).unwrap());
    let (classes, rows, ids) = (column("class"), column("row"), column("sample_id"));
    let (of, messages, shards) = (column("duplicate_of"), column("message"), column("shard"));
    for at in 0..8 {
        let class = classes.as_string::<i32>().value(at);
        let row = rows.as_primitive::<UInt64Type>().value(at);
        let expected = match class {
            "decode" => 20,
            "checksum" => 21,
            "differs" => 22,
            "exact" => 23,
            "near" => 24,
            "file_name" => 25,
            "html" => 26,
            _ => 33,
        };
        assert_eq!(row, expected, "{class}");
        assert_eq!(ids.as_primitive::<UInt64Type>().value(at), 1 << 40 | row);
        assert!(shards.as_string::<i32>().value(at).ends_with("b.parquet"));
        assert!(messages.as_string::<i32>().value(at).split_whitespace().count() > 2);
        let other = of.is_valid(at).then(|| of.as_primitive::<UInt64Type>().value(at));
        assert_eq!(
            other,
            match class {
                "exact" => Some(7),
                "near" => Some(3),
                _ => None,
            }
        );
    }
    let page = fs::read_to_string(to.join("lint.html")).unwrap();
    assert!(
        page.contains("data:image/jpeg;base64,")
            && page.contains("width in pixels")
            && !page.contains("<p>a paragraph")
    );
    assert!(!page.contains("src=\"http"), "the page needs the network");
}

#[test]
fn bad_images_fail_only_where_asked_and_unread_shards_always() {
    let folder = tempfile::tempdir().unwrap();
    odd(folder.path());
    let pattern = format!("{}/*.parquet", folder.path().display());
    let failing = lint(&["--shards", &pattern, "--fail-on", "bad"]);
    assert_eq!(failing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failing.stderr).contains("2 images are bad"));
    assert!(lint(&["--shards", &pattern, "--fail-on", "bad", "--no-images"]).status.success(), "nothing was decoded");

    let whole = fs::read(folder.path().join("a.parquet")).unwrap();
    fs::write(folder.path().join("c.parquet"), &whole[..whole.len() - 9]).unwrap();
    let unread = lint(&["--shards", &pattern, "--json"]);
    assert_eq!(unread.status.code(), Some(1));
    // What could be read was linted all the same, under the numbers that the sound shards have alone.
    let report = last_json(&unread);
    assert_eq!((&report["unread_shards"], &report["findings"]["shard"]["unreadable"]), (&1.into(), &1.into()));
    assert_eq!(report["findings"]["image"]["decode"], 1);
    let text = String::from_utf8(unread.stdout).unwrap();
    assert!(text.contains("c.parquet"), "{text}");
    assert_eq!(lint(&["--shards", "nowhere/*.parquet"]).status.code(), Some(1));
    assert_eq!(lint(&[]).status.code(), Some(2));
}
