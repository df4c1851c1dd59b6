//! The report's tables.

use std::fmt::Write;

use super::{by_text, chart::number, escape};
use crate::evaluate::scores::{Discrimination, Figure, Score, Scores, Verdict};

/// What a text tower adds, then one table for each label column, losing lines marked, protocols folded away below.
pub(crate) fn scores(scores: &Scores) -> String {
    let mut html = by_text::tables(scores);
    for (label, counts) in &scores.data {
        let _ = writeln!(
            html,
            "<p><b>{}</b> <span class=\"faint\">{} classes · {} queries · bank of {}, {} of them held out to choose λ and \
             k</span></p>\n<div class=\"scroll\"><table><thead><tr><th>accuracy</th><th>encoder</th>\
             <th>untrained encoder</th><th>input itself</th><th>encoder − better floor</th></tr></thead><tbody>",
            escape(label),
            counts.classes,
            number(counts.queries as f64),
            number(counts.bank as f64),
            number(counts.held_out as f64)
        );
        let lines = scores.lines(label);
        for (name, score) in &lines {
            html.push_str(&line(name, score));
        }
        for (name, found) in scores.abx.get(label).into_iter().flat_map(Discrimination::lines) {
            let Figure { error, ci95: [low, high], untrained, floor, minus_floor, minus_floor_ci95, .. } = found;
            let Figure { samples, interval_over, .. } = found;
            let [less, more] = minus_floor_ci95;
            let class = match (*more < 0.0, *less > 0.0) {
                (true, _) => "ahead",
                (_, true) => "behind",
                _ => "level",
            };
            let _ = writeln!(
                html,
                "<tr><td>{}, error</td><td><b>{error:.3} <small>[{low:.3} {high:.3}]</small></b></td><td>{untrained:.3}</td>\
                 <td>{floor:.3}</td><td>{minus_floor:+.3} <small>[{less:+.3} {more:+.3}]</small><div class=\"{class}\">against the input \
                 itself: less is better, guessing is 0.5; {samples} queries, intervals over {}</div></td></tr>",
                escape(&name),
                escape(interval_over)
            );
        }
        html.push_str("</tbody></table></div>\n<p class=\"note\">In brackets: 95 % intervals. The difference is paired by sample. Transform: ");
        let _ = write!(
            html,
            "{}; seed {}.</p>\n<details><summary class=\"note\">Protocols</summary><ul class=\"plain\">",
            escape(&scores.recipe),
            scores.seed
        );
        for (name, score) in &lines {
            let _ = write!(html, "<li>{}: {}</li>", escape(name), escape(&score.protocol));
        }
        if let Some(abx) = scores.abx.get(label) {
            let _ = write!(html, "<li>ABX: {}</li>", escape(&abx.protocol));
        }
        for (n, reason) in scores.left_out.get(label).into_iter().flatten() {
            let _ = write!(html, "<li>kNN, {n} labels per class, is left out: {}</li>", escape(reason));
        }
        html.push_str("</ul></details>\n");
    }
    html
}

fn line(name: &str, score: &Score) -> String {
    let figure = |value: Option<f64>, ci95: Option<[f64; 2]>| {
        value.zip(ci95).map_or_else(
            || "–".to_owned(),
            |(x, ci95)| format!("{x:.3} <small>[{:.3} {:.3}]</small>", ci95[0], ci95[1]),
        )
    };
    let mut html = format!(
        "<tr><td>{}</td><td><b>{}</b></td><td>{}</td><td>{}</td>",
        escape(name),
        figure(Some(score.accuracy), Some(score.ci95)),
        figure(score.untrained, score.untrained_ci95),
        figure(score.floor, score.floor_ci95)
    );
    match &score.against_best_floor {
        Some(against) => {
            let (class, words) = match against.verdict {
                Verdict::Ahead if against.intervals_overlap => ("ahead", "ahead, single intervals overlap:"),
                Verdict::Ahead => ("ahead", "ahead of"),
                Verdict::Level => ("level", "no difference shown to"),
                Verdict::Behind => ("behind", "behind"),
            };
            let (difference, ci95) = (against.paired.difference, against.paired.ci95);
            let _ = write!(
                html,
                "<td>{difference:+.3} <small>[{:+.3} {:+.3}]</small><div class=\"{class}\">{words} {}</div></td>",
                ci95[0],
                ci95[1],
                escape(&against.name.replace('_', " "))
            );
        }
        None => html.push_str("<td>–</td>"),
    }
    html.push_str("</tr>\n");
    html
}

/// Keys and values.
pub(crate) fn pairs(pairs: &[(String, String)]) -> String {
    let mut html = String::from("<div class=\"scroll\"><table><tbody>");
    for (key, value) in pairs {
        let _ = write!(html, "<tr><td class=\"faint\">{}</td><td>{}</td></tr>", escape(key), escape(value));
    }
    html.push_str("</tbody></table></div>");
    html
}
