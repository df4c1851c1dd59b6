//! Captions and their best images, as a page shows them.
use std::fmt::Write as _;

use super::{chart::number, escape};
use crate::evaluate::matches::{CaptionMatches, MatchedImage, Matches};

const STYLE: &str = "
.match { display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-end; margin: 0 0 1.2rem; }
.match p { flex: 0 0 100%; margin: 0; overflow-wrap: anywhere; }
.match figure { margin: 0; padding: 3px; border: 3px solid transparent; font-size: 11px; text-align: center; }
.match figure.right { border-color: #2c8a4b; } .match img { display: block; max-width: 112px; max-height: 112px; }
";

/// A section of a page.
pub(crate) fn section(matches: &Matches) -> String {
    let mut html = format!(
        "<style>{STYLE}</style>\n<p class=\"note\">Captions and their five best of {} images by cosine; the caption's own has a \
         frame.</p>\n",
        matches.images
    );
    matches.captions.iter().for_each(|caption| html.push_str(&row(caption)));
    html
}

/// A page by itself.
pub(crate) fn page(title: &str, matches: &Matches) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n<style>body {{ font: 15px/1.5 \
         system-ui, sans-serif; max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }} .note {{ color: #68707a; }}</style>\
         </head><body>\n<h1>{title}</h1>\n{}</body></html>\n",
        section(matches),
        title = escape(title),
    )
}

fn row(matches: &CaptionMatches) -> String {
    let mut html = format!(
        "<div class=\"match\"><p>{} <span class=\"note\">its own image has rank {}</span></p>",
        escape(&matches.caption),
        number(matches.own_rank)
    );
    for MatchedImage { jpeg, cosine, is_right } in &matches.images {
        let (class, word) = if *is_right { (" class=\"right\"", ", its own") } else { ("", "") };
        let _ = write!(
            html,
            "<figure{class}><img alt=\"no picture\" src=\"data:image/jpeg;base64,{}\">{cosine:.3}{word}</figure>",
            escape(jpeg)
        );
    }
    html.push_str("</div>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_image_is_marked_and_text_cannot_become_markup() {
        let image = |is_right| MatchedImage { jpeg: "AQID".into(), cosine: 0.25, is_right };
        let caption = "<script>alert(1)</script>".to_owned();
        let matches = Matches {
            captions: vec![CaptionMatches { caption, own_rank: 2.0, images: vec![image(false), image(true)] }],
            images: 9,
        };
        let html = page("a & b", &matches);
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;") && html.contains("a &amp; b"));
        assert_eq!((html.matches("class=\"right\"").count(), html.matches("base64,AQID").count()), (1, 2));
        assert!(html.contains("0.250, its own") && html.contains("of 9 images") && html.contains("has rank 2<"));
    }
}
