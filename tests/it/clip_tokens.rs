//! Ids of captions against open_clip's tokenizer; the numbers are written by `tests/golden/clip_tokens.py`.
use diptych::tokenize::clip::{CONTEXT_TOKENS, tokens};

/// Captions of the file whose ids may differ: encodings beyond windows-1252, and guesses at what was meant.
const MAY_DIFFER: usize = 8;

#[test]
fn ids_of_captions_are_those_of_open_clip() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/clip_tokens.json");
    let text = std::fs::read_to_string(path).expect("the golden file is in the repository");
    let golden: Vec<(String, Vec<u32>)> = serde_json::from_str(&text).expect("captions and ids");
    assert!(golden.len() > 300, "{} captions", golden.len());
    let wrong: Vec<String> = golden
        .iter()
        .filter_map(|(caption, expected)| {
            let ours = tokens(caption, CONTEXT_TOKENS);
            (ours != *expected).then(|| format!("{caption:?}\n  ours {ours:?}\n  open_clip {expected:?}"))
        })
        .collect();
    assert!(wrong.len() <= MAY_DIFFER, "{} of {} differ:\n{}", wrong.len(), golden.len(), wrong.join("\n"));
}
