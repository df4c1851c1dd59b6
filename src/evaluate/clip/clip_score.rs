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
}

impl ClipScore {
    /// All, the first being the usual one.
    pub const ALL: [Self; 3] = [Self::Hessel, Self::Torchmetrics, Self::Cosine];

    /// As the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hessel => "hessel",
            Self::Torchmetrics => "torchmetrics",
            Self::Cosine => "cosine",
        }
    }

    /// What stands in front of each text.
    pub fn prompt(self) -> &'static str {
        match self {
            Self::Hessel => "A photo depicts ",
            Self::Torchmetrics | Self::Cosine => "",
        }
    }

    /// From the cosine of an image and a text with its prompt.
    pub fn value(self, cosine: f32) -> f32 {
        match self {
            Self::Hessel => 2.5 * cosine.max(0.0),
            Self::Torchmetrics => 100.0 * cosine.max(0.0),
            Self::Cosine => cosine,
        }
    }
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
    fn variants_are_known_by_name_and_differ() {
        for variant in ClipScore::ALL {
            assert_eq!(variant.name().parse(), Ok(variant));
        }
        assert!("clip".parse::<ClipScore>().is_err());
        assert_eq!(ClipScore::ALL.map(|variant| variant.value(0.25)), [0.625, 25.0, 0.25]);
        assert_eq!(ClipScore::ALL.map(|variant| variant.value(-0.25)), [0.0, 0.0, -0.25]);
    }
}
