//! What a text tower adds to the report: zero-shot classification and retrieval, beside chance and the untrained model.
use std::fmt::Write as _;

use super::{chart::number, escape};
use crate::evaluate::{beside::Beside, scores::Scores, zero_shot::ZeroShot};

/// One table for each; nothing where there is neither.
pub(crate) fn tables(scores: &Scores) -> String {
    let mut html = String::new();
    for (label, found) in &scores.zero_shot {
        html.push_str(&zero_shot(label, found));
    }
    if let Some(found) = &scores.retrieval {
        html.push_str("<p><b>Retrieval</b></p>\n");
        html.push_str(&head(&["recall", "R@1", "R@5", "R@10", "median rank"]));
        for (name, direction) in [("image to text", &found.image_to_text), ("text to image", &found.text_to_image)] {
            let (recall, ci95, chance) = (direction.recall, direction.ci95, direction.chance);
            let shares =
                [(recall.r1, ci95.r1, chance.r1), (recall.r5, ci95.r5, chance.r5), (recall.r10, ci95.r10, chance.r10)];
            let name = format!(
                "{name}<br><small>{} queries among {}</small>",
                number(direction.queries as f64),
                number(direction.candidates as f64)
            );
            let untrained = direction.untrained.map(|at| [at.r1, at.r5, at.r10]);
            let ranks = [Some(direction.median_rank), direction.untrained_median_rank];
            html.push_str(&rows(&name, &shares, untrained.as_ref().map(<[Beside; 3]>::as_slice), ranks.map(rank)));
        }
        html.push_str(&foot(&found.protocol, &found.sql));
    }
    html
}

/// The first things to know of it, as figure and words.
pub(crate) fn tiles(scores: &Scores) -> Vec<(String, String)> {
    let mut tiles = vec![];
    if let Some(found) = &scores.retrieval {
        for (name, direction) in [("image to text", &found.image_to_text), ("text to image", &found.text_to_image)] {
            let words = format!("R@1 {name} among {}, chance {:.3}", direction.candidates, direction.chance.r1);
            tiles.push((format!("{:.3}", direction.recall.r1), words));
        }
    }
    for (label, found) in &scores.zero_shot {
        let words = format!("zero-shot {label} of {} classes, chance {:.3}", found.classes, found.chance);
        tiles.push((format!("{:.3}", found.accuracy), words));
    }
    tiles
}

fn zero_shot(label: &str, found: &ZeroShot) -> String {
    let shares = [(found.accuracy, found.ci95, found.chance), (found.top5, found.top5_ci95, found.top5_chance)];
    let untrained = found.untrained.zip(found.top5_untrained).map(|(first, five)| [first, five]);
    format!(
        "<p><b>{}, by prompts</b> <span class=\"faint\">{} classes · {} images · {} template{}</span></p>\n{}{}{}",
        escape(label),
        found.classes,
        number(found.samples as f64),
        found.templates,
        if found.templates == 1 { "" } else { "s" },
        head(&["zero-shot", "accuracy", "among the first five", "mean over classes"]),
        rows(
            "this model",
            &shares,
            untrained.as_ref().map(<[Beside; 2]>::as_slice),
            [format!("{:.3}", found.mean_per_class), String::new()]
        ),
        foot(&found.protocol, &found.sql)
    )
}

fn head(columns: &[&str]) -> String {
    let cells: String = columns.iter().map(|name| format!("<th>{name}</th>")).collect();
    format!("<div class=\"scroll\"><table><thead><tr>{cells}</tr></thead><tbody>\n")
}

fn foot(protocol: &str, sql: &str) -> String {
    format!("</tbody></table></div>\n<p class=\"note\">{}. Of <code>{}</code>.</p>\n", escape(protocol), escape(sql))
}

fn rank(of: Option<f64>) -> String {
    of.map_or_else(String::new, |rank| format!("{rank:.1}"))
}

/// Shares with interval and chance; below them the untrained model's, and the differences. `last` are the last cells.
fn rows(name: &str, shares: &[(f64, [f64; 2], f64)], untrained: Option<&[Beside]>, last: [String; 2]) -> String {
    let [own, theirs] = last;
    let share = |&(share, [low, high], chance): &(f64, [f64; 2], f64)| {
        format!("<td><b>{share:.3}</b> <small>[{low:.3} {high:.3}]<br>chance {chance:.3}</small></td>")
    };
    let mut html = format!("<tr><td>{name}</td>{}<td>{own}</td></tr>\n", shares.iter().map(share).collect::<String>());
    if let Some(untrained) = untrained {
        let small = |words: String| format!("<td><small>{words}</small></td>");
        let of_untrained: String = untrained.iter().map(|beside| small(beside.share_in_words())).collect();
        let differences: String = untrained.iter().map(|beside| small(beside.difference_in_words())).collect();
        let _ = write!(
            html,
            "<tr><td><small>untrained model</small></td>{of_untrained}<td><small>{theirs}</small></td></tr>\n\
             <tr><td><small>difference</small></td>{differences}<td></td></tr>\n"
        );
    }
    html
}
