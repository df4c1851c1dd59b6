//! CLIPScore in the variants that are in use: the same model's figures differ forty-fold between them.

/// Which variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipScore {
    /// 2.5 max(cos, 0), and the text has "A photo depicts " in front (Hessel et al. 2021).
    Hessel,
    /// 100 max(cos, 0).
    Torchmetrics,
    /// cos.
    Cosine,
    /// Softmax of the logits over all texts of an image: how likely the text is to rank first among them.
    SoftmaxRank,
}

impl ClipScore {
    /// All, the first being the usual one.
    pub const ALL: [Self; 4] = [Self::Hessel, Self::Torchmetrics, Self::Cosine, Self::SoftmaxRank];

    /// As the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hessel => "hessel",
            Self::Torchmetrics => "torchmetrics",
            Self::Cosine => "cosine",
            Self::SoftmaxRank => "softmax_rank",
        }
    }

    /// What stands in front of each text.
    pub fn prompt(self) -> &'static str {
        match self {
            Self::Hessel => "A photo depicts ",
            Self::Torchmetrics | Self::Cosine | Self::SoftmaxRank => "",
        }
    }

    /// From the cosine of an image and a text with its prompt; `None` where a pair by itself has no score.
    pub fn of_pair(self, cosine: f32) -> Option<f32> {
        match self {
            Self::Hessel => Some(2.5 * cosine.max(0.0)),
            Self::Torchmetrics => Some(100.0 * cosine.max(0.0)),
            Self::Cosine => Some(cosine),
            Self::SoftmaxRank => None,
        }
    }

    /// From the cosines of an image with texts with their prompts, and the model's logits of the plain texts.
    pub fn of_texts(self, cosines: &[f32], logits: &[f32]) -> Vec<f32> {
        let of_pairs: Option<Vec<f32>> = cosines.iter().map(|&cosine| self.of_pair(cosine)).collect();
        of_pairs.unwrap_or_else(|| softmax(logits).into_iter().map(|share| share as f32).collect())
    }
}

/// Shares that sum to 1.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|logit| libm::exp(f64::from(logit - largest))).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

impl std::str::FromStr for ClipScore {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|variant| variant.name() == name);
        known.copied().ok_or_else(|| format!("write {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_known_by_name_and_scaled_as_published() {
        for variant in ClipScore::ALL {
            assert_eq!(variant.name().parse(), Ok(variant));
        }
        assert!("clip".parse::<ClipScore>().is_err());
        assert_eq!(ClipScore::ALL.map(|variant| variant.of_pair(0.25)), [Some(0.625), Some(25.0), Some(0.25), None]);
        assert_eq!(ClipScore::ALL.map(|variant| variant.of_pair(-0.25)), [Some(0.0), Some(0.0), Some(-0.25), None]);
    }

    #[test]
    fn softmax_rank_weighs_the_texts_of_an_image_against_each_other() {
        let found = ClipScore::SoftmaxRank.of_texts(&[0.1, 0.2], &[0.0, 3.0_f32.ln()]);
        assert!((found[0] - 0.25).abs() < 1e-6 && (found[1] - 0.75).abs() < 1e-6, "{found:?}");
        assert_eq!(ClipScore::Torchmetrics.of_texts(&[0.5, -0.5], &[9.0, 9.0]), [50.0, 0.0]);
        let far = ClipScore::SoftmaxRank.of_texts(&[0.0; 2], &[1_000.0, -1_000.0]);
        assert_eq!(far, [1.0, 0.0]);
    }
}
