//! Which image is written when: split by split, within one in a keyed random order.
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::source::Source;
use crate::seed;

/// Longest part of a shard's name that comes from its split.
const SLUG_CHARACTERS: usize = 40;

/// The images of one split in the order in which they are written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Start of the shards' names.
    pub(super) slug: String,
    pub(super) images: Vec<u32>,
}

/// Groups by split, so that a query for one split reads only its shards, sorted by name.
///
/// The key of an image is a function of seed and name alone: adding images moves none of the others past each other.
pub(super) fn groups(source: &dyn Source, seed: u64, keep_order: bool) -> Vec<Group> {
    let mut by_split: BTreeMap<(String, Option<&str>), Vec<u32>> = BTreeMap::new();
    let mut slugs: BTreeMap<Option<&str>, String> = BTreeMap::new();
    for image in 0..source.images() {
        let split = source.split(image);
        let slug = slugs.entry(split).or_insert_with(|| slug(split)).clone();
        by_split.entry((slug, split)).or_default().push(image as u32);
    }
    let order = |((slug, _), mut images): ((String, Option<&str>), Vec<u32>)| {
        if !keep_order {
            let key = |image: u32| {
                let name = xxh3_64(source.name(image as usize).as_bytes());
                seed::draws(seed, "import_order", &[name]).next_u64()
            };
            let mut keyed: Vec<(u64, u32)> = images.into_iter().map(|image| (key(image), image)).collect();
            keyed.sort_unstable();
            images = keyed.into_iter().map(|(_, image)| image).collect();
        }
        Group { slug, images }
    };
    by_split.into_iter().map(order).collect()
}

/// A split's name as a part of a file name.
fn slug(split: Option<&str>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' };
    let slug: String = split.unwrap_or_default().chars().take(SLUG_CHARACTERS).map(plain).collect();
    if slug.is_empty() { "part".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::error::Result;

    struct Names(Vec<(&'static str, Option<&'static str>)>);

    impl Source for Names {
        fn kind(&self) -> &'static str {
            "names"
        }
        fn images(&self) -> usize {
            self.0.len()
        }
        fn name(&self, image: usize) -> Cow<'_, str> {
            self.0[image].0.into()
        }
        fn expected_bytes(&self, _image: usize) -> u64 {
            1
        }
        fn read(&self, _image: usize) -> Result<Vec<u8>> {
            Ok(vec![])
        }
        fn split(&self, image: usize) -> Option<&str> {
            self.0[image].1
        }
        fn label(&self, _image: usize) -> Option<Cow<'_, str>> {
            None
        }
    }

    fn named(names: &[&'static str]) -> Names {
        Names(names.iter().map(|name| (*name, None)).collect())
    }

    fn order(names: &[&'static str], seed: u64) -> Vec<&'static str> {
        groups(&named(names), seed, false)[0].images.iter().map(|&image| names[image as usize]).collect()
    }

    const LETTERS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

    #[test]
    fn the_order_is_a_permutation_named_by_its_seed() {
        assert_eq!(order(&LETTERS, 1), order(&LETTERS, 1));
        assert_ne!(order(&LETTERS, 1), order(&LETTERS, 2));
        let mut sorted = order(&LETTERS, 1);
        assert_ne!(sorted, LETTERS);
        sorted.sort_unstable();
        assert_eq!(sorted, LETTERS);
        assert_eq!(groups(&named(&LETTERS), 1, true)[0].images, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn an_image_more_moves_none_of_the_others() {
        let mut without = order(&LETTERS, 7);
        without.retain(|name| *name != "e");
        let fewer: Vec<&str> = LETTERS.into_iter().filter(|name| *name != "e").collect();
        assert_eq!(order(&fewer, 7), without);
    }

    #[test]
    fn splits_are_groups_of_their_own_under_plain_names() {
        let splits = [Some("train"), None, Some("Zweite Hälfte/2"), Some("train"), Some("")];
        let source = Names(LETTERS.into_iter().zip(splits).collect());
        let found = groups(&source, 0, true);
        let expected = [("part", vec![1]), ("part", vec![4]), ("train", vec![0, 3]), ("zweite_h_lfte_2", vec![2])];
        let found: Vec<_> = found.iter().map(|group| (group.slug.as_str(), group.images.clone())).collect();
        assert_eq!(found, expected);
    }
}
