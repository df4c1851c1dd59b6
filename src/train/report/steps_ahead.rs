//! Charts of a method that predicts several steps ahead: what it gets of each, against guessing.
use std::collections::BTreeMap;

use super::chart::{Chart, Series};

/// Reports that a value by step ahead is the mean of, at most: one batch alone is noisy.
const LAST_REPORTS: usize = 20;
/// The end of a run, not its beginning: a quarter of its reports.
const LAST_PART: usize = 4;

/// What a method reported at a step of the run.
pub(super) type Reported = (f64, BTreeMap<String, Vec<f64>>);

/// Figures; empty where the method predicts no steps ahead.
pub(super) fn figures(reported: &[Reported]) -> String {
    let last = &reported[reported.len() - reported.len().div_ceil(LAST_PART).min(LAST_REPORTS)..];
    let overlap = last.last().and_then(|(_, method)| method.get("first_disjoint_step")?.first().copied());
    let note = match overlap {
        Some(first) if first > 1.0 => {
            format!("Frames fewer than {first} steps apart share samples, so those steps are partly copied.")
        }
        _ => String::new(),
    };
    let by_step = |title: &str, note: String, keys: &[(&str, &str)]| {
        let series: Vec<Series> = keys
            .iter()
            .map(|(key, name)| {
                let points = by_step_ahead(last, key);
                // The legend has the last point's value.
                Series { name: format!("{name}, k = {}", points.len()), points }
            })
            .collect();
        // Guessing alone is no result.
        let empty = series.first().is_none_or(|series| series.points.is_empty());
        let chart = Chart { title: title.to_owned(), note, series, along: "k", from_zero: true, wide: false };
        if empty { String::new() } else { chart.figure() }
    };
    let mean = format!("By step ahead, mean of the last {} of {} reports. {note}", last.len(), reported.len());
    [
        by_step("Accuracy k steps ahead", mean.clone(), &[("step_accuracies", "true future"), ("chance_accuracies", "chance")]),
        by_step("Loss k steps ahead", mean, &[("step_losses", "InfoNCE"), ("chance_losses", "chance")]),
        by_step(
            "Information k steps ahead, nats",
            "ln(1 + N) − loss, which cannot pass the ceiling. Over windows that training has not seen it is a lower bound of the \
             mutual information of context and future; these are training's own batches, which a model may know by heart."
                .to_owned(),
            &[("information_nats", "ln(1 + N) − loss"), ("chance_losses", "ceiling")],
        ),
        while_training(reported),
    ]
    .concat()
}

/// (k, mean over the reports) from k = 1.
fn by_step_ahead(reported: &[Reported], key: &str) -> Vec<(f64, f64)> {
    let lists: Vec<&Vec<f64>> = reported.iter().filter_map(|(_, method)| method.get(key)).collect();
    let count = lists.iter().map(|list| list.len()).min().unwrap_or(0);
    let mean = |k: usize| lists.iter().map(|list| list[k]).sum::<f64>() / lists.len() as f64;
    (0..count).map(|k| (k as f64 + 1.0, mean(k))).collect()
}

/// The accuracy of the nearest and the furthest step.
fn while_training(reported: &[Reported]) -> String {
    let key = "step_accuracies";
    let steps = reported.iter().filter_map(|(_, method)| method.get(key)).map(Vec::len).min().unwrap_or(0);
    let mut shown = vec![1, steps];
    shown.dedup();
    let line = |&k: &usize| {
        let points =
            reported.iter().filter_map(|(step, method)| Some((*step, *method.get(key)?.get(k.checked_sub(1)?)?)));
        Series { name: format!("k = {k}"), points: points.collect() }
    };
    let note = "Of each reported step's batch.".to_owned();
    let series = shown.iter().map(line).collect();
    let title = "Accuracy while training, by step ahead".to_owned();
    Chart { title, note, series, along: "step", from_zero: true, wide: false }.figure()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u32, bound: bool) -> Reported {
        let x = f64::from(step);
        let mut method = BTreeMap::from([
            ("step_accuracies".to_owned(), vec![0.5 + x / 100.0, 0.25]),
            ("step_losses".to_owned(), vec![1.0, 2.0]),
            ("chance_accuracies".to_owned(), vec![0.125; 2]),
            ("chance_losses".to_owned(), vec![8.0_f64.ln(); 2]),
            ("first_disjoint_step".to_owned(), vec![3.0]),
        ]);
        if bound {
            method.insert("information_nats".to_owned(), vec![1.0, 0.1]);
        }
        (x, method)
    }

    #[test]
    fn every_step_ahead_stands_beside_chance_and_overlaps_are_told() {
        let reported: Vec<Reported> = (1..=40).map(|step| line(step, false)).collect();
        assert_eq!(by_step_ahead(&reported[30..], "step_accuracies")[1], (2.0, 0.25));
        assert!((by_step_ahead(&reported[30..], "step_accuracies")[0].1 - 0.855).abs() < 1e-9);
        let html = figures(&reported);
        for part in [
            "Accuracy k steps ahead",
            "Loss k steps ahead",
            "chance, k = 2: 0.125",
            "fewer than 3 steps",
            "last 10 of 40 reports",
            "k = 2",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("nats"));
        assert!(figures(&[line(1, true)]).contains("Information k steps ahead, nats"));
    }

    #[test]
    fn methods_without_steps_ahead_have_no_such_charts() {
        assert_eq!(figures(&[]), "");
        assert_eq!(figures(&[(1.0, BTreeMap::from([("queue_fill".to_owned(), vec![0.5])]))]), "");
    }
}
