//! Where a pipeline's text comes from: a file, or one of those built in.
use std::path::Path;

use super::mistakes::did_you_mean;
use crate::error::{Context, Error, Result, Stage};

/// Name and text of the pipelines that every build carries.
pub const EMBEDDED: [(&str, &str); 11] = [
    ("simclr", include_str!("../../pipelines/simclr.toml")),
    ("simclr_small", include_str!("../../pipelines/simclr_small.toml")),
    ("cpc", include_str!("../../pipelines/cpc.toml")),
    ("cpc_digits", include_str!("../../pipelines/cpc_digits.toml")),
    ("cpc_series", include_str!("../../pipelines/cpc_series.toml")),
    ("clip", include_str!("../../pipelines/clip.toml")),
    ("clip_vit_b32", include_str!("../../pipelines/clip_vit_b32.toml")),
    ("siglip", include_str!("../../pipelines/siglip.toml")),
    ("cpc_patches", include_str!("../../pipelines/cpc_patches.toml")),
    ("cpc_text", include_str!("../../pipelines/cpc_text.toml")),
    ("clip_emoji", include_str!("../../pipelines/clip_emoji.toml")),
];

/// The text of the pipeline `named`: the file at that path if there is one, else the built-in of that name.
pub(super) fn text(named: &str) -> Result<String> {
    let path = Path::new(named);
    if path.is_file() {
        return std::fs::read_to_string(path).context(Stage::CommandLine, named, "cannot read this pipeline file");
    }
    if let Some((_, text)) = EMBEDDED.iter().find(|(name, _)| *name == named.trim_end_matches(".toml")) {
        return Ok((*text).into());
    }
    let remedy = match path.extension() {
        Some(_) => String::new(),
        None => format!(" of the built-in pipelines, {}", did_you_mean(named, &EMBEDDED.map(|(name, _)| name))),
    };
    let reason = format!("there is no such pipeline file{}{remedy}", if remedy.is_empty() { "" } else { ";" });
    Err(Error::at(Stage::CommandLine, named, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_before_the_built_in_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("simclr_small");
        std::fs::write(&path, "seed = 9\n").unwrap();
        assert_eq!(text(path.to_str().unwrap()).unwrap(), "seed = 9\n");
        assert!(text("simclr_small").unwrap().contains("convnet"));
        assert!(text("simclr_small.toml").unwrap().contains("convnet"));
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let error = text("simclr_smal").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("did you mean \"simclr_small\"?"), "{error}");
    }
}
