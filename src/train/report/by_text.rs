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
        html.push_str(
            "<p><b>Retrieval</b></p>\n<div class=\"scroll\"><table><thead><tr><th>recall</th><th>R@1</th><th>R@5</th>\
             <th>R@10</th><th>median rank</th></tr></thead><tbody>",
        );
        for (name, direction) in [("image to text", &found.image_to_text), ("text to image", &found.text_to_image)] {
            let (recall, ci95, chance) = (direction.recall, direction.ci95, direction.chance);
            let beside = direction.untrained;
            let _ = writeln!(
                html,
                "<tr><td>{name}, {} queries among {}</td>{}{}{}<td>{:.1}{}</td></tr>",
                number(direction.queries as f64),
                number(direction.candidates as f64),
                cell(recall.r1, ci95.r1, chance.r1, beside.map(|at| at.r1)),
                cell(recall.r5, ci95.r5, chance.r5, beside.map(|at| at.r5)),
                cell(recall.r10, ci95.r10, chance.r10, beside.map(|at| at.r10)),
                direction.median_rank,
                direction
                    .untrained_median_rank
                    .map_or_else(String::new, |rank| format!("<br><small>untrained {rank:.1}</small>"))
            );
        }
        let _ = writeln!(html, "</tbody></table></div>\n<p class=\"note\">{}.</p>", escape(&found.protocol));
    }
    html
}

fn zero_shot(label: &str, found: &ZeroShot) -> String {
    format!(
        "<p><b>{}, by prompts</b> <span class=\"faint\">{} classes · {} images · {} templates</span></p>\n<div class=\"scroll\">\
         <table><thead><tr><th>zero-shot</th><th>accuracy</th><th>among the first five</th><th>mean over classes</th></tr>\
         </thead><tbody><tr><td></td>{}{}<td>{:.3}</td></tr></tbody></table></div>\n<p class=\"note\">{}.</p>\n",
        escape(label),
        found.classes,
        number(found.samples as f64),
        found.templates,
        cell(found.accuracy, found.ci95, found.chance, found.untrained),
        cell(found.top5, found.top5_ci95, found.top5_chance, found.top5_untrained),
        found.mean_per_class,
        escape(&found.protocol)
    )
}

/// A share with its interval, and what it stands beside.
fn cell(share: f64, [low, high]: [f64; 2], chance: f64, untrained: Option<Beside>) -> String {
    let beside = untrained.map_or_else(String::new, |beside| {
        let (untrained, difference) = (beside.share_in_words(), beside.difference_in_words());
        format!("<br><small>untrained {untrained}<br>difference {difference}</small>")
    });
    format!("<td><b>{share:.3}</b> <small>[{low:.3} {high:.3}], chance {chance:.3}</small>{beside}</td>")
}
