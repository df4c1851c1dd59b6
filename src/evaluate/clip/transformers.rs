//! `config.json`, `preprocessor_config.json` and `processor_config.json` of transformers' `CLIPModel`.
use serde::Deserialize;
use serde_json::{Value, json};

use super::Described;
use crate::augment::image::precise_resize::Interpolation;
use crate::augment::image::preprocess::{CLIP_DEVIATION, CLIP_MEAN, CropRounding, Preprocess, ResizeTo, RgbConversion};
use crate::error::{Context as _, Error, Result, Stage};
use crate::model::clip::{Activation, ClipSettings, TextSettings, VisionSettings, VisionTransformerSettings};
use crate::model::layer_norm::EPSILON;
use crate::tokenize::clip::{END_OF_TEXT, START_OF_TEXT};

/// Of a model.
pub const CONFIG: &str = "config.json";
/// Of its images, as transformers before 5 writes it.
pub const PREPROCESSOR_CONFIG: &str = "preprocessor_config.json";
/// Of its images, below `image_processor`, as transformers writes it since 5.
pub const PROCESSOR_CONFIG: &str = "processor_config.json";

/// What PIL calls its filters.
const PIL_BILINEAR: u8 = 2;
const PIL_BICUBIC: u8 = 3;

/// The keys that matter; the others steer training or generation. Absent ones have transformers' defaults.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: Option<String>,
    #[serde(default = "default_projection")]
    projection_dim: usize,
    #[serde(default)]
    text_config: TextConfig,
    #[serde(default)]
    vision_config: VisionConfig,
    /// Of files from before 2023; where it is there, transformers reads it in place of `text_config`.
    text_config_dict: Option<TextConfig>,
    /// In place of `vision_config`.
    vision_config_dict: Option<VisionConfig>,
}
fn default_projection() -> usize {
    512
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct TextConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}
impl Default for TextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2_048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: EPSILON,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct VisionConfig {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
    layer_norm_eps: f64,
}
impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3_072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: EPSILON,
        }
    }
}

/// The settings in `config.json`.
///
/// # Errors
/// No configuration of a CLIP; something in it that this model does not have.
pub fn settings(place: &str, text: &str) -> Result<ClipSettings> {
    let config: Config = serde_json::from_str(text).context(
        Stage::Checkpoint,
        place,
        "is no configuration of a CLIPModel, as transformers writes it",
    )?;
    let refuse = |reason: String| Err(Error::at(Stage::Checkpoint, place, reason));
    if let Some(kind) = config.model_type.filter(|kind| kind != "clip") {
        return refuse(format!("model_type is {kind:?}; only \"clip\" is read"));
    }
    let text = config.text_config_dict.unwrap_or(config.text_config);
    let vision = config.vision_config_dict.unwrap_or(config.vision_config);
    if text.hidden_act != vision.hidden_act {
        return refuse(format!(
            "the towers have different activations, {:?}, {:?}",
            text.hidden_act, vision.hidden_act
        ));
    }
    let activation = match text.hidden_act.as_str() {
        "quick_gelu" => Activation::QuickGelu,
        "gelu" => Activation::Gelu,
        other => return refuse(format!("hidden_act is {other:?}; only \"quick_gelu\" and \"gelu\" are read")),
    };
    for epsilon in [text.layer_norm_eps, vision.layer_norm_eps] {
        if (epsilon - EPSILON).abs() > 1e-3 * EPSILON {
            return refuse(format!("layer_norm_eps is {epsilon}; only {EPSILON} is read"));
        }
    }
    if vision.num_channels != 3 {
        return refuse(format!("num_channels is {}; only 3 are read", vision.num_channels));
    }
    Ok(ClipSettings {
        embedding_width: config.projection_dim,
        activation,
        vision: VisionSettings::VisionTransformer(VisionTransformerSettings {
            image_side_pixels: vision.image_size,
            patch_side_pixels: vision.patch_size,
            width: vision.hidden_size,
            blocks: vision.num_hidden_layers,
            heads: vision.num_attention_heads,
            perceptron_width: vision.intermediate_size,
        }),
        text: TextSettings {
            context_tokens: text.max_position_embeddings,
            vocabulary_tokens: text.vocab_size,
            width: text.hidden_size,
            blocks: text.num_hidden_layers,
            heads: text.num_attention_heads,
            perceptron_width: text.intermediate_size,
        },
        logit_bias: false,
    })
}

/// A length, or lengths by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Shorter { shortest_edge: usize },
    Both { height: usize, width: usize },
}

/// In a file of its own, or in [`ProcessorConfig`]; the classes for tensors (`…Fast`) have the same keys, and more.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct PreprocessorConfig {
    size: Size,
    /// Nothing where nothing is cropped.
    crop_size: Option<Size>,
    resample: u8,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    do_resize: bool,
    do_center_crop: bool,
    do_normalize: bool,
    do_rescale: bool,
    rescale_factor: f64,
}
impl Default for PreprocessorConfig {
    fn default() -> Self {
        Self {
            size: Size::Side(224),
            crop_size: Some(Size::Side(224)),
            resample: PIL_BICUBIC,
            image_mean: CLIP_MEAN,
            image_std: CLIP_DEVIATION,
            do_resize: true,
            do_center_crop: true,
            do_normalize: true,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
        }
    }
}

/// Before 5 it has no `image_processor`, and says nothing of images.
#[derive(Debug, Deserialize)]
struct ProcessorConfig {
    image_processor: Option<PreprocessorConfig>,
}

const NO_IMAGES: &str = "is no configuration of CLIP's images, as transformers writes it";

/// What images go through by `preprocessor_config.json`, cropped as transformers crops, and RGB before that.
///
/// # Errors
/// No such configuration; something in it that is not done here.
pub fn preprocess(place: &str, text: &str) -> Result<Preprocess> {
    let config: PreprocessorConfig = serde_json::from_str(text).context(Stage::Checkpoint, place, NO_IMAGES)?;
    of_config(place, config)
}

/// The same by `processor_config.json`, if that says anything of images.
///
/// # Errors
/// As [`preprocess`].
pub fn nested_preprocess(place: &str, text: &str) -> Result<Option<Preprocess>> {
    let config: ProcessorConfig = serde_json::from_str(text).context(Stage::Checkpoint, place, NO_IMAGES)?;
    config.image_processor.map(|config| of_config(place, config)).transpose()
}

fn of_config(place: &str, config: PreprocessorConfig) -> Result<Preprocess> {
    let refuse = |reason: String| Err(Error::at(Stage::Checkpoint, place, reason));
    let usual = (config.rescale_factor * 255.0 - 1.0).abs() < 1e-6;
    if !(config.do_resize && config.do_normalize && config.do_rescale && usual) {
        return refuse("only images that are resized, rescaled by 1/255 and normalised are read".to_owned());
    }
    let interpolation = match config.resample {
        PIL_BILINEAR => Interpolation::Bilinear,
        PIL_BICUBIC => Interpolation::Bicubic,
        other => return refuse(format!("resample is {other}; only 2 (bilinear) and 3 (bicubic) are read")),
    };
    let resize = match config.size {
        Size::Side(side) | Size::Shorter { shortest_edge: side } => ResizeTo::ShorterSidePixels(side),
        Size::Both { height, width } if height == width => ResizeTo::SquarePixels(height),
        Size::Both { height, width } => return refuse(format!("a size of {width} x {height} is no square")),
    };
    let crop_side_pixels = match (config.crop_size, resize) {
        (_, ResizeTo::SquarePixels(side)) if !config.do_center_crop => side,
        _ if !config.do_center_crop => return refuse("without a crop images are no squares".to_owned()),
        (Some(Size::Side(side) | Size::Shorter { shortest_edge: side }), _) => side,
        (Some(Size::Both { height, width }), _) if height == width => height,
        (Some(Size::Both { height, width }), _) => return refuse(format!("a crop of {width} x {height} is no square")),
        (None, _) => return refuse("crop_size is null; only images that are cropped to a size are read".to_owned()),
    };
    Ok(Preprocess {
        resize,
        interpolation,
        crop_side_pixels,
        crop_rounding: CropRounding::Down,
        rgb_conversion: RgbConversion::BeforeResize,
        mean: config.image_mean,
        deviation: config.image_std,
    })
}

/// `config.json` for these settings.
///
/// # Errors
/// An image tower or a bias that `CLIPModel` has not.
pub fn config(settings: &ClipSettings) -> Result<Value> {
    let VisionSettings::VisionTransformer(vision) = &settings.vision else {
        let reason = "transformers' CLIPModel has no modified ResNet; write open_clip's files instead";
        return Err(Error::at(Stage::Checkpoint, CONFIG, reason));
    };
    let (text, act) = (&settings.text, settings.activation.name());
    // Where the text ends: transformers looks for the first token of this id. Small vocabularies end with it, too.
    let last = text.vocabulary_tokens.saturating_sub(1).min(END_OF_TEXT as usize);
    let first = text.vocabulary_tokens.saturating_sub(2).min(START_OF_TEXT as usize);
    Ok(json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": settings.embedding_width,
        "logit_scale_init_value": crate::model::clip::INITIAL_LOGIT_SCALE,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text.vocabulary_tokens,
            "hidden_size": text.width,
            "intermediate_size": text.perceptron_width,
            "projection_dim": settings.embedding_width,
            "num_hidden_layers": text.blocks,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.context_tokens,
            "hidden_act": act,
            "layer_norm_eps": EPSILON,
            "bos_token_id": first,
            "eos_token_id": last,
            "pad_token_id": 0,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": vision.width,
            "intermediate_size": vision.perceptron_width,
            "projection_dim": settings.embedding_width,
            "num_hidden_layers": vision.blocks,
            "num_attention_heads": vision.heads,
            "num_channels": 3,
            "image_size": vision.image_side_pixels,
            "patch_size": vision.patch_side_pixels,
            "hidden_act": act,
            "layer_norm_eps": EPSILON,
        },
    }))
}

/// `preprocessor_config.json` for what images go through.
pub fn preprocessor_config(preprocess: &Preprocess) -> Value {
    let crop = preprocess.crop_side_pixels;
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": true,
        "do_resize": true,
        "size": match preprocess.resize {
            ResizeTo::ShorterSidePixels(side) => json!({ "shortest_edge": side }),
            ResizeTo::SquarePixels(side) => json!({ "height": side, "width": side }),
        },
        "resample": match preprocess.interpolation {
            Interpolation::Bilinear => PIL_BILINEAR,
            Interpolation::Bicubic => PIL_BICUBIC,
        },
        "do_center_crop": true,
        "crop_size": { "height": crop, "width": crop },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": preprocess.mean,
        "image_std": preprocess.deviation,
    })
}

/// The model by `config.json`, with what its images go through; where nothing says that, with CLIP's own settings.
///
/// # Errors
/// As [`settings`].
pub fn described(config: (&str, &str), preprocess: Option<Preprocess>) -> Result<Described> {
    let settings = settings(config.0, config.1)?;
    let side = settings.vision.image_side_pixels();
    let preprocess = preprocess.unwrap_or_else(|| Preprocess {
        resize: ResizeTo::ShorterSidePixels(side),
        crop_side_pixels: side,
        crop_rounding: CropRounding::Down,
        rgb_conversion: RgbConversion::BeforeResize,
        ..Preprocess::default()
    });
    Ok(Described { settings, preprocess })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut before = ClipSettings { embedding_width: 24, activation: Activation::Gelu, ..ClipSettings::default() };
        before.text.width = 40;
        let text = config(&before).expect("a vision transformer").to_string();
        assert_eq!(settings("c", &text).expect("ours"), before);
        let preprocess_before = Preprocess {
            crop_rounding: CropRounding::Down,
            rgb_conversion: RgbConversion::BeforeResize,
            resize: ResizeTo::SquarePixels(256),
            interpolation: Interpolation::Bilinear,
            ..Preprocess::default()
        };
        let text = preprocessor_config(&preprocess_before).to_string();
        assert_eq!(preprocess("p", &text).expect("ours"), preprocess_before);
    }

    #[test]
    fn absent_keys_have_the_defaults_of_the_library_and_old_sizes_are_numbers() {
        assert_eq!(settings("c", r#"{"model_type": "clip"}"#).expect("defaults"), ClipSettings::default());
        let old = r#"{"size": 224, "crop_size": 224, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"}"#;
        let expected = Preprocess {
            crop_rounding: CropRounding::Down,
            rgb_conversion: RgbConversion::BeforeResize,
            ..Preprocess::default()
        };
        assert_eq!(preprocess("p", old).expect("old"), expected);
    }

    /// What transformers 5 writes of images, here with keys that its classes for tensors had before.
    const NESTED: &str = r#"{"image_processor": {"crop_size": {"height": 336, "width": 336}, "data_format": "channels_first",
        "device": null, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true,
        "do_resize": true, "image_mean": [0.5, 0.25, 0.125], "image_processor_type": "CLIPImageProcessorFast",
        "image_std": [0.5, 0.5, 0.75], "resample": 2, "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 350}}, "processor_class": "CLIPProcessor"}"#;

    #[test]
    fn settings_of_images_below_those_of_a_processor_are_the_same_settings() {
        let found = nested_preprocess("p", NESTED).expect("as the library writes it").expect("an image processor");
        let expected = Preprocess {
            resize: ResizeTo::ShorterSidePixels(350),
            interpolation: Interpolation::Bilinear,
            crop_side_pixels: 336,
            crop_rounding: CropRounding::Down,
            rgb_conversion: RgbConversion::BeforeResize,
            mean: [0.5, 0.25, 0.125],
            deviation: [0.5, 0.5, 0.75],
        };
        assert_eq!(found, expected);
        let nested: Value = serde_json::from_str(NESTED).expect("JSON");
        assert_eq!(preprocess("p", &nested["image_processor"].to_string()).expect("the same"), expected);
        for none in ["{}", r#"{"image_processor": null}"#, r#"{"processor_class": "CLIPProcessor"}"#] {
            assert_eq!(nested_preprocess("p", none).expect(none), None);
        }
        for (from, to, part) in [
            ("\"resample\": 2", "\"resample\": 1", "resample is 1"),
            ("\"image_processor\"", "\"image_processor\": 3, \"was\"", "is no configuration"),
            ("\"do_resize\": true", "\"do_resize\": false", "only images that are resized"),
        ] {
            let error = nested_preprocess("p", &NESTED.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_not_cropped_needs_no_size_of_a_crop_but_must_be_square() {
        let square = r#"{"size": {"height": 64, "width": 64}, "crop_size": null, "do_center_crop": false}"#;
        let found = preprocess("p", square).expect("square");
        assert_eq!((found.resize, found.crop_side_pixels), (ResizeTo::SquarePixels(64), 64));
        for (text, part) in [
            (r#"{"size": 64, "crop_size": null, "do_center_crop": false}"#, "no squares"),
            (r#"{"size": 64, "crop_size": null}"#, "crop_size is null"),
        ] {
            let error = preprocess("p", text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_not_done_here_is_refused() {
        for (text, part) in [
            (r#"{"model_type": "siglip"}"#, "siglip"),
            (r#"{"text_config": {"hidden_act": "gelu"}}"#, "different activations"),
            (r#"{"text_config_dict": {"hidden_act": "gelu"}}"#, "different activations"),
            (r#"{"vision_config_dict": {"num_channels": 1}, "vision_config": {}}"#, "num_channels"),
            (r#"{"text_config": {"hidden_act": "relu"}, "vision_config": {"hidden_act": "relu"}}"#, "relu"),
            (r#"{"vision_config": {"num_channels": 4}}"#, "num_channels"),
            (r#"{"text_config": {"layer_norm_eps": 1e-6}}"#, "layer_norm_eps"),
            ("[", "is no configuration"),
        ] {
            let error = settings("c", text).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
        for text in [r#"{"resample": 1}"#, r#"{"do_normalize": false}"#, r#"{"size": {"height": 3, "width": 4}}"#] {
            assert!(preprocess("p", text).is_err(), "{text}");
        }
    }
}
