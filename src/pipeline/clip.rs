//! Settings of `[method.clip]` and `[pair.image_text]` that could be read but cannot be right.
use super::{Pipeline, mistakes::Reading, ranges::at_least};
use crate::{
    augment::recipe::ImageOpSettings,
    error::Error,
    method::{MethodSettings, clip::Settings},
    model::clip::VisionSettings,
    pair::PairSettings,
    tokenize::clip::VOCABULARY_TOKENS,
};

const KEY: &str = "method.clip";
/// Start, one token, end.
const LEAST_CONTEXT_TOKENS: u64 = 3;

/// Notes every value that is out of its range.
pub(super) fn check(reading: &mut Reading, settings: &Settings) {
    let key = |name: &str| format!("{KEY}.{name}");
    if let Err(error) = settings.towers().check() {
        let (place, problem) = match error {
            Error::Stage { place, reason, .. } => (place, reason),
            other => (String::new(), other.to_string()),
        };
        let place = place.replace("32 x ", "").replace("vision.", &format!("{}.", tower(&settings.vision)));
        reading.note(&key(&place), problem, "");
    }
    at_least(reading, &key("text.context_tokens"), settings.text.context_tokens as u64, LEAST_CONTEXT_TOKENS);
    at_least(reading, &key("loss_tile_rows"), settings.loss_tile_rows.unwrap_or(1) as u64, 1);
    let vocabulary = settings.text.vocabulary_tokens;
    if vocabulary < VOCABULARY_TOKENS {
        let problem = format!("{vocabulary} tokens; the tokenizer has {VOCABULARY_TOKENS}");
        reading.note(&key("text.vocabulary_tokens"), problem, format!("{VOCABULARY_TOKENS}, or leave it out"));
    }
    if !(0.0..1.0).contains(&settings.dropout) {
        reading.note(&key("dropout"), format!("{} is not in [0, 1)", settings.dropout), "usual are 0 and 0.1");
    }
    let share = settings.patch_dropout;
    if !(0.0..1.0).contains(&share) {
        reading.note(&key("patch_dropout"), format!("{share} is not in [0, 1)"), "usual is 0.5");
    } else if share > 0.0 && matches!(settings.vision, VisionSettings::ModifiedResnet(_)) {
        let keys = [key("patch_dropout"), key("vision.modified_resnet")];
        reading.note_about(&[&keys[0], &keys[1]], "a ResNet has no patches", "leave it out");
    }
    for (name, values, is_right) in [
        ("pixel_mean", settings.pixel_mean, f32::is_finite as fn(f32) -> bool),
        ("pixel_deviation", settings.pixel_deviation, |value| value > 0.0 && value.is_finite()),
    ] {
        // As the device sees them: 1e-50 is 0 there.
        for (at, value) in values.into_iter().enumerate().filter(|(_, value)| !is_right(*value as f32)) {
            reading.note(&key(&format!("{name}[{at}]")), format!("{value} is out of range"), "0.5");
        }
    }
}

/// Notes images of another size than the tower takes, and texts longer than the other tower reads.
pub(super) fn meets(reading: &mut Reading, pipeline: &Pipeline, side_pixels: u32) {
    let MethodSettings::Clip(method) = &pipeline.method else { return };
    let PairSettings::ImageText(pair) = &pipeline.pair else { return };
    let wanted = method.vision.image_side_pixels();
    if side_pixels > 0 && side_pixels as usize != wanted {
        let problem = format!("the tower looks at {wanted} pixels a side, and the recipe makes {side_pixels}");
        let key = format!("{KEY}.{}.image_side_pixels", tower(&method.vision));
        reading.note_about(&[&key, "augment.image"], problem, "write the same number in both");
    } else if let Some(evaluated) = evaluated(&pipeline.augment.evaluation).filter(|&side| side != wanted) {
        let problem = format!("the tower looks at {wanted} pixels a side, and the evaluation recipe makes {evaluated}");
        let key = format!("{KEY}.{}.image_side_pixels", tower(&method.vision));
        reading.note_about(&["augment.evaluation", &key], problem, "write the same number in both, or leave it out");
    }
    let reads = method.text.context_tokens;
    let longest = pair.context_tokens.unwrap_or(reads);
    let key = "pair.image_text.context_tokens";
    if longest > reads {
        let problem = format!("{longest} tokens, and the text tower reads {reads}");
        reading.note_about(&[key, &format!("{KEY}.text.context_tokens")], problem, format!("at most {reads}"));
    }
    at_least(reading, key, longest as u64, LEAST_CONTEXT_TOKENS.min(reads as u64));
}

/// Side of the square that an evaluation recipe ends with. A view of another size would go through the tower all the same,
/// with the positions of other patches.
fn evaluated(recipe: &[ImageOpSettings]) -> Option<usize> {
    recipe.iter().rev().find_map(|op| match op {
        ImageOpSettings::RandomResizedCrop(crop) => Some(crop.side_pixels as usize),
        ImageOpSettings::CenterCrop(crop) => Some(crop.side_pixels as usize),
        _ => None,
    })
}

fn tower(vision: &VisionSettings) -> &'static str {
    match vision {
        VisionSettings::VisionTransformer(_) => "vision.vision_transformer",
        VisionSettings::ModifiedResnet(_) => "vision.modified_resnet",
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        error::{Error, Mistake},
        pair::PairSettings,
        pipeline::Plan,
    };

    fn plan(sets: &[&str]) -> Result<Plan, Vec<Mistake>> {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        Plan::read("clip", &sets).map_err(|error| match error {
            Error::Pipeline { mistakes, .. } => mistakes,
            other => panic!("{other}"),
        })
    }

    fn keys(sets: &[&str]) -> Vec<String> {
        plan(sets).expect_err("a mistake").into_iter().map(|mistake| mistake.key).collect()
    }

    #[test]
    fn texts_are_as_long_as_the_tower_reads() {
        let context = |sets: &[&str]| match plan(sets).expect("no mistake").pipeline.pair {
            PairSettings::ImageText(pair) => pair.context_tokens,
            other => panic!("{other:?}"),
        };
        assert_eq!(context(&[]), Some(24));
        assert_eq!(context(&["pair.image_text.context_tokens=8"]), Some(8));
        assert_eq!(keys(&["pair.image_text.context_tokens=25"]), ["pair.image_text.context_tokens"]);
        assert_eq!(keys(&["pair.image_text.context_tokens=2"]), ["pair.image_text.context_tokens"]);
    }

    #[test]
    fn every_range_is_checked_at_its_key() {
        for (set, key) in [
            ("method.clip.text.heads=3", "method.clip.text.width"),
            (
                "method.clip.vision.vision_transformer.patch_side_pixels=7",
                "method.clip.vision.vision_transformer.image_side_pixels",
            ),
            ("method.clip.vision.vision_transformer.width=0", "method.clip.vision.vision_transformer.width"),
            ("method.clip.text.vocabulary_tokens=1_000", "method.clip.text.vocabulary_tokens"),
            ("method.clip.patch_dropout=1.0", "method.clip.patch_dropout"),
            ("method.clip.pixel_deviation=[0.5, 0.0, 0.5]", "method.clip.pixel_deviation[1]"),
            ("method.clip.pixel_deviation=[0.5, 0.5, 1e-50]", "method.clip.pixel_deviation[2]"),
            ("method.clip.pixel_mean=[1e50, 0.5, 0.5]", "method.clip.pixel_mean[0]"),
            ("method.clip.embedding_width=0", "method.clip.embedding_width"),
            ("method.clip.loss_tile_rows=0", "method.clip.loss_tile_rows"),
            ("method.clip.dropout=1", "method.clip.dropout"),
        ] {
            assert_eq!(keys(&[set]), [key], "{set}");
        }
    }

    #[test]
    fn images_must_have_the_size_that_the_tower_takes() {
        let found = keys(&["method.clip.vision.vision_transformer.image_side_pixels=72"]);
        assert_eq!(found, ["method.clip.vision.vision_transformer.image_side_pixels"]);
        let smaller = "augment.evaluation=[{ resize = { side_pixels = 64 } }, { center_crop = { side_pixels = 48 } }]";
        assert_eq!(keys(&[smaller]), ["augment.evaluation"]);
        assert!(plan(&["augment.evaluation=[]"]).is_ok());
    }

    #[test]
    fn pairings_and_methods_that_do_not_meet_are_told() {
        let found = plan(&["pair={ two_views = {} }"]).expect_err("no texts");
        assert!(found[0].key == "pair.two_views" && found[0].problem.contains("no texts"), "{found:#?}");
        let sets = ["pair={ image_text = {} }".to_owned()];
        let Err(Error::Pipeline { mistakes, .. }) = Plan::read("simclr_small", &sets) else { panic!("a mistake") };
        assert!(mistakes[0].problem.contains("method.simclr"), "{mistakes:#?}");
        assert_eq!(keys(&["pair.image_text.caption=image"]), ["pair.image_text.caption"]);
        // A column that only these shards have, or that the query brings.
        assert!(plan(&["pair.image_text.caption=alt_text"]).is_ok());
    }
}
