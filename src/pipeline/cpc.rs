//! Settings of `[method.cpc]` that could be read but cannot be right, by themselves and beside their batches.
use super::{
    Pipeline,
    mistakes::Reading,
    ranges::{MOST_CHANNELS, MOST_STEPS, base_width, within},
};
use crate::{
    loss::Negatives,
    method::{MethodSettings, cpc::Settings},
    model::{
        AutoregressorSettings, FrameEncoderSettings, causal_transformer::CausalTransformerSettings,
        conv1d_encoder::Normalization,
    },
    pair::{PairSettings, SampleKernel as _, context_future::ContextFuture},
};

const KEY: &str = "method.cpc";
/// Each has a map of its own, and a matrix of scores.
const MOST_PREDICTED_FRAMES: usize = 1_024;
/// Numbers per anchor.
const MOST_SAMPLED: usize = 1 << 20;
const MOST_BLOCKS: usize = 1_024;
const MOST_TOKENS: usize = 1 << 24;
/// Of a patch, and between patches.
const MOST_PIXELS: usize = 65_536;

/// Notes every value that is out of its range.
pub(super) fn check(reading: &mut Reading, settings: &Settings) {
    let key = |name: &str| format!("{KEY}.{name}");
    within(reading, &key("channels"), settings.channels, 1..=MOST_CHANNELS);
    within(reading, &key("predicted_frames"), settings.predicted_frames, 1..=MOST_PREDICTED_FRAMES);
    if let Negatives::Sampled(number) = settings.negatives {
        within(reading, &key("negatives.sampled"), number, 1..=MOST_SAMPLED);
    }
    encoder(reading, &settings.encoder);
    match &settings.context {
        AutoregressorSettings::Gru(gru) => {
            within(reading, &key("context.gru.width_channels"), gru.width_channels, 1..=MOST_CHANNELS);
        }
        AutoregressorSettings::CausalTransformer(transformer) => {
            let &CausalTransformerSettings { width_channels, blocks, heads } = transformer;
            let key = |name: &str| format!("{KEY}.context.causal_transformer.{name}");
            let most = [("width_channels", width_channels, MOST_CHANNELS), ("blocks", blocks, MOST_BLOCKS)];
            for (name, value, most) in most.into_iter().chain([("heads", heads, MOST_CHANNELS)]) {
                within(reading, &key(name), value, 1..=most);
            }
            if heads > 0 && !(width_channels.is_multiple_of(heads) && width_channels.is_multiple_of(2)) {
                let problem = format!("{width_channels} channels do not divide into {heads} heads, or are odd");
                reading.note_about(&[&key("width_channels"), &key("heads")], problem, "256 channels and 4 heads");
            }
        }
    }
}

/// Notes windows that the encoder does not take.
pub(super) fn meets(reading: &mut Reading, pair: &PairSettings, settings: &Settings) {
    let (named, encoder) = match &settings.encoder {
        FrameEncoderSettings::Waveform(_) => ("encoder.waveform", "series"),
        FrameEncoderSettings::Series(_) => ("encoder.series", "series"),
        FrameEncoderSettings::Sentences(_) => ("encoder.sentences", "documents"),
        FrameEncoderSettings::Patches(_) => ("encoder.patches", "images"),
    };
    let made = match pair {
        // Told already.
        PairSettings::TwoViews(_) | PairSettings::ImageText(_) | PairSettings::PastFuture(_) => return,
        PairSettings::ContextFuture(_) => "series",
        PairSettings::Sentences(_) => "documents",
        PairSettings::OneView(_) => "images",
    };
    if made != encoder {
        let (of_pair, of_method) = (format!("pair.{}", pair.name()), format!("{KEY}.{named}"));
        let problem = format!("takes windows of {encoder}, and pair.{} makes windows of {made}", pair.name());
        let remedy = match made {
            "series" => "encoder.waveform or encoder.series",
            "images" => "encoder.patches",
            _ => "encoder.sentences",
        };
        return reading.note_about(&[&of_method, &of_pair], problem, remedy);
    }
    match (pair, &settings.encoder) {
        (PairSettings::ContextFuture(pair), _) if pair.channels != settings.channels => {
            let problem = format!("{} channels, and windows have {}", settings.channels, pair.channels);
            let keys = ["method.cpc.channels", "pair.context_future.channels"];
            reading.note_about(&keys, problem, "write the same number in both");
        }
        (PairSettings::Sentences(pair), FrameEncoderSettings::Sentences(sentences)) => {
            let needed = pair.tokenizer.vocabulary_tokens();
            if sentences.vocabulary_tokens < needed {
                let problem = format!(
                    "{} tokens, and the tokenizer {:?} has {needed}, the padding included",
                    sentences.vocabulary_tokens,
                    pair.tokenizer.name()
                );
                let keys = ["method.cpc.encoder.sentences.vocabulary_tokens", "pair.sentences.tokenizer"];
                reading.note_about(&keys, problem, format!("{needed} or more"));
            }
            if pair.window_sentences <= settings.predicted_frames {
                let problem = format!(
                    "{} sentences of a window cannot predict {} sentences ahead",
                    pair.window_sentences, settings.predicted_frames
                );
                let keys = ["method.cpc.predicted_frames", "pair.sentences.window_sentences"];
                reading.note_about(&keys, problem, "longer windows, or fewer predicted frames");
            }
        }
        _ => {}
    }
}

fn encoder(reading: &mut Reading, settings: &FrameEncoderSettings) {
    let key = |name: &str| format!("{KEY}.encoder.{name}");
    // One channel minus its own mean is nothing.
    let widths = |normalization: Normalization| match normalization {
        Normalization::Channel => 2..=MOST_CHANNELS,
        Normalization::Batch | Normalization::None => 1..=MOST_CHANNELS,
    };
    match settings {
        FrameEncoderSettings::Waveform(waveform) => {
            let name = key("waveform.width_channels");
            within(reading, &name, waveform.width_channels, widths(waveform.normalization));
        }
        FrameEncoderSettings::Series(series) => {
            if series.layers.is_empty() {
                let remedy = "layers = [{ width_channels = 64, kernel_steps = 4, stride_steps = 2 }]";
                reading.note(&key("series.layers"), "no layer", remedy);
            }
            for (index, layer) in series.layers.iter().enumerate() {
                let key = |name: &str| key(&format!("series.layers[{index}].{name}"));
                within(reading, &key("width_channels"), layer.width_channels, widths(series.normalization));
                within(reading, &key("kernel_steps"), layer.kernel_steps, 1..=MOST_STEPS);
                within(reading, &key("stride_steps"), layer.stride_steps, 1..=MOST_STEPS);
            }
        }
        FrameEncoderSettings::Sentences(sentences) => {
            within(reading, &key("sentences.vocabulary_tokens"), sentences.vocabulary_tokens, 2..=MOST_TOKENS);
            within(reading, &key("sentences.embedding_channels"), sentences.embedding_channels, 1..=MOST_CHANNELS);
            within(reading, &key("sentences.width_channels"), sentences.width_channels, 1..=MOST_CHANNELS);
            within(reading, &key("sentences.kernel_tokens"), sentences.kernel_tokens, 1..=MOST_CHANNELS);
        }
        FrameEncoderSettings::Patches(patches) => {
            within(reading, &key("patches.side_pixels"), patches.side_pixels, 1..=MOST_PIXELS);
            within(reading, &key("patches.hop_pixels"), patches.hop_pixels, 1..=MOST_PIXELS);
            base_width(reading, &key("patches.encoder"), &patches.encoder);
        }
    }
}

/// Notes what the batches that the pairing makes cannot give: windows of the encoder's kind, frames to predict, negatives.
///
/// `side_pixels` is that of a view, 0 where there is none.
pub(super) fn check_batches(reading: &mut Reading, pipeline: &Pipeline, side_pixels: usize) {
    let (pair, MethodSettings::Cpc(settings)) = (&pipeline.pair, &pipeline.method) else { return };
    let (takes, extent, extent_key) = match pair {
        PairSettings::ContextFuture(of_pair) => {
            let windows = ContextFuture::training(of_pair, &pipeline.augment);
            let steps = windows.map_or(0, |windows| windows.shape()[1]);
            let fits = matches!(settings.encoder, FrameEncoderSettings::Waveform(_) | FrameEncoderSettings::Series(_));
            (fits, steps, "pair.context_future.window_steps")
        }
        PairSettings::OneView(_) => {
            (matches!(settings.encoder, FrameEncoderSettings::Patches(_)), side_pixels, "augment.image")
        }
        _ => return,
    };
    // Told by `meets`.
    if !takes {
        return;
    }
    let (ahead, Some(frames)) = (settings.predicted_frames, settings.encoder.frames(extent)) else { return };
    let key = format!("{KEY}.predicted_frames");
    if extent > 0 && frames <= ahead {
        let unit = if side_pixels > 0 { "pixels" } else { "steps" };
        let least = settings.encoder.extent(ahead + 1).unwrap_or(extent);
        let problem = format!("{ahead} frames ahead, and a window of {extent} {unit} becomes {frames}");
        reading.note_about(&[&key, extent_key], problem, format!("{least} {unit} or more, or fewer frames ahead"));
    }
    negatives(reading, pipeline, settings, frames.saturating_sub(ahead));
}

/// Notes negatives that no batch has, or only some have. `least_frames` are those of a window whose last prediction is
/// compared.
fn negatives(reading: &mut Reading, pipeline: &Pipeline, settings: &Settings, least_frames: usize) {
    let pair = &pipeline.pair;
    let (key, frames_key) = (format!("{KEY}.negatives"), format!("{KEY}.predicted_frames"));
    let (rows, per_item) = (pipeline.prefetch.batch_rows, pair.rows_per_item());
    match settings.negatives {
        Negatives::SameGroup if pair.group().is_none() => {
            let group = format!("pair.{}.group", pair.name());
            let (problem, remedy) = match pair {
                PairSettings::ContextFuture(_) => (
                    "no column says which series are of one group",
                    "group = \"group\" below [pair.context_future], or other negatives",
                ),
                _ => ("images have no groups", "negatives = \"batch_all_time\""),
            };
            reading.note_about(&[&key, &group], problem, remedy);
        }
        // A window whose series, or group, is alone in its batch has its own frames to be told from.
        Negatives::SameGroup | Negatives::WithinSequence if least_frames == 1 => {
            let problem = "the furthest step has one frame per window to compare, and its own is no negative";
            reading.note_about(
                &[&frames_key, &key],
                problem,
                "longer windows, fewer predicted frames, or other negatives",
            );
        }
        Negatives::BatchSameTime | Negatives::ExcludeCurrentSequence if rows > 1 && rows <= per_item => {
            let problem =
                format!("all {rows} rows of a batch are windows of one series, which are no negatives of each other");
            reading.note_about(
                &[&key, "prefetch.batch_rows"],
                problem,
                "more rows a batch, or fewer windows per series",
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::{error::Mistake, pipeline::Plan};

    fn mistakes(method: &str) -> Vec<Mistake> {
        let sets = vec![format!("method={{ cpc = {method} }}")];
        match Plan::read("simclr_small", &sets) {
            Err(crate::Error::Pipeline { mistakes, .. }) => mistakes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn views_of_images_are_no_windows() {
        let found = mistakes("{ encoder = { waveform = {} } }");
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].key == "pair.two_views" && found[0].problem.contains("windows"), "{found:#?}");
    }

    #[test]
    fn every_range_is_checked_at_its_key() {
        for (method, key) in [
            ("{ encoder = { waveform = {} }, predicted_frames = 0 }", "predicted_frames"),
            ("{ encoder = { waveform = {} }, channels = 0 }", "channels"),
            ("{ encoder = { waveform = {} }, negatives = { sampled = 0 } }", "negatives.sampled"),
            (
                "{ encoder = { waveform = {} }, context = { gru = { width_channels = 0 } } }",
                "context.gru.width_channels",
            ),
            (
                "{ encoder = { waveform = {} }, context = { causal_transformer = { heads = 3 } } }",
                "context.causal_transformer.width_channels",
            ),
            ("{ encoder = { waveform = { width_channels = 1 } } }", "encoder.waveform.width_channels"),
            ("{ encoder = { series = { layers = [] } } }", "encoder.series.layers"),
            (
                "{ encoder = { series = { layers = [{ width_channels = 4, kernel_steps = 3, stride_steps = 0 }] } } }",
                "encoder.series.layers[0].stride_steps",
            ),
            (
                "{ encoder = { patches = { hop_pixels = 0, encoder = { convnet = {} } } } }",
                "encoder.patches.hop_pixels",
            ),
        ] {
            let found = mistakes(method);
            let keys: Vec<&str> = found.iter().map(|mistake| mistake.key.as_str()).collect();
            assert!(keys.contains(&format!("method.cpc.{key}").as_str()), "{key}: {found:#?}");
            assert_eq!(keys.len(), 2, "{found:#?}");
        }
    }

    fn of(named: &str, sets: &[&str]) -> Vec<(String, String)> {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        match Plan::read(named, &sets) {
            Err(crate::Error::Pipeline { mistakes, .. }) => {
                mistakes.iter().map(|mistake| (mistake.key.clone(), mistake.to_string())).collect()
            }
            Err(other) => panic!("{other}"),
            Ok(_) => vec![],
        }
    }

    #[test]
    fn what_no_batch_can_give_is_told_before_any_step() {
        let segment = "augment.series=[{ random_segment = { steps = 700 } }]";
        let [all, half] = [20, 10].map(|windows| format!("pair.context_future.windows_per_series={windows}"));
        let within = "method.cpc.negatives=within_sequence";
        let same_group = "method.cpc.negatives=same_group";
        let patches = "method.cpc.encoder={ patches = { encoder = { convnet = {} } } }";
        let wrong: [(&str, &[&str], &str, &str); 9] = [
            ("cpc", &["method.cpc.predicted_frames=16"], "predicted_frames", "becomes 16; 2719 steps or more"),
            ("cpc", &[segment], "predicted_frames", "a window of 700 steps becomes 4"),
            ("cpc", &[within, "method.cpc.predicted_frames=15"], "predicted_frames", "one frame"),
            ("cpc_series", &[same_group], "negatives", "below [pair.context_future]"),
            ("cpc_series", &[&all], "negatives", "all 20 rows"),
            ("cpc", &[patches], "encoder.patches", "encoder.waveform"),
            ("cpc_patches", &["method.cpc.encoder={ waveform = {} }"], "encoder.waveform", "encoder.patches"),
            ("cpc_patches", &["method.cpc.predicted_frames=6"], "predicted_frames", "becomes 6; 32 pixels or more"),
            ("cpc_patches", &[same_group], "negatives", "images have no groups"),
        ];
        for (named, sets, key, words) in wrong {
            let found = of(named, sets);
            assert_eq!(found.len(), 1, "{sets:?}: {found:#?}");
            assert!(found[0].0 == format!("method.cpc.{key}") && found[0].1.contains(words), "{sets:?}: {found:#?}");
        }
        let right: [(&str, &[&str]); 5] = [
            ("cpc", &["method.cpc.predicted_frames=15"]),
            ("cpc", &[same_group]),
            ("cpc", &[within, "method.cpc.predicted_frames=14"]),
            ("cpc_series", &[&half]),
            ("cpc_patches", &["method.cpc.predicted_frames=5"]),
        ];
        for (named, sets) in right {
            let found = of(named, sets);
            assert!(found.is_empty(), "{sets:?}: {found:#?}");
        }
        let found = of("cpc_series", &["pair.context_future.window_steps=4000000000"]);
        let told = |(key, text): &(String, String)| key.ends_with("window_steps") && text.contains("too large");
        assert!(found.iter().any(told), "{found:#?}");
    }

    #[test]
    fn an_unknown_encoder_is_told_once_with_the_known_ones() {
        let found = mistakes("{ encoder = { wavform = {} } }");
        let of_method: Vec<&Mistake> = found.iter().filter(|m| m.key.starts_with("method")).collect();
        assert_eq!(of_method.len(), 1, "{found:#?}");
        assert!(of_method[0].to_string().contains("did you mean \"waveform\"?"), "{}", of_method[0]);
    }
}
