//! Which charts a report has, from which keys of `metrics.jsonl`, and how each is read.

/// One chart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) title: &'static str,
    /// What a healthy line looks like.
    pub(crate) note: &'static str,
    /// Key in `metrics.jsonl`, name in the legend.
    pub(crate) keys: &'static [(&'static str, &'static str)],
    pub(crate) from_zero: bool,
    pub(crate) wide: bool,
}

/// A value axis that follows the data.
const fn free(title: &'static str, note: &'static str, keys: &'static [(&'static str, &'static str)]) -> Spec {
    Spec { title, note, keys, from_zero: false, wide: false }
}

/// A value axis from 0.
const fn from_zero(title: &'static str, note: &'static str, keys: &'static [(&'static str, &'static str)]) -> Spec {
    Spec { from_zero: true, ..free(title, note, keys) }
}

/// Over the whole width.
const fn wide(spec: Spec) -> Spec {
    Spec { wide: true, ..spec }
}

/// In the order of the page; keys that stand nowhere here are drawn behind, one chart each.
pub(crate) const SECTIONS: [(&str, &[Spec]); 4] = [
    (
        "Training",
        &[
            wide(free(
                "Loss",
                "Of each reported step's batch, before its update; where steps were thinned away, a band spans them.",
                &[("loss", "loss")],
            )),
            from_zero("Learning rate", "As scheduled.", &[("learning_rate", "rate")]),
            from_zero("Gradient norm", "Over all parameters, before clipping.", &[("gradient_norm", "norm")]),
            free("Accuracy while training", "Of the encoder so far.", &[("knn_accuracy", "kNN")]),
        ],
    ),
    (
        "Images and texts",
        &[
            from_zero(
                "Accuracy within the batch",
                "Share whose own partner is the nearest of the batch; chance is one over its rows.",
                &[("image_to_text_accuracy", "image to text"), ("text_to_image_accuracy", "text to image")],
            ),
            free(
                "Scale of the logits",
                "Starts at 14.3, or 10 with a bias; at most 100 without.",
                &[("logit_scale", "scale")],
            ),
            free("Bias of the logits", "Starts at \u{2212}10.", &[("logit_bias", "bias")]),
            from_zero(
                "Duplicates within the batch",
                "Texts and images that stood in the batch before: false negatives, unless the pipeline says otherwise.",
                &[("duplicate_captions", "texts"), ("duplicate_images", "images")],
            ),
        ],
    ),
    (
        "Throughput and the queue",
        &[
            from_zero("Samples per second", "Since the report before.", &[("samples_per_second", "samples/s")]),
            from_zero(
                "Share of time waiting for data",
                "Near 0 the trainer is the bottleneck, near 1 reading and augmenting are.",
                &[("data_wait_share", "share")],
            ),
            from_zero(
                "Bad items so far",
                "Replaced by others and named in the quarantine table.",
                &[("bad_items", "items")],
            ),
            wide(from_zero(
                "Who waited for whom, seconds",
                "Trainer: the queue was empty. Data: the queue was full.",
                &[("trainer_waited_seconds", "trainer"), ("data_waited_seconds", "data")],
            )),
        ],
    ),
    (
        "Collapse watch",
        &[
            free(
                "Cosine",
                "Of what should meet (two views, or a prediction and its frame), which rises, and of what should not, which \
                 stays low. Both near 1 are a collapse.",
                &[("positive_cosine", "positive"), ("negative_cosine", "negative")],
            ),
            from_zero(
                "Alignment",
                "Mean squared distance of what should meet: low, though it may rise while uniformity falls.",
                &[("alignment", "alignment")],
            ),
            free(
                "Uniformity",
                "Log of the mean Gaussian potential: falls; 0 is a collapse.",
                &[("uniformity", "uniformity")],
            ),
            from_zero(
                "Effective rank",
                "Directions in use: at most the width of z; 1 is a collapse.",
                &[("effective_rank", "rank")],
            ),
            from_zero(
                "Deviation of normalised embeddings",
                "Per dimension: healthy near 1/√width; under a tenth of that is a collapse.",
                &[("embedding_std", "deviation")],
            ),
        ],
    ),
];

/// Whether one of these charts shows the key.
pub(crate) fn is_known(key: &str) -> bool {
    SECTIONS.iter().flat_map(|(_, specs)| *specs).flat_map(|spec| spec.keys).any(|(known, _)| *known == key)
}
