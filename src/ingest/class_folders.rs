//! Class folders: `train/CLASS/…` and `test/CLASS/…`, or `CLASS/…`; the name of the folder is the label.
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::modality::Modality;
use super::source::{Place, Source};
use super::split_name::{self, is_split};
use super::walk::Listed;
use crate::error::{Error, Result, Stage};

/// The split that a path below the imported folder lies in: its first folder, if that is named like one.
pub(super) fn split_of(path: &Path) -> Option<String> {
    let mut folders = folders_of(path);
    folders.next().filter(|first| is_split(first)).map(Cow::into_owned)
}

fn folders_of(path: &Path) -> impl Iterator<Item = Cow<'_, str>> {
    let parts = path.parent().into_iter().flat_map(Path::components);
    parts.filter_map(|part| if let Component::Normal(name) = part { Some(name.to_string_lossy()) } else { None })
}

/// A path as the `source` column has it.
pub(super) fn source_name(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

/// Images or series in folders that name their class.
#[derive(Debug)]
pub(super) struct ClassFolders {
    root: PathBuf,
    modality: Modality,
    files: Vec<Listed>,
    /// Whether the first folder of a path is its split.
    has_splits: bool,
    /// Split and label of each file, as numbers into `names`: a million files share a thousand names.
    places: Vec<(Option<u32>, Option<u32>)>,
    names: Vec<String>,
}

impl ClassFolders {
    /// # Errors
    /// Splits lie beside folders that are none, so that neither reading is safe, or below a folder that holds all files.
    pub(super) fn new(root: &Path, files: Vec<Listed>, modality: Modality) -> Result<Self> {
        let tops: BTreeSet<Cow<'_, str>> = files.iter().filter_map(|file| folders_of(&file.path).next()).collect();
        let (splits, others): (Vec<&str>, Vec<&str>) = tops.iter().map(Cow::as_ref).partition(|top| is_split(top));
        if !splits.is_empty() && !others.is_empty() {
            let reason = format!(
                "holds the splits {} beside {}, which may be classes; move one of the two kinds elsewhere",
                splits.join(", "),
                first_few(&others)
            );
            return Err(Error::at(Stage::Import, root.display().to_string(), reason));
        }
        if let Some(meant) = folder_of_splits(&files) {
            let reason = format!(
                "holds one folder, and the splits are further down: import {} instead",
                root.join(meant).display()
            );
            return Err(Error::at(Stage::Import, root.display().to_string(), reason));
        }
        let has_splits = !splits.is_empty();
        let mut numbers = std::collections::BTreeMap::new();
        let mut names = Vec::new();
        let mut number = |name: Cow<'_, str>| {
            *numbers.entry(name.into_owned()).or_insert_with_key(|name| {
                names.push(name.clone());
                names.len() as u32 - 1
            })
        };
        let mut places = Vec::with_capacity(files.len());
        for file in &files {
            let mut folders = folders_of(&file.path);
            let split = if has_splits { folders.next().map(&mut number) } else { None };
            places.push((split, folders.next().map(&mut number)));
        }
        Ok(Self { root: root.to_owned(), modality, has_splits, places, names, files })
    }

    /// What to say where all images are of one class: then FROM may be one folder too high.
    pub(super) fn only_class(&self) -> Option<String> {
        let class = self.places.first()?.1?;
        if self.places.len() < 2 || self.places.iter().any(|place| place.1 != Some(class)) {
            return None;
        }
        let class = &self.names[class as usize];
        let depth = if self.has_splits { 2 } else { 1 };
        let has_folders = self.files.iter().any(|file| folders_of(&file.path).nth(depth).is_some());
        let mut text = format!("all {} images are of one class, {class}", self.files.len());
        if has_folders && !self.has_splits {
            let below = self.root.join(class);
            text.push_str(&format!("; where its folders are the classes, import {} instead", below.display()));
        }
        Some(text)
    }
}

/// Where all files lie in one folder that holds nothing but splits: that folder. As classes they would be one.
fn folder_of_splits(files: &[Listed]) -> Option<PathBuf> {
    let first: Vec<Cow<'_, str>> = folders_of(&files.first()?.path).collect();
    let depth = first.iter().position(|name| is_split(name)).filter(|depth| *depth > 0)?;
    let is_below = |file: &Listed| {
        let folders: Vec<Cow<'_, str>> = folders_of(&file.path).take(depth + 1).collect();
        folders.len() > depth && folders[..depth] == first[..depth] && is_split(&folders[depth])
    };
    files.iter().all(is_below).then(|| first[..depth].iter().map(|name| &**name).collect())
}

fn first_few(names: &[&str]) -> String {
    match names {
        [a, b, c, _, ..] => format!("{a}, {b}, {c} and {} more", names.len() - 3),
        _ => names.join(", "),
    }
}

impl Source for ClassFolders {
    fn kind(&self) -> &'static str {
        if self.has_splits { "class_folders_with_splits" } else { "class_folders" }
    }

    fn modality(&self) -> Modality {
        self.modality
    }

    fn images(&self) -> usize {
        self.files.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        source_name(&self.files[image].path)
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        self.files[image].bytes
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        self.files[image].read(&self.root)
    }

    fn place(&self, image: usize) -> Option<Place> {
        Some(self.files[image].place(&self.root))
    }

    fn split(&self, image: usize) -> Option<&str> {
        self.places[image].0.map(|number| split_name::stored(&self.names[number as usize]))
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        self.places[image].1.map(|number| Cow::Borrowed(self.names[number as usize].as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(paths: &[&str]) -> Result<ClassFolders> {
        let files = paths.iter().map(|path| Listed { path: PathBuf::from(path), bytes: 1 });
        ClassFolders::new(Path::new("root"), files.collect(), Modality::Image)
    }

    fn places(paths: &[&str]) -> Vec<(Option<String>, Option<String>)> {
        let source = source(paths).unwrap();
        (0..paths.len()).map(|i| (source.split(i).map(str::to_owned), source.label(i).map(Cow::into_owned))).collect()
    }

    fn place(split: &str, label: &str) -> (Option<String>, Option<String>) {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        (some(split), some(label))
    }

    #[test]
    fn the_first_folder_is_the_class_and_deeper_ones_belong_to_it() {
        let found = places(&["cat/1.png", "cat/kittens/2.png", "dog/1.png", "stray.png"]);
        assert_eq!(found, [place("", "cat"), place("", "cat"), place("", "dog"), place("", "")]);
    }

    #[test]
    fn splits_come_before_classes_and_may_have_none() {
        let found = places(&["Train/cat/1.png", "test/cat/1.png", "val/1.png", "stray.png"]);
        assert_eq!(found, [place("train", "cat"), place("test", "cat"), place("validation", ""), place("", "")]);
    }

    #[test]
    fn splits_one_folder_further_down_are_refused_with_the_folder_that_is_meant() {
        for paths in [&["cifar/train/cat/1.png", "cifar/test/cat/1.png"][..], &["a/b/train/cat/1.png"]] {
            let meant = if paths.len() == 2 { "root/cifar instead" } else { "root/a/b instead" };
            let error = source(paths).unwrap_err().to_string();
            assert!(error.contains(meant), "{error}");
        }
        source(&["cat/train/1.png", "dog/train/1.png"]).unwrap();
    }

    #[test]
    fn one_class_for_all_images_is_told() {
        let told = |paths: &[&str]| source(paths).unwrap().only_class();
        let text = told(&["set/cat/1.png", "set/dog/1.png"]).unwrap();
        assert!(text.contains("one class, set") && text.contains("import root/set instead"), "{text}");
        assert_eq!(told(&["cat/1.png", "cat/2.png"]).unwrap(), "all 2 images are of one class, cat");
        assert!(told(&["cat/1.png", "dog/2.png"]).is_none() && told(&["1.png", "2.png"]).is_none());
        assert!(told(&["cat/1.png", "2.png"]).is_none());
    }

    #[test]
    fn splits_beside_classes_are_refused() {
        let error = source(&["train/cat/1.png", "a/1.png", "b/1.png", "c/1.png", "d/1.png"]).unwrap_err().to_string();
        assert!(error.contains("splits train beside a, b, c and 1 more"), "{error}");
    }
}
