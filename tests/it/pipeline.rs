//! Pipeline files from outside: what a stranger writes and what they are told.
use diptych::{
    error::{Error, Mistake},
    pipeline::{EMBEDDED, Plan},
};

/// Five mistakes of five kinds, in a file that names shards which do not exist.
const FIVE_MISTAKES: &str = r#"
seeed = 1

[scan]
shards = ["nowhere/at/all"]
lanes = "eight"

[augment]
image = [
  { random_resized_crop = { side_pixels = 28 } },
  { horizontal_flip = { probability = 1.5 } },
]

[pair.two_views]
column = "imgae"

[prefetch]
batch_rows = 256

[method.simclr]
encoder = { convnet = {}, resnet18 = {} }

[train]
epochs = 5
optimizer.adamw = {}
"#;

fn mistakes(text: &str, sets: &[&str]) -> Vec<Mistake> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    match Plan::parse("mine.toml", text, &sets).unwrap_err() {
        Error::Pipeline { file, mistakes } => {
            assert_eq!(file, "mine.toml");
            mistakes
        }
        other => panic!("{other}"),
    }
}

#[test]
fn five_mistakes_are_five_reports_with_positions_and_remedies() {
    let mistakes = mistakes(FIVE_MISTAKES, &[]);
    let found: Vec<_> = mistakes.iter().map(|m| (m.position.unwrap(), m.key.as_str())).collect();
    let expected = [
        ((2, 1), "seeed"),
        ((6, 9), "scan.lanes"),
        ((11, 39), "augment.image[1].horizontal_flip.probability"),
        ((15, 10), "pair.two_views.column"),
        ((21, 27), "method.simclr.encoder.resnet18"),
    ];
    assert_eq!(found, expected, "{mistakes:#?}");
    assert!(mistakes.iter().all(|m| !m.remedy.is_empty()), "{mistakes:#?}");
    assert!(mistakes[0].remedy.contains("did you mean \"seed\"?"), "{}", mistakes[0]);
    assert!(mistakes[3].to_string().contains("no column \"imgae\" in image_text v1; did you mean \"image\"?"));
}

#[test]
fn the_report_lists_all_mistakes_under_the_file() {
    let error = Plan::parse("mine.toml", FIVE_MISTAKES, &[]).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("mine.toml: 5 mistakes\n  line 2, column 1: `seeed`: unknown key"), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn an_empty_file_is_told_its_sections() {
    let found: Vec<_> = mistakes("", &[]).into_iter().map(|mistake| (mistake.key, mistake.remedy)).collect();
    let section = |key: &str| (key.to_owned(), format!("add a section [{key}]"));
    assert_eq!(found[..5], ["scan", "pair", "prefetch", "method", "train"].map(section));
    // A recipe without ops is read before it is judged.
    assert_eq!(found[5..].iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["augment.image"]);
}

#[test]
fn broken_syntax_has_a_line() {
    let mistakes = mistakes("seed = 1\n[scan\nshards = []\n", &[]);
    assert_eq!(mistakes[0].position.unwrap().0, 2, "{mistakes:?}");
}

#[test]
fn overrides_mend_a_file_and_break_one() {
    let sets = [
        "augment.image.1.horizontal_flip.probability=0.5",
        "pair.two_views.column=image",
        "method.simclr.encoder={ convnet = {} }",
        "scan.lanes=4",
    ];
    let left = mistakes(FIVE_MISTAKES, &sets);
    assert_eq!(left.len(), 1, "{left:#?}");
    let plan = Plan::read("simclr_small", &["train.epochs=3".into(), "device=cpu".into()]).unwrap();
    assert_eq!(plan.pipeline.train.epochs, 3);
    let broken = mistakes(EMBEDDED[1].1, &["train.epochs=0"]);
    assert_eq!((broken[0].key.as_str(), broken[0].position), ("train.epochs", None));
    assert!(broken[0].problem.contains("--set train.epochs=0"), "{}", broken[0]);
}

#[test]
fn chunks_need_an_encoder_that_does_not_look_at_the_batch_and_rows_to_divide() {
    let refused = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        match Plan::read("simclr", &sets) {
            Ok(plan) => {
                // What was asked for is in the file that the run saves, and what was not is not.
                let text = plan.to_toml().unwrap();
                assert_eq!(text.contains("chunks = 4"), plan.pipeline.train.chunks == 4, "{text}");
                assert_eq!(Plan::parse("again", &text, &[]).unwrap().pipeline, plan.pipeline);
                None
            }
            Err(error) => Some(error.to_string()),
        }
    };
    assert_eq!(refused(&[]), None);
    let (chunks, group) = ("train.chunks=4", "method.simclr.encoder.resnet50.norm=\"group\"");
    assert_eq!(refused(&[chunks, group, "method.simclr.loss_tile_rows=64"]), None);
    assert_eq!(refused(&[chunks, "method.simclr.encoder.resnet50.norm=\"frozen\""]), None);
    for (sets, part) in [
        (vec![chunks], "encoder.resnet50.norm = \"group\""),
        (vec![chunks, group, "method.simclr.head=\"google_v2\""], "head = \"paper_v1\""),
        (vec!["train.chunks=257", group], "257 chunks of 256 rows"),
        (vec!["train.chunks=0"], "train.chunks"),
        (vec!["method.simclr.loss_tile_rows=0"], "method.simclr.loss_tile_rows"),
        (vec!["method.simclr.encoder.resnet50.norm=\"layer\""], "method.simclr.encoder.resnet50.norm"),
    ] {
        let text = refused(&sets).unwrap_or_default();
        assert!(text.contains(part), "{sets:?}: {text}");
    }
}

#[test]
fn embedded_pipelines_resolve_as_they_stand() {
    for (name, text) in EMBEDDED {
        let plan = Plan::read(name, &[]).unwrap_or_else(|error| panic!("{error}"));
        let again = Plan::parse(name, &plan.to_toml().unwrap(), &[]).unwrap();
        assert_eq!(again, plan);
        assert!(text.starts_with('#'), "{name} does not say what it is");
    }
}

#[test]
fn a_device_that_this_build_lacks_is_told_with_its_feature() {
    let unknown = mistakes(EMBEDDED[1].1, &["device=gpu"]);
    assert!(unknown[0].key == "device" && unknown[0].to_string().contains("cpu"), "{}", unknown[0]);
    if !cfg!(feature = "cuda") {
        let missing = mistakes(EMBEDDED[1].1, &["device=cuda:0"]);
        assert!(missing[0].to_string().contains("--features cuda"), "{}", missing[0]);
    }
}
