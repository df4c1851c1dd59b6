//! Settings of `[method.cpc]` that could be read but cannot be right.
use super::{
    mistakes::Reading,
    ranges::{at_least, base_width},
};
use crate::{
    loss::Negatives,
    method::cpc::Settings,
    model::{
        AutoregressorSettings, FrameEncoderSettings, causal_transformer::CausalTransformerSettings,
        conv1d_encoder::Normalization,
    },
    pair::PairSettings,
};

const KEY: &str = "method.cpc";

/// Notes every value that is out of its range.
pub(super) fn check(reading: &mut Reading, settings: &Settings) {
    let key = |name: &str| format!("{KEY}.{name}");
    at_least(reading, &key("channels"), settings.channels as u64, 1);
    at_least(reading, &key("predicted_frames"), settings.predicted_frames as u64, 1);
    if let Negatives::Sampled(number) = settings.negatives {
        at_least(reading, &key("negatives.sampled"), number as u64, 1);
    }
    encoder(reading, &settings.encoder);
    match &settings.context {
        AutoregressorSettings::Gru(gru) => {
            at_least(reading, &key("context.gru.width_channels"), gru.width_channels as u64, 1);
        }
        AutoregressorSettings::CausalTransformer(transformer) => {
            let &CausalTransformerSettings { width_channels, blocks, heads } = transformer;
            let key = |name: &str| format!("{KEY}.context.causal_transformer.{name}");
            for (name, value) in [("width_channels", width_channels), ("blocks", blocks), ("heads", heads)] {
                at_least(reading, &key(name), value as u64, 1);
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
        PairSettings::TwoViews(_) => return,
        PairSettings::ContextFuture(_) | PairSettings::PastFuture(_) => "series",
        PairSettings::Sentences(_) => "documents",
    };
    if made != encoder {
        let (of_pair, of_method) = (format!("pair.{}", pair.name()), format!("{KEY}.{named}"));
        let problem = format!("takes windows of {encoder}, and pair.{} makes windows of {made}", pair.name());
        let remedy = match made {
            "series" => "encoder.waveform or encoder.series",
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
    let least = |normalization: Normalization| if normalization == Normalization::Channel { 2 } else { 1 };
    match settings {
        FrameEncoderSettings::Waveform(waveform) => {
            let (name, channels) = (key("waveform.width_channels"), waveform.width_channels as u64);
            at_least(reading, &name, channels, least(waveform.normalization));
        }
        FrameEncoderSettings::Series(series) => {
            if series.layers.is_empty() {
                let remedy = "layers = [{ width_channels = 64, kernel_steps = 4, stride_steps = 2 }]";
                reading.note(&key("series.layers"), "no layer", remedy);
            }
            for (index, layer) in series.layers.iter().enumerate() {
                let key = |name: &str| key(&format!("series.layers[{index}].{name}"));
                at_least(reading, &key("width_channels"), layer.width_channels as u64, least(series.normalization));
                at_least(reading, &key("kernel_steps"), layer.kernel_steps as u64, 1);
                at_least(reading, &key("stride_steps"), layer.stride_steps as u64, 1);
            }
        }
        FrameEncoderSettings::Sentences(sentences) => {
            at_least(reading, &key("sentences.vocabulary_tokens"), sentences.vocabulary_tokens as u64, 2);
            at_least(reading, &key("sentences.embedding_channels"), sentences.embedding_channels as u64, 1);
            at_least(reading, &key("sentences.width_channels"), sentences.width_channels as u64, 1);
            at_least(reading, &key("sentences.kernel_tokens"), sentences.kernel_tokens as u64, 1);
        }
        FrameEncoderSettings::Patches(patches) => {
            at_least(reading, &key("patches.side_pixels"), patches.side_pixels as u64, 1);
            at_least(reading, &key("patches.hop_pixels"), patches.hop_pixels as u64, 1);
            base_width(reading, &key("patches.encoder"), &patches.encoder);
        }
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

    #[test]
    fn an_unknown_encoder_is_told_once_with_the_known_ones() {
        let found = mistakes("{ encoder = { wavform = {} } }");
        let of_method: Vec<&Mistake> = found.iter().filter(|m| m.key.starts_with("method")).collect();
        assert_eq!(of_method.len(), 1, "{found:#?}");
        assert!(of_method[0].to_string().contains("did you mean \"waveform\"?"), "{}", of_method[0]);
    }
}
