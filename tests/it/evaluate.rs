//! Evaluation as a caller sees it: representations in, scores and a report out.

use diptych::{
    evaluate::{
        EvaluateSettings, KnnSettings,
        features::Features,
        knn::{UnitRows, nearest},
        protocol::{Evaluation, Role},
        scores::{Scores, Verdict},
    },
    run::contact_sheet::write_contact_sheet,
    seed,
    train::report::write_report,
};

const CLASSES: usize = 5;

fn settings() -> EvaluateSettings {
    EvaluateSettings {
        further_labels: vec![],
        abx_group: None,
        bank_sql: String::new(),
        query_sql: String::new(),
        label: "label".into(),
        knn: KnnSettings { neighbours: 200, temperature: 0.1, candidates: vec![1, 5, 20, 200] },
        knn_every_epochs: 0,
        labels_per_class: vec![1, 10, 100],
        label_draws: 10,
        zero_shot: None,
        retrieval: None,
    }
}

/// Class means on five axes of `width`, plus noise.
fn features(rows: usize, width: usize, first_id: u64, noise: f64) -> Features {
    let mut draws = seed::draws(first_id, "evaluate test", &[width as u64, noise.to_bits()]);
    let mut values = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for column in 0..width {
            values.push((f64::from(u8::from(row % CLASSES == column)) + noise * draws.normal()) as f32);
        }
    }
    Features {
        values,
        width,
        labels: (0..rows).map(|row| format!("class {}", row % CLASSES)).collect(),
        sample_ids: (first_id..first_id + rows as u64).collect(),
    }
}

fn evaluated(encoder_noise: f64, floor_noise: f64) -> Scores {
    let mut evaluation = Evaluation::new(&settings(), "center_crop 28", 1).unwrap();
    for (role, name, width, noise) in [
        (Role::Encoder, "encoder", 32, encoder_noise),
        (Role::Untrained, "untrained", 32, floor_noise),
        (Role::Floor, "raw_pixels", 48, floor_noise),
    ] {
        evaluation.add(role, name, &features(3_000, width, 0, noise), &features(1_000, width, 1 << 40, noise)).unwrap();
    }
    evaluation.scores().unwrap()
}

#[test]
fn scores_have_the_shape_scripts_read() {
    let json: serde_json::Value = serde_json::from_str(&evaluated(0.4, 0.6).to_json_line().unwrap()).unwrap();
    for figure in ["linear_probe", "knn"] {
        let score = &json[figure]["label"];
        let number = |key: &str| score[key].as_f64().unwrap();
        let (low, high) = (score["ci95"][0].as_f64().unwrap(), score["ci95"][1].as_f64().unwrap());
        assert!(low < number("accuracy") && number("accuracy") < high);
        assert!(number("untrained") < number("accuracy") && number("floor") < number("accuracy"));
    }
}

#[test]
fn a_floor_that_wins_is_printed_as_winning() {
    let scores = evaluated(0.9, 0.4);
    assert_eq!(scores.linear_probe["label"].against_best_floor.as_ref().unwrap().verdict, Verdict::Behind);
    let text = scores.to_string();
    assert!(text.lines().any(|line| line.starts_with("linear probe") && line.contains("BEHIND")), "{text}");
}

#[test]
fn more_labels_per_class_give_better_scores() {
    let scores = evaluated(0.5, 0.6);
    let few: Vec<f64> = scores.few_labels["label"].values().map(|score| score.accuracy).collect();
    assert!(few[0] < few[1] && few[1] < few[2], "{few:?}");
}

#[test]
fn neighbours_do_not_depend_on_the_number_of_threads() {
    let (bank, queries) = (features(9_000, 24, 0, 1.0), features(1_100, 24, 1 << 40, 1.0));
    let classes: Vec<u32> = (0..9_000).map(|row| row % CLASSES as u32).collect();
    let votes = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let found = nearest(&UnitRows::of(&queries), &UnitRows::of(&bank), 50).unwrap();
            [1, 10, 50].map(|k| found.vote(&classes, CLASSES, k, 0.1))
        })
    };
    assert_eq!(votes(1), votes(4));
}

#[test]
fn report_of_a_run_holds_scores_and_pictures() {
    let run = tempfile::tempdir().unwrap();
    std::fs::write(run.path().join("scores.json"), evaluated(0.4, 0.6).to_json_line().unwrap()).unwrap();
    std::fs::write(run.path().join("pipeline.toml"), "[train]\nepochs = 5\n").unwrap();
    std::fs::write(
        run.path().join("metrics.jsonl"),
        "{\"step\":1,\"epoch\":0,\"loss\":5.5}\n{\"step\":2,\"loss\":5.1}\n",
    )
    .unwrap();
    write_contact_sheet(&run.path().join("views.png"), &[90; 4 * 2 * 3 * 28 * 28], 4, 2, 28).unwrap();
    let page = std::fs::read_to_string(write_report(run.path()).unwrap()).unwrap();
    for part in ["Scores beside their floors", "kNN, 10 labels per class", "data:image/png;base64,iVBOR", "epochs = 5"]
    {
        assert!(page.contains(part), "{part}");
    }
}
