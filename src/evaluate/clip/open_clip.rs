//! `open_clip_config.json`.
use serde_json::{Map, Value, json};

use super::Described;
use crate::augment::image::precise_resize::Interpolation;
use crate::augment::image::preprocess::{CLIP_DEVIATION, CLIP_MEAN, CropRounding, Preprocess, ResizeTo, RgbConversion};
use crate::error::{Context as _, Error, Result, Stage};
use crate::model::clip::{
    Activation, ClipSettings, ModifiedResnetSettings, TextSettings, VisionSettings, VisionTransformerSettings,
};

/// Of a model and its images.
pub const CONFIG: &str = "open_clip_config.json";

/// Columns of one head where nothing is said.
const HEAD_WIDTH: usize = 64;
/// Channels of the last stage over those of the first.
const RESNET_GROWTH: usize = 32;

/// Keys that change training or the numbers' width alone.
const OF_TRAINING: [&str; 6] = ["patch_dropout", "timm_drop", "timm_drop_path", "pad_id", "eos_id", "init_logit_scale"];

/// Keys whose plain value says what is so here anyway.
const PLAIN: [(&str, &str); 6] = [
    ("pool_type", "tok"),
    ("pool_type", "argmax"),
    ("pos_embed_type", "learnable"),
    ("proj_type", "linear"),
    ("tokenizer_mode", "clean"),
    ("mode", "RGB"),
];

/// An object whose keys are taken one by one; what is left must say nothing.
struct Keys<'a> {
    place: &'a str,
    name: &'a str,
    keys: Map<String, Value>,
}

impl<'a> Keys<'a> {
    fn new(place: &'a str, name: &'a str, value: Option<Value>) -> Result<Self> {
        match value {
            Some(Value::Object(keys)) => Ok(Self { place, name, keys }),
            _ => Err(Error::at(Stage::Checkpoint, place, format!("has no object `{name}`"))),
        }
    }

    fn wrong(&self, key: &str, value: &Value) -> Error {
        let reason = format!("`{}.{key}` is {value}, which is not read here", self.name);
        Error::at(Stage::Checkpoint, self.place, reason)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    fn count(&mut self, key: &str, default: usize) -> Result<usize> {
        match self.take(key) {
            None => Ok(default),
            // Sizes of images come as two equal numbers, too.
            Some(Value::Array(pair)) if pair.len() == 2 && pair[0] == pair[1] && pair[0].is_u64() => {
                Ok(pair[0].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(default))
            }
            Some(value) => value.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(|| self.wrong(key, &value)),
        }
    }

    fn number(&mut self, key: &str, default: f64) -> Result<f64> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(key, &value)),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, &value)),
        }
    }

    fn three(&mut self, key: &str, default: [f32; 3]) -> Result<[f32; 3]> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => serde_json::from_value(value.clone()).map_err(|_| self.wrong(key, &value)),
        }
    }

    /// Refuses what is left, unless it is off, plain, or of training.
    fn finish(self) -> Result<()> {
        let says_something = |(key, value): &(&String, &Value)| {
            let off = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Object(keys) => keys.is_empty(),
                _ => false,
            };
            let plain = PLAIN.iter().any(|(known, plain)| key == known && value.as_str() == Some(plain));
            !off && !plain && !OF_TRAINING.contains(&key.as_str())
        };
        match self.keys.iter().find(says_something) {
            Some((key, value)) => Err(self.wrong(key, value)),
            None => Ok(()),
        }
    }
}

/// What the file says.
///
/// # Errors
/// No such configuration; a key in it that this model has no place for.
pub fn described(place: &str, text: &str) -> Result<Described> {
    let root: Value = serde_json::from_str(text).context(Stage::Checkpoint, place, "is no JSON")?;
    let mut root = Keys::new(place, "", Some(root))?;
    let mut model = Keys::new(place, "model_cfg", root.take("model_cfg"))?;
    let vision = Keys::new(place, "vision_cfg", model.take("vision_cfg"))?;
    let text = Keys::new(place, "text_cfg", model.take("text_cfg"))?;
    let embedding_width = model.count("embed_dim", 512)?;
    let activation = if model.flag("quick_gelu")? { Activation::QuickGelu } else { Activation::Gelu };
    let logit_bias = model.take("init_logit_bias").is_some();
    // The text tower's weights then lie below `text.`, which the reader of weights knows.
    model.flag("custom_text")?;
    model.finish()?;
    let settings = ClipSettings {
        embedding_width,
        activation,
        vision: vision_settings(vision)?,
        text: text_settings(text)?,
        logit_bias,
    };
    let preprocess = match root.take("preprocess_cfg") {
        None => preprocess(Keys { place, name: "preprocess_cfg", keys: Map::new() }, &settings)?,
        found => preprocess(Keys::new(place, "preprocess_cfg", found)?, &settings)?,
    };
    Ok(Described { settings, preprocess })
}

fn vision_settings(mut vision: Keys<'_>) -> Result<VisionSettings> {
    let image_side_pixels = vision.count("image_size", 224)?;
    let head_width = vision.count("head_width", HEAD_WIDTH)?.max(1);
    let layers = vision.take("layers");
    let settings = match layers {
        Some(layers @ Value::Array(_)) => {
            let width = vision.count("width", 64)?;
            vision.take("patch_size");
            vision.take("mlp_ratio");
            VisionSettings::ModifiedResnet(ModifiedResnetSettings {
                image_side_pixels,
                width,
                blocks: serde_json::from_value(layers.clone()).map_err(|_| vision.wrong("layers", &layers))?,
                heads: width.saturating_mul(RESNET_GROWTH) / head_width,
                ..ModifiedResnetSettings::default()
            })
        }
        layers => {
            let width = vision.count("width", 768)?;
            if let Some(layers) = layers {
                vision.keys.insert("layers".to_owned(), layers);
            }
            VisionSettings::VisionTransformer(VisionTransformerSettings {
                image_side_pixels,
                patch_side_pixels: vision.count("patch_size", 16)?,
                width,
                blocks: vision.count("layers", 12)?,
                heads: width / head_width,
                perceptron_width: (vision.number("mlp_ratio", 4.0)? * width as f64) as usize,
            })
        }
    };
    vision.finish()?;
    Ok(settings)
}

fn text_settings(mut text: Keys<'_>) -> Result<TextSettings> {
    let width = text.count("width", 512)?;
    let settings = TextSettings {
        context_tokens: text.count("context_length", 77)?,
        vocabulary_tokens: text.count("vocab_size", 49_408)?,
        width,
        blocks: text.count("layers", 12)?,
        heads: text.count("heads", 8)?,
        perceptron_width: (text.number("mlp_ratio", 4.0)? * width as f64) as usize,
    };
    text.finish()?;
    Ok(settings)
}

fn preprocess(mut keys: Keys<'_>, settings: &ClipSettings) -> Result<Preprocess> {
    let side = keys.count("size", settings.vision.image_side_pixels())?;
    let interpolation = match keys.take("interpolation") {
        None => Interpolation::Bicubic,
        Some(Value::String(name)) if name == "bicubic" => Interpolation::Bicubic,
        Some(Value::String(name)) if name == "bilinear" => Interpolation::Bilinear,
        Some(other) => return Err(keys.wrong("interpolation", &other)),
    };
    let resize = match keys.take("resize_mode") {
        None => ResizeTo::ShorterSidePixels(side),
        Some(Value::String(name)) if name == "shortest" => ResizeTo::ShorterSidePixels(side),
        Some(Value::String(name)) if name == "squash" => ResizeTo::SquarePixels(side),
        Some(other) => return Err(keys.wrong("resize_mode", &other)),
    };
    // Of what lies outside an image that is not cropped but padded.
    keys.take("fill_color");
    let (mean, deviation) = (keys.three("mean", CLIP_MEAN)?, keys.three("std", CLIP_DEVIATION)?);
    keys.finish()?;
    Ok(Preprocess {
        resize,
        interpolation,
        crop_side_pixels: side,
        crop_rounding: CropRounding::HalfToEven,
        rgb_conversion: RgbConversion::AfterResize,
        mean,
        deviation,
    })
}

/// A ratio whose product with `width`, cut to a whole number, is `perceptron_width`.
fn ratio(perceptron_width: usize, width: usize) -> f64 {
    let exact = perceptron_width as f64 / width as f64;
    let cut = (exact * width as f64) as usize;
    if cut == perceptron_width { exact } else { (perceptron_width as f64 + 0.5) / width as f64 }
}

/// `open_clip_config.json` for what is described.
///
/// # Errors
/// Heads that open_clip has no words for; a crop that differs from the resize.
pub fn config(described: &Described) -> Result<Value> {
    let Described { settings, preprocess } = described;
    let refuse = |reason: &str| Err(Error::at(Stage::Checkpoint, CONFIG, reason));
    let mut vision = match &settings.vision {
        VisionSettings::VisionTransformer(vision) => json!({
            "image_size": vision.image_side_pixels,
            "layers": vision.blocks,
            "width": vision.width,
            "patch_size": vision.patch_side_pixels,
            "mlp_ratio": ratio(vision.perceptron_width, vision.width),
        }),
        VisionSettings::ModifiedResnet(vision) => json!({
            "image_size": vision.image_side_pixels,
            "layers": vision.blocks,
            "width": vision.width,
            "patch_size": null,
        }),
    };
    vision["head_width"] = json!(match &settings.vision {
        VisionSettings::VisionTransformer(vision) => vision.width / vision.heads,
        VisionSettings::ModifiedResnet(vision) => RESNET_GROWTH * vision.width / vision.heads,
    });
    let side = match preprocess.resize {
        ResizeTo::ShorterSidePixels(side) | ResizeTo::SquarePixels(side) => side,
    };
    if side != preprocess.crop_side_pixels {
        return refuse("open_clip has one size for resize and crop; these differ");
    }
    let text = &settings.text;
    let mut model = json!({
        "embed_dim": settings.embedding_width,
        "quick_gelu": settings.activation == Activation::QuickGelu,
        "vision_cfg": vision,
        "text_cfg": {
            "context_length": text.context_tokens,
            "vocab_size": text.vocabulary_tokens,
            "width": text.width,
            "heads": text.heads,
            "layers": text.blocks,
            "mlp_ratio": ratio(text.perceptron_width, text.width),
        },
    });
    if settings.logit_bias {
        model["init_logit_bias"] = json!(crate::model::clip::SIGLIP_LOGIT_BIAS);
    }
    Ok(json!({
        "model_cfg": model,
        "preprocess_cfg": {
            "size": [side, side],
            "mode": "RGB",
            "mean": preprocess.mean,
            "std": preprocess.deviation,
            "interpolation": preprocess.interpolation.name(),
            "resize_mode": match preprocess.resize {
                ResizeTo::ShorterSidePixels(_) => "shortest",
                ResizeTo::SquarePixels(_) => "squash",
            },
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let resnet = ModifiedResnetSettings {
            image_side_pixels: 64,
            width: 8,
            blocks: [1, 2, 1, 1],
            heads: 4,
            ..ModifiedResnetSettings::default()
        };
        let vit = VisionTransformerSettings { width: 48, heads: 3, perceptron_width: 100, ..Default::default() };
        for vision in [VisionSettings::ModifiedResnet(resnet), VisionSettings::VisionTransformer(vit)] {
            let side = vision.image_side_pixels();
            let settings = ClipSettings { vision, activation: Activation::Gelu, ..ClipSettings::default() };
            let preprocess = Preprocess {
                resize: ResizeTo::SquarePixels(side),
                crop_side_pixels: side,
                mean: [0.5; 3],
                ..Preprocess::default()
            };
            let before = Described { settings, preprocess };
            let text = config(&before).expect("words for all of it").to_string();
            assert_eq!(described("c", &text).expect("ours"), before, "{text}");
        }
    }

    const VIT_B_32: &str = r#"{"model_cfg": {"embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}},
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}"#;

    #[test]
    fn a_model_without_quick_gelu_has_gelu() {
        let found = described("c", VIT_B_32).expect("plain");
        assert_eq!(found.settings, ClipSettings { activation: Activation::Gelu, ..ClipSettings::default() });
        assert_eq!(found.preprocess, Preprocess { mean: [0.5; 3], deviation: [0.5; 3], ..Preprocess::default() });
        let quick = VIT_B_32.replace("\"embed_dim\"", "\"quick_gelu\": true, \"embed_dim\"");
        assert_eq!(described("c", &quick).expect("plain").settings, ClipSettings::default());
    }

    #[test]
    fn keys_that_change_the_model_are_refused_by_name() {
        for (key, value) in [
            ("timm_model_name", "\"vit_base\""),
            ("attentional_pool", "true"),
            ("pool_type", "\"avg\""),
            ("ls_init_value", "0.1"),
            ("qk_norm", "true"),
        ] {
            let text = VIT_B_32.replace("\"image_size\"", &format!("\"{key}\": {value}, \"image_size\""));
            let error = described("c", &text).expect_err(key).to_string();
            assert!(error.contains(&format!("vision_cfg.{key}")), "{error}");
        }
        let off =
            VIT_B_32.replace("\"image_size\"", "\"attentional_pool\": false, \"patch_dropout\": 0.5, \"image_size\"");
        assert!(described("c", &off).is_ok());
    }
}
