//! Retrieval: which text belongs to an image and which image to a text, among all of a set.
//!
//! An image with several captions is found by any of them (Karpathy and Fei-Fei 2015); each caption looks for its one image.
//! Candidates of equal score count by expectation, see [`Place`]: equal captions of different images are equal scores.

use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{beside::Beside, embeddings::Embeddings, place::Place, statistics::clustered_95};
use crate::error::{Error, Result, Stage};

/// Best images of a caption that the report shows.
const SHOWN: usize = 5;

/// `[evaluate.retrieval]` of a pipeline whose method has a text tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrievalSettings {
    /// Query over `shards` that returns `image` and `caption`, a text or a list of texts. Rows with the same `image_key`,
    /// else the same `sample_id`, where one is returned, are captions of one image.
    pub sql: String,
    /// Captions whose best images the report shows; 0: none.
    #[serde(default = "default_pictures")]
    pub pictures: usize,
}

fn default_pictures() -> usize {
    16
}

/// One value for each length of the list that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct AtRank<T> {
    /// Among the first.
    pub r1: T,
    /// Among the first five.
    pub r5: T,
    /// Among the first ten.
    pub r10: T,
}

impl<T> AtRank<T> {
    fn of(mut value: impl FnMut(usize) -> T) -> Self {
        Self { r1: value(1), r5: value(5), r10: value(10) }
    }
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Share of queries with a right candidate among the first k.
    #[serde(flatten)]
    pub recall: AtRank<f64>,
    /// 95 % intervals; captions of one image are one cluster.
    pub ci95: AtRank<[f64; 2]>,
    /// The same of a model that knows nothing.
    pub chance: AtRank<f64>,
    /// The untrained model on the same queries, where it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained: Option<AtRank<Beside>>,
    /// Median over queries of the expected rank of the first right candidate, from 1.
    pub median_rank: f64,
    /// The untrained model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained_median_rank: Option<f64>,
    /// Queries.
    pub queries: usize,
    /// Candidates of each.
    pub candidates: usize,
}

/// Both directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// An image looks for any of its captions.
    pub image_to_text: Direction,
    /// A caption looks for its image.
    pub text_to_image: Direction,
    /// Rows that cannot be used: a bad image, or no caption.
    pub left_out: usize,
    /// Query of the pairs.
    pub sql: String,
    /// How the figures were made.
    pub protocol: String,
}

/// Where every image finds its first text, and every text its image.
struct Ranks {
    of_images: Vec<Place>,
    of_texts: Vec<Place>,
}

impl Ranks {
    fn new(images: &Embeddings, texts: &Embeddings, image_of: &[usize]) -> Result<Self> {
        if images.width() != texts.width() || image_of.len() != texts.rows() {
            return Err(Error::internal("images and texts of a retrieval do not fit together"));
        }
        let lost = || Error::internal("a query has no right candidate");
        let of_images: Vec<Option<Place>> = (0..images.rows())
            .into_par_iter()
            .map(|image| Place::of(&texts.cosines(images.row(image)), |text| image_of[text] == image))
            .collect();
        let of_texts: Vec<Option<Place>> = (0..texts.rows())
            .into_par_iter()
            .map(|text| Place::of(&images.cosines(texts.row(text)), |image| image_of[text] == image))
            .collect();
        Ok(Self {
            of_images: of_images.into_iter().collect::<Option<_>>().ok_or_else(lost)?,
            of_texts: of_texts.into_iter().collect::<Option<_>>().ok_or_else(lost)?,
        })
    }
}

/// Ranks all texts for each image and all images for each text. `image_of` says which image each text belongs to;
/// `untrained` has the same images and texts as the untrained model embeds them.
///
/// # Errors
/// There is nothing to rank, the widths differ, or an image has no text.
pub fn retrieval(
    images: &Embeddings,
    texts: &Embeddings,
    image_of: &[usize],
    untrained: Option<[&Embeddings; 2]>,
) -> Result<Retrieval> {
    let fail = |reason: String| Err(Error::at(Stage::Evaluate, "evaluate.retrieval", reason));
    if images.rows() == 0 || texts.rows() == 0 {
        return fail("there are no pairs; does the query return rows with an image and a caption?".to_owned());
    }
    let mut texts_of = vec![0_usize; images.rows()];
    for &image in image_of {
        match texts_of.get_mut(image) {
            Some(count) => *count += 1,
            None => return Err(Error::internal("a text of an image that is not there")),
        }
    }
    if texts_of.contains(&0) {
        return Err(Error::internal("an image without a text cannot look for one"));
    }
    let ranks = Ranks::new(images, texts, image_of)?;
    let untrained = match untrained {
        Some([of_images, of_texts]) if (of_images.rows(), of_texts.rows()) == (images.rows(), texts.rows()) => {
            Some(Ranks::new(of_images, of_texts, image_of)?)
        }
        Some(_) => return Err(Error::internal("the untrained model has embedded other images or texts")),
        None => None,
    };
    let beside = untrained.as_ref().map(|ranks| [ranks.of_images.as_slice(), ranks.of_texts.as_slice()]);
    let chance_of_images = AtRank::of(|k| {
        let hits = texts_of.iter().map(|&right| Place::of_chance(texts.rows(), right).hit_at(k));
        hits.sum::<f64>() / images.rows() as f64
    });
    let chance_of_texts = AtRank::of(|k| Place::of_chance(images.rows(), 1).hit_at(k));
    let by_itself: Vec<usize> = (0..images.rows()).collect();
    let [beside_images, beside_texts] = [0, 1].map(|side| beside.map(|beside| beside[side]));
    let paired = if beside.is_some() { "; differences are trained minus untrained, paired by query" } else { "" };
    Ok(Retrieval {
        image_to_text: Direction {
            candidates: texts.rows(),
            chance: chance_of_images,
            ..direction(&ranks.of_images, beside_images, &by_itself)
        },
        text_to_image: Direction {
            candidates: images.rows(),
            chance: chance_of_texts,
            ..direction(&ranks.of_texts, beside_texts, image_of)
        },
        left_out: 0,
        sql: String::new(),
        protocol: format!(
            "cosines of {} images and {} texts, all against all; an image is found by any of its captions; ties count by \
             expectation; intervals by clusters of images{paired}",
            images.rows(),
            texts.rows()
        ),
    })
}

/// One direction, but for its candidates and their chance. `cluster_of` has the image of each query.
fn direction(places: &[Place], untrained: Option<&[Place]>, cluster_of: &[usize]) -> Direction {
    let clusters = cluster_of.iter().max().map_or(0, |last| last + 1);
    let hits = |places: &[Place], k: usize| {
        let mut hits = vec![Vec::new(); clusters];
        for (place, &cluster) in places.iter().zip(cluster_of) {
            hits[cluster].push(place.hit_at(k));
        }
        hits
    };
    Direction {
        recall: AtRank::of(|k| clustered_95(&hits(places, k)).0),
        ci95: AtRank::of(|k| clustered_95(&hits(places, k)).1),
        chance: AtRank::default(),
        untrained: untrained.map(|untrained| AtRank::of(|k| Beside::of(&hits(places, k), &hits(untrained, k)))),
        median_rank: median_rank(places),
        untrained_median_rank: untrained.map(median_rank),
        queries: places.len(),
        candidates: 0,
    }
}

fn median_rank(places: &[Place]) -> f64 {
    let mut ranks: Vec<f64> = places.iter().map(Place::rank).collect();
    ranks.sort_by(f64::total_cmp);
    let middle = ranks.len() / 2;
    match ranks.len() % 2 {
        0 => (ranks[middle - 1] + ranks[middle]) / 2.0,
        _ => ranks[middle],
    }
}

/// One of the best images of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Which image.
    pub image: usize,
    /// How alike they are.
    pub cosine: f32,
    /// Whether the text is a caption of it.
    pub is_right: bool,
}

/// Images as a text ranks them.
#[derive(Debug, Clone, PartialEq)]
pub struct BestImages {
    /// Rank of the text's own image among all, from 1; among equal ones the expected.
    pub own_rank: f64,
    /// The best, the best first; of equal ones the earlier.
    pub images: Vec<Match>,
}

/// What a text finds, whose own image is `right`.
///
/// # Errors
/// Ours: there is no such image.
pub fn best_images(images: &Embeddings, text: &[f32], right: usize) -> Result<BestImages> {
    let cosines = images.cosines(text);
    let Some(own) = Place::of(&cosines, |image| image == right) else {
        return Err(Error::internal("a text of an image that is not there"));
    };
    let mut order: Vec<usize> = (0..cosines.len()).collect();
    order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
    let found = |image: usize| Match { image, cosine: cosines[image], is_right: image == right };
    Ok(BestImages { own_rank: own.rank(), images: order.into_iter().take(SHOWN).map(found).collect() })
}

impl fmt::Display for Retrieval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<36}{:<30}{:<30}{:<30}median rank", "retrieval [95 % interval] (chance)", "R@1", "R@5", "R@10")?;
        for (name, direction) in [("image to text", &self.image_to_text), ("text to image", &self.text_to_image)] {
            let Direction { recall, ci95, chance, .. } = direction;
            write!(f, "{:<36}", format!("{name}, 1 of {}", direction.candidates))?;
            for (share, [low, high], chance) in
                [(recall.r1, ci95.r1, chance.r1), (recall.r5, ci95.r5, chance.r5), (recall.r10, ci95.r10, chance.r10)]
            {
                write!(f, "{:<30}", format!("{share:.3} [{low:.3} {high:.3}] ({chance:.3})"))?;
            }
            writeln!(f, "{:.1}", direction.median_rank)?;
            if let (Some(AtRank { r1, r5, r10 }), Some(median_rank)) =
                (direction.untrained, direction.untrained_median_rank)
            {
                let all = [r1, r5, r10];
                let [shares, differences] = [all.map(|at| at.share_in_words()), all.map(|at| at.difference_in_words())];
                let row = |name: &str, [r1, r5, r10]: [String; 3]| format!("  {name:<34}{r1:<30}{r5:<30}{r10:<30}");
                writeln!(f, "{}{median_rank:.1}", row("untrained model", shares))?;
                writeln!(f, "{}", row("difference", differences).trim_end())?;
            }
        }
        if self.left_out > 0 {
            writeln!(f, "  {} rows have a bad image or no caption and are left out", self.left_out)?;
        }
        write!(f, "  {}\n  of {}", self.protocol, self.sql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the plane at these angles, in degrees.
    fn at_angles(degrees: &[f64]) -> Embeddings {
        let values: Vec<f32> = degrees
            .iter()
            .flat_map(|angle| [libm::cos(angle.to_radians()) as f32, libm::sin(angle.to_radians()) as f32])
            .collect();
        Embeddings::of(&values, 2).expect("finite")
    }

    #[test]
    fn planted_pairs_are_all_found() {
        let images = at_angles(&[0.0, 90.0, 180.0]);
        let texts = at_angles(&[2.0, 358.0, 91.0, 178.0]);
        let found = retrieval(&images, &texts, &[0, 0, 1, 2], None).expect("fits");
        assert_eq!(found.image_to_text.recall, AtRank { r1: 1.0, r5: 1.0, r10: 1.0 });
        assert_eq!(found.text_to_image.recall, AtRank { r1: 1.0, r5: 1.0, r10: 1.0 });
        assert_eq!((found.image_to_text.median_rank, found.text_to_image.median_rank), (1.0, 1.0));
        assert_eq!((found.image_to_text.queries, found.image_to_text.candidates), (3, 4));
        assert_eq!((found.text_to_image.queries, found.text_to_image.candidates), (4, 3));
        // Two of four texts are right for the first image, one for the others.
        assert!((found.image_to_text.chance.r1 - (0.5 + 0.25 + 0.25) / 3.0).abs() < 1e-12);
        assert!((found.text_to_image.chance.r1 - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn ranks_are_those_by_hand() {
        // The second text lies nearer to image 0 than to its own.
        let images = at_angles(&[0.0, 90.0]);
        let texts = at_angles(&[5.0, 40.0]);
        let found = retrieval(&images, &texts, &[0, 1], None).expect("fits");
        assert_eq!((found.image_to_text.recall.r1, found.text_to_image.recall.r1), (1.0, 0.5));
        assert_eq!(found.text_to_image.median_rank, 1.5);
        let swapped = retrieval(&texts, &images, &[0, 1], None).expect("fits");
        assert_eq!((swapped.image_to_text.recall.r1, swapped.text_to_image.recall.r1), (0.5, 1.0));
    }

    #[test]
    fn equal_captions_of_different_images_are_half_right() {
        let images = at_angles(&[0.0, 1.0, 90.0]);
        let texts = at_angles(&[0.5, 0.5, 90.0]);
        let found = retrieval(&images, &texts, &[0, 1, 2], None).expect("fits");
        assert!((found.image_to_text.recall.r1 - 2.0 / 3.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn a_model_that_knows_nothing_is_at_chance_in_both_directions() {
        let images = at_angles(&[30.0; 20]);
        let texts = at_angles(&[30.0; 100]);
        let image_of: Vec<usize> = (0..100).map(|text| text / 5).collect();
        let found = retrieval(&images, &texts, &image_of, None).expect("fits");
        for direction in [found.image_to_text, found.text_to_image] {
            let (recall, chance) = (direction.recall, direction.chance);
            assert!((recall.r1 - chance.r1).abs() < 1e-9 && (recall.r10 - chance.r10).abs() < 1e-9, "{direction:?}");
        }
        assert!((found.image_to_text.chance.r1 - 0.05).abs() < 1e-12);
        assert!((found.text_to_image.chance.r10 - 0.5).abs() < 1e-12);
    }

    #[test]
    fn captions_of_one_image_make_the_interval_wider() {
        // Forty images: five captions of each odd one point the wrong way.
        let angles: Vec<f64> = (0..40).map(|image| 9.0 * f64::from(image)).collect();
        let turned = |image: u32| if image % 2 == 1 { 9.0 } else { 0.0 };
        let captions: Vec<f64> = (0..200).map(|text| 9.0 * f64::from(text / 5) + turned(text / 5)).collect();
        let image_of: Vec<usize> = (0..200).map(|text| text / 5).collect();
        let found = retrieval(&at_angles(&angles), &at_angles(&captions), &image_of, None).expect("fits").text_to_image;
        assert_eq!(found.recall.r1, 0.5);
        let width = found.ci95.r1[1] - found.ci95.r1[0];
        let alone = crate::evaluate::statistics::wilson_95(100, 200);
        assert!(width > 2.0 * (alone[1] - alone[0]), "{width}");
    }

    #[test]
    fn json_has_the_shape_that_scripts_rely_on() {
        let images = at_angles(&[0.0, 90.0]);
        let found = retrieval(&images, &images, &[0, 1], None).expect("fits");
        let json = serde_json::to_value(&found).expect("JSON");
        for direction in ["image_to_text", "text_to_image"] {
            assert_eq!((&json[direction]["r1"], &json[direction]["r10"]), (&1.0.into(), &1.0.into()));
            assert!(json[direction]["ci95"]["r5"].is_array() && json[direction]["chance"]["r1"].is_f64());
        }
        assert_eq!(serde_json::from_value::<Retrieval>(json).expect("the same"), found);
    }

    #[test]
    fn the_best_images_stand_in_order_and_the_right_one_is_marked() {
        let images = at_angles(&[50.0, 0.0, 10.0, 10.0, 90.0, 70.0, 60.0]);
        let BestImages { own_rank, images: found } = best_images(&images, &[1.0, 0.0], 0).expect("its own is there");
        assert_eq!(own_rank, 4.0);
        assert_eq!(found.iter().map(|found| found.image).collect::<Vec<_>>(), [1, 2, 3, 0, 6]);
        assert_eq!(found.iter().filter(|found| found.is_right).count(), 1);
        assert!(found[3].is_right);
        // Of two equal ones it is the second or the third.
        assert_eq!(best_images(&images, &[1.0, 0.0], 3).expect("its own is there").own_rank, 2.5);
        assert!(best_images(&images, &[1.0, 0.0], 7).is_err());
    }

    #[test]
    fn nothing_to_rank_is_an_error_with_the_question_to_ask() {
        let none = Embeddings::new(2);
        let error = retrieval(&none, &none, &[], None).expect_err("nothing").to_string();
        assert!(error.contains("evaluate.retrieval") && error.contains("does the query return"), "{error}");
    }

    #[test]
    fn the_untrained_model_stands_beside_with_the_difference_on_the_same_queries() {
        let angles: Vec<f64> = (0..40).map(|image| 9.0 * f64::from(image)).collect();
        let images = at_angles(&angles);
        // Knows nothing: all texts are alike.
        let nothing = at_angles(&[30.0; 40]);
        let image_of: Vec<usize> = (0..40).collect();
        let alone = retrieval(&images, &images, &image_of, None).expect("fits");
        let found = retrieval(&images, &images, &image_of, Some([&nothing, &nothing])).expect("fits");
        for (direction, alone) in
            [(found.image_to_text, alone.image_to_text), (found.text_to_image, alone.text_to_image)]
        {
            let beside = direction.untrained.expect("asked for");
            assert!(
                (beside.r1.share - 1.0 / 40.0).abs() < 1e-9 && (beside.r5.share - 0.125).abs() < 1e-9,
                "{beside:?}"
            );
            assert!((beside.r1.paired.difference - 0.975).abs() < 1e-9, "{beside:?}");
            assert_eq!(direction.untrained_median_rank, Some(20.5));
            assert_eq!(
                direction,
                Direction { untrained: direction.untrained, untrained_median_rank: Some(20.5), ..alone }
            );
        }
        let text = found.to_string();
        assert!(text.contains("  untrained model                   0.025 [") && text.contains("difference"), "{text}");
        assert!(text.contains("paired by query") && !alone.to_string().contains("untrained"), "{text}");
        let fewer = at_angles(&[30.0; 39]);
        assert!(retrieval(&images, &images, &image_of, Some([&fewer, &nothing])).is_err());
    }
}
