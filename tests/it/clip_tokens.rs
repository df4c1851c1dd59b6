//! Ids of captions against open_clip's tokenizer; the numbers are written by `tests/golden/clip_tokens.py`.
use diptych::tokenize::clip::{CONTEXT_TOKENS, tokens};

#[test]
fn ids_of_captions_are_those_of_open_clip() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/clip_tokens.json");
    let text = std::fs::read_to_string(path).expect("the golden file is in the repository");
    let golden: Vec<(String, Vec<u32>)> = serde_json::from_str(&text).expect("captions and ids");
    assert!(golden.len() > 900, "{} captions", golden.len());
    let wrong: Vec<String> = golden
        .iter()
        .filter_map(|(caption, expected)| {
            let ours = tokens(caption, CONTEXT_TOKENS);
            (ours != *expected).then(|| format!("{caption:?}\n  ours {ours:?}\n  open_clip {expected:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), golden.len(), wrong.join("\n"));
}
