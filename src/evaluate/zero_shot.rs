//! Zero-shot classification: an image has the label whose prompts it is most like (Radford et al. 2021, section 3.1).
//!
//! The prompts of a label are ensembled as there: every embedding becomes unit length, their mean becomes unit length again.

use std::{collections::BTreeMap, fmt};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    beside::Beside,
    embeddings::{Embeddings, unit},
    place::Place,
    statistics::clustered_95,
    templates::{LabelName, prompts},
};
use crate::error::{Error, Result, Stage};

/// Length of the longer list that is looked at.
const LONGER_LIST: usize = 5;

/// `[evaluate.zero_shot]` of a pipeline whose method has a text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroShotSettings {
    /// Query over `shards` that returns `image` and the label's column.
    pub sql: String,
    /// The label's column.
    #[serde(default = "default_label")]
    pub label: String,
    /// Templates with `{}` where the words of a label go, or a file with one per line; none: `a photo of a {}.`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub templates: Option<Templates>,
    /// File with a label per line, or a label, a tab and its words; none: the labels that the query returns, with spaces
    /// for underscores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
}

/// Where templates stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Templates {
    /// In the pipeline.
    Listed(Vec<String>),
    /// In a file, one per line.
    File(String),
}

impl Templates {
    /// The file, where there is one.
    pub fn file_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Listed(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

fn default_label() -> String {
    "label".into()
}

/// What came of it, by the label's column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZeroShot {
    /// Share of images whose label is the likeliest.
    pub accuracy: f64,
    /// 95 % interval: Wilson's.
    pub ci95: [f64; 2],
    /// Accuracy of a model that knows nothing: images of unknown class are wrong for it too.
    pub chance: f64,
    /// Accuracy of the untrained model on the same images, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Beside>,
    /// Share of images whose label is among the five likeliest.
    pub top5: f64,
    /// Its interval.
    pub top5_ci95: [f64; 2],
    /// The same of a model that knows nothing.
    pub top5_chance: f64,
    /// The same of the untrained model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5_untrained: Option<Beside>,
    /// Mean over labels of the accuracy of their images: large classes count no more than small ones.
    pub mean_per_class: f64,
    /// Labels to choose between.
    pub classes: usize,
    /// Images.
    pub samples: usize,
    /// Images whose label is none of these; they count as wrong.
    pub samples_of_unknown_class: usize,
    /// Rows with a bad image or no label; they are in no figure.
    pub left_out: usize,
    /// Templates that were ensembled.
    pub templates: usize,
    /// Query of the images.
    pub sql: String,
    /// How the figures were made.
    pub protocol: String,
}

/// The labels as directions: one unit row per label.
///
/// # Errors
/// The texts cannot be embedded.
pub fn class_embeddings(
    names: &[LabelName],
    templates: &[String],
    width: usize,
    mut embed: impl FnMut(&[String]) -> Result<Vec<Vec<f32>>>,
) -> Result<Embeddings> {
    let mut classes = Embeddings::new(width);
    for name in names {
        classes.push(&ensemble(embed(&prompts(templates, &name.words))?, width)?)?;
    }
    Ok(classes)
}

/// Mean of unit rows; [`Embeddings::push`] makes it unit length.
fn ensemble(rows: Vec<Vec<f32>>, width: usize) -> Result<Vec<f32>> {
    let mut mean = vec![0.0_f64; width];
    let count = rows.len().max(1) as f64;
    for mut row in rows {
        unit(&mut row)?;
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(x) / count);
    }
    Ok(mean.into_iter().map(|x| x as f32).collect())
}

/// Hits of each image by itself: whether its class is among the first `k`.
fn hits(places: &[Option<Place>], k: usize) -> Vec<Vec<f64>> {
    places.iter().map(|place| vec![place.map_or(0.0, |place| place.hit_at(k))]).collect()
}

/// Where each image finds its class; nowhere where it has none of these.
fn places(images: &Embeddings, classes: &Embeddings, wanted: &[Option<usize>]) -> Vec<Option<Place>> {
    (0..images.rows())
        .into_par_iter()
        .map(|image| {
            let right = wanted[image]?;
            Place::of(&classes.cosines(images.row(image)), |class| class == right)
        })
        .collect()
}

/// Classifies images with known labels; `untrained` has the same images and classes as the untrained model embeds them.
///
/// # Errors
/// There are no images, or fewer than two labels.
pub fn classify(
    images: &Embeddings,
    labels: &[String],
    classes: &Embeddings,
    names: &[LabelName],
    templates: usize,
    untrained: Option<[&Embeddings; 2]>,
) -> Result<ZeroShot> {
    if images.rows() == 0 || names.len() < 2 {
        let reason = format!(
            "{} images and {} labels; it takes an image and two labels to choose between",
            images.rows(),
            names.len()
        );
        return Err(Error::at(Stage::Evaluate, "evaluate.zero_shot", reason));
    }
    if images.rows() != labels.len() || classes.rows() != names.len() || classes.width() != images.width() {
        return Err(Error::internal("images, labels and classes of a zero-shot evaluation do not fit together"));
    }
    let class_of: BTreeMap<&str, usize> =
        names.iter().enumerate().map(|(at, name)| (name.label.as_str(), at)).collect();
    let wanted: Vec<Option<usize>> = labels.iter().map(|label| class_of.get(label.as_str()).copied()).collect();
    if untrained
        .is_some_and(|[of_images, of_classes]| (of_images.rows(), of_classes.rows()) != (images.rows(), classes.rows()))
    {
        return Err(Error::internal("the untrained model has embedded other images or classes"));
    }
    let trained = places(images, classes, &wanted);
    let untrained = untrained.map(|[images, classes]| places(images, classes, &wanted));
    let beside = |k: usize| untrained.as_ref().map(|untrained| Beside::of(&hits(&trained, k), &hits(untrained, k)));
    let first = hits(&trained, 1);
    let ((accuracy, ci95), (top5, top5_ci95)) = (clustered_95(&first), clustered_95(&hits(&trained, LONGER_LIST)));

    let mut by_class = vec![[0.0_f64; 2]; names.len()];
    for (hit, class) in first.iter().zip(&wanted) {
        if let Some(class) = class {
            by_class[*class][0] += hit[0];
            by_class[*class][1] += 1.0;
        }
    }
    let seen = by_class.iter().filter(|[_, images]| *images > 0.0);
    let mean_per_class = seen.clone().map(|[hits, images]| hits / images).sum::<f64>() / seen.count().max(1) as f64;
    let unknown = wanted.iter().filter(|class| class.is_none()).count();
    let known_share = 1.0 - unknown as f64 / wanted.len() as f64;
    let chance = |k: usize| known_share * Place::of_chance(names.len(), 1).hit_at(k);
    Ok(ZeroShot {
        accuracy,
        ci95,
        chance: chance(1),
        untrained: beside(1),
        top5,
        top5_ci95,
        top5_chance: chance(LONGER_LIST),
        top5_untrained: beside(LONGER_LIST),
        mean_per_class,
        classes: names.len(),
        samples: images.rows(),
        samples_of_unknown_class: unknown,
        left_out: 0,
        templates,
        sql: String::new(),
        protocol: format!(
            "cosine with the unit mean of each label's unit embeddings of {templates} prompt{}; ties count by expectation{}",
            if templates == 1 { "" } else { "s" },
            if untrained.is_some() { "; differences are trained minus untrained, paired by image" } else { "" }
        ),
    })
}

impl fmt::Display for ZeroShot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} classes, {} images, {} template{}",
            self.classes,
            self.samples,
            self.templates,
            if self.templates == 1 { "" } else { "s" }
        )?;
        for (name, share, [low, high], chance, untrained) in [
            ("zero-shot accuracy", self.accuracy, self.ci95, self.chance, self.untrained),
            ("among the first five", self.top5, self.top5_ci95, self.top5_chance, self.top5_untrained),
        ] {
            write!(f, "  {name:<32}{share:.3} [{low:.3} {high:.3}] (chance {chance:.3}")?;
            if let Some(beside) = untrained {
                write!(f, ", untrained {}; difference {}", beside.share_in_words(), beside.difference_in_words())?;
            }
            writeln!(f, ")")?;
        }
        writeln!(f, "  {:<32}{:.3}", "mean over classes", self.mean_per_class)?;
        if self.samples_of_unknown_class > 0 {
            let count = self.samples_of_unknown_class;
            writeln!(f, "  {count} images have a label that is not among the names and count as wrong")?;
        }
        if self.left_out > 0 {
            writeln!(f, "  {} rows have a bad image or no label and are left out", self.left_out)?;
        }
        write!(f, "  {}\n  of {}", self.protocol, self.sql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::scores::Verdict;

    fn names(labels: &[&str]) -> Vec<LabelName> {
        labels.iter().map(|label| LabelName::of(label)).collect()
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn prompts_are_ensembled_as_unit_rows_and_not_as_they_are() {
        let embed = |texts: &[String]| {
            let row = |text: &String| if text.starts_with("long") { vec![0.0, 100.0] } else { vec![1.0, 0.0] };
            Ok(texts.iter().map(row).collect())
        };
        let templates = owned(&["a {}", "long {}"]);
        let classes = class_embeddings(&names(&["cat"]), &templates, 2, embed).expect("embeds");
        // The long row counts no more than the short one.
        let expected = 0.5_f32.sqrt();
        assert!(classes.row(0).iter().all(|x| (x - expected).abs() < 1e-6), "{classes:?}");
    }

    #[test]
    fn every_label_gets_its_own_prompts() {
        let mut seen = vec![];
        let embed = |texts: &[String]| {
            seen.push(texts.to_vec());
            Ok(vec![vec![1.0]; texts.len()])
        };
        class_embeddings(&names(&["hot_dog", "cat"]), &owned(&["a {}.", "the {}"]), 1, embed).expect("embeds");
        assert_eq!(seen, [["a hot dog.", "the hot dog"], ["a cat.", "the cat"]]);
    }

    #[test]
    fn accuracies_are_those_by_hand() {
        // Seven classes on the axes; images on the axes too.
        let axis = |at: usize| (0..7).map(|other| f32::from(u8::from(other == at))).collect::<Vec<f32>>();
        let classes = Embeddings::of(&(0..7).flat_map(axis).collect::<Vec<_>>(), 7).expect("finite");
        let labels = ["a", "b", "c", "d", "e", "f", "g"];
        let mut images = Embeddings::new(7);
        [0, 0, 0, 1].into_iter().for_each(|at| images.push(&axis(at)).expect("finite"));
        // Right, right, wrong (tied with five others behind the first), of no known label.
        let found = classify(&images, &owned(&["a", "a", "b", "z"]), &classes, &names(&labels), 3, None).expect("fits");
        assert_eq!((found.accuracy, found.samples_of_unknown_class, found.samples), (0.5, 1, 4));
        // Of the tied six, four come among the first five.
        assert!((found.top5 - (2.0 + 4.0 / 6.0) / 4.0).abs() < 1e-12);
        assert_eq!(found.mean_per_class, 0.5);
        // The image of no known label is wrong whatever is guessed.
        assert!((found.chance - 0.75 / 7.0).abs() < 1e-12 && (found.top5_chance - 0.75 * 5.0 / 7.0).abs() < 1e-12);
        assert_eq!(found.ci95, crate::evaluate::statistics::wilson_95(2, 4));
        let text = found.to_string();
        assert!(text.contains("7 classes, 4 images, 3 templates") && text.contains("count as wrong"), "{text}");
        assert_eq!(serde_json::to_value(&found).expect("JSON")["accuracy"], 0.5);
    }

    #[test]
    fn a_model_that_knows_nothing_is_at_chance() {
        let images = Embeddings::of(&[1.0; 40], 2).expect("finite");
        let classes = Embeddings::of(&[0.5; 20], 2).expect("finite");
        let labels: Vec<String> = (0..20).map(|at| (at % 10).to_string()).collect();
        let all: Vec<String> = (0..10).map(|at| at.to_string()).collect();
        let all: Vec<LabelName> = all.iter().map(|label| LabelName::of(label)).collect();
        let found = classify(&images, &labels, &classes, &all, 1, None).expect("fits");
        assert!((found.accuracy - 0.1).abs() < 1e-12 && (found.top5 - 0.5).abs() < 1e-12, "{found}");
    }

    #[test]
    fn without_a_choice_there_is_an_error() {
        let one = Embeddings::of(&[1.0, 0.0], 2).expect("finite");
        assert!(classify(&one, &owned(&["a"]), &one, &names(&["a"]), 1, None).is_err());
        assert!(classify(&Embeddings::new(2), &[], &one, &names(&["a"]), 1, None).is_err());
    }

    #[test]
    fn the_untrained_model_stands_beside() {
        let axis = |at: usize| (0..4).map(|other| f32::from(u8::from(other == at))).collect::<Vec<f32>>();
        let classes = Embeddings::of(&(0..4).flat_map(axis).collect::<Vec<_>>(), 4).expect("finite");
        let images = Embeddings::of(&(0..40).flat_map(|at| axis(at % 4)).collect::<Vec<_>>(), 4).expect("finite");
        let labels: Vec<String> = (0..40).map(|at| (at % 4).to_string()).collect();
        let all = names(&["0", "1", "2", "3"]);
        let nothing = |rows: usize| Embeddings::of(&vec![1.0; 3 * rows], 3).expect("finite");
        let (images_of, classes_of) = (nothing(40), nothing(4));
        let untrained = Some([&images_of, &classes_of]);
        let found = classify(&images, &labels, &classes, &all, 1, untrained).expect("fits");
        let beside = found.untrained.expect("asked for");
        assert!((beside.share - 0.25).abs() < 1e-9 && (beside.paired.difference - 0.75).abs() < 1e-9, "{beside:?}");
        assert_eq!(found.top5_untrained.map(|beside| beside.verdict), Some(Verdict::Level));
        let text = found.to_string();
        assert!(text.contains("untrained 0.250 [") && text.contains("difference +0.750 ["), "{text}");
        assert!(classify(&images, &labels, &classes, &all, 1, Some([&images_of, &images_of])).is_err());
    }
}
