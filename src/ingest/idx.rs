//! IDX files (MNIST and its kin): images of one size and, beside them, labels; plain or gzipped.
//!
//! Format: two zero bytes, type (8: unsigned byte), number of dimensions, then each dimension as a big-endian u32, then
//! the values. Source: <http://yann.lecun.com/exdb/mnist/>. Images become grey PNGs, which loses nothing.
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};

use super::class_folders::source_name;
use super::source::Source;
use super::split_name;
use crate::error::{Context, Error, Result, Stage};

/// The classes of Fashion-MNIST, by index (Xiao et al., 2017).
pub const FASHION_MNIST: [&str; 10] =
    ["t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"];

/// The class names known under that name: `fashion_mnist`.
pub fn known_label_names(name: &str) -> Option<Vec<String>> {
    (name == "fashion_mnist").then(|| FASHION_MNIST.map(str::to_owned).to_vec())
}

const UNSIGNED_BYTE: u8 = 8;
/// What a PNG has besides its compressed pixels: enough to plan memory by.
const PNG_OVERHEAD_BYTES: u64 = 128;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// One pair of files.
#[derive(Debug)]
struct Part {
    /// Below the imported folder.
    path: PathBuf,
    split: String,
    /// Uncompressed values of all images, readable at any place.
    values: File,
    first_value_at: u64,
    images: usize,
    rows: u32,
    columns: u32,
    /// One byte per image; none where there is no file of labels.
    labels: Option<Vec<u8>>,
}

/// Every IDX file of images below a folder.
#[derive(Debug)]
pub(super) struct IdxFiles {
    parts: Vec<Part>,
    /// Number of the first image of each part.
    starts: Vec<usize>,
    label_names: Vec<String>,
}

impl IdxFiles {
    /// Opens the files at `paths` below `root`; gzipped images are unpacked into a nameless file in `spool`.
    ///
    /// # Errors
    /// A file cannot be read, is cut off or too long, or its labels do not fit it.
    pub(super) fn open(root: &Path, paths: &[PathBuf], label_names: &[String], spool: &Path) -> Result<Self> {
        let mut parts = Vec::new();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.contains("idx3") || (name.ends_with(".gz") && paths.contains(&path.with_extension(""))) {
                continue;
            }
            parts.push(Part::open(root, path, paths, spool)?);
        }
        if parts.is_empty() {
            let reason = "holds IDX files, but none of images (`…-images-idx3-ubyte`); name the folder that does";
            return Err(Error::at(Stage::Import, root.display().to_string(), reason));
        }
        for part in &parts {
            part.check_label_names(label_names)?;
        }
        let mut starts = vec![0];
        for part in &parts {
            starts.push(starts[starts.len() - 1] + part.images);
        }
        Ok(Self { parts, starts, label_names: label_names.to_vec() })
    }

    fn locate(&self, image: usize) -> (&Part, usize) {
        let part = self.starts.partition_point(|start| *start <= image) - 1;
        (&self.parts[part], image - self.starts[part])
    }
}

impl Part {
    fn open(root: &Path, path: &Path, paths: &[PathBuf], spool: &Path) -> Result<Self> {
        let place = root.join(path).display().to_string();
        let mut file = open(&root.join(path))?;
        let mut header = [0; 16];
        let cut_off = "is cut off; fetch it again";
        file.read_exact(&mut header).context(Stage::Import, &place, cut_off)?;
        let [0, 0, UNSIGNED_BYTE, 3, dimensions @ ..] = header else {
            let reason = "is no IDX file of unsigned bytes in three dimensions; only images with one channel are read";
            return Err(Error::at(Stage::Import, place, reason));
        };
        let [images, rows, columns] =
            [0, 4, 8].map(|at| u32::from_be_bytes([0, 1, 2, 3].map(|byte| dimensions[at + byte])));
        let image_bytes = u64::from(rows) * u64::from(columns);
        if image_bytes == 0 || image_bytes > u64::from(u32::MAX) {
            return Err(Error::at(Stage::Import, place, format!("declares images of {columns}x{rows} pixels")));
        }
        let expected_bytes = u64::from(images).checked_mul(image_bytes).filter(|bytes| *bytes < u64::MAX / 2);
        let expected_bytes =
            expected_bytes.ok_or_else(|| Error::at(Stage::Import, &place, "declares too many images"))?;
        let (values, first_value_at) = match file {
            Reader::Plain(file) => (file.into_inner(), header.len() as u64),
            Reader::Gzip(packed) => (unpack(packed, expected_bytes, spool, &place)?, 0),
        };
        let bytes = values.metadata().context(Stage::Import, &place, "cannot be looked at")?.len() - first_value_at;
        if bytes != expected_bytes {
            let reason = format!("holds {bytes} bytes of {expected_bytes} that it declares; fetch it again");
            return Err(Error::at(Stage::Import, place, reason));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let labels = labels_beside(root, path, &name, paths)?;
        if let Some((at, labels)) = &labels
            && labels.len() != images as usize
        {
            let reason = format!("has {} labels for {images} images in {name}; fetch both again", labels.len());
            return Err(Error::at(Stage::Import, root.join(at).display().to_string(), reason));
        }
        Ok(Self {
            path: path.to_owned(),
            split: split_of(&name),
            values,
            first_value_at,
            images: images as usize,
            rows,
            columns,
            labels: labels.map(|(_, labels)| labels),
        })
    }

    fn check_label_names(&self, label_names: &[String]) -> Result<()> {
        let highest = self.labels.iter().flatten().max();
        match highest {
            Some(highest) if !label_names.is_empty() && usize::from(*highest) >= label_names.len() => {
                let reason =
                    format!("has label {highest}, but there are {} label names; give one each", label_names.len());
                Err(Error::at(Stage::Import, self.path.display().to_string(), reason))
            }
            _ => Ok(()),
        }
    }
}

/// `train-images-…` is of the split `train`, `t10k-images-…` of `test`.
fn split_of(name: &str) -> String {
    let prefix = name.split(['-', '.', '_']).take_while(|part| *part != "images" && !part.contains("idx3"));
    match prefix.last().unwrap_or("train") {
        "t10k" => "test".to_owned(),
        split => split.to_owned(),
    }
}

fn labels_beside(root: &Path, path: &Path, name: &str, paths: &[PathBuf]) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let name = name.replace("images", "labels").replace("idx3", "idx1");
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let candidates = [path.with_file_name(plain), path.with_file_name(format!("{plain}.gz"))];
    let Some(path) = candidates.into_iter().find(|candidate| paths.contains(candidate)) else { return Ok(None) };
    let place = root.join(&path).display().to_string();
    let mut file = open(&root.join(&path))?;
    let mut header = [0; 8];
    let cut_off = "is cut off; fetch it again";
    file.read_exact(&mut header).context(Stage::Import, &place, cut_off)?;
    let [0, 0, UNSIGNED_BYTE, 1, count @ ..] = header else {
        return Err(Error::at(Stage::Import, place, "is no IDX file of labels (unsigned bytes in one dimension)"));
    };
    let count = u64::from(u32::from_be_bytes(count));
    let mut labels = Vec::new();
    file.take(count + 1).read_to_end(&mut labels).context(Stage::Import, &place, cut_off)?;
    if labels.len() as u64 != count {
        return Err(Error::at(
            Stage::Import,
            place,
            format!("holds no {count} labels, as it declares; fetch it again"),
        ));
    }
    Ok(Some((path, labels)))
}

enum Reader {
    Plain(BufReader<File>),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Gzip(file) => file.read(buffer),
        }
    }
}

/// Judged by the first bytes: some collections are unpacked without being renamed.
fn open(path: &Path) -> Result<Reader> {
    let place = path.display().to_string();
    let cannot_read = "cannot be read; check permissions and the disk";
    let mut file = File::open(path).context(Stage::Import, &place, cannot_read)?;
    let mut magic = Vec::new();
    (&file).take(2).read_to_end(&mut magic).context(Stage::Import, &place, cannot_read)?;
    file.seek(SeekFrom::Start(0)).context(Stage::Import, &place, cannot_read)?;
    let file = BufReader::new(file);
    Ok(if magic == GZIP_MAGIC { Reader::Gzip(Box::new(MultiGzDecoder::new(file))) } else { Reader::Plain(file) })
}

/// Random access needs the values unpacked; a file without a name is gone when the process is, however it ends.
fn unpack(packed: impl Read, expected_bytes: u64, spool: &Path, place: &str) -> Result<File> {
    let path = spool.join(format!("idx-{}.tmp", std::process::id()));
    let cannot_write = "cannot be written; check permissions and free space";
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.context(Stage::Import, path.display().to_string(), cannot_write)?;
    std::fs::remove_file(&path).context(Stage::Import, path.display().to_string(), cannot_write)?;
    let mut writer = BufWriter::new(file);
    // One byte more than declared is enough to notice that there are more.
    std::io::copy(&mut packed.take(expected_bytes + 1), &mut writer).context(
        Stage::Import,
        place,
        "cannot be unpacked; fetch it again, and check free space",
    )?;
    writer.flush().context(Stage::Import, place, cannot_write)?;
    writer.into_inner().map_err(|error| error.into_error()).context(Stage::Import, place, cannot_write)
}

impl Source for IdxFiles {
    fn kind(&self) -> &'static str {
        "idx"
    }

    fn images(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        let (part, index) = self.locate(image);
        Cow::Owned(format!("{}#{index}", source_name(&part.path)))
    }

    fn expected_bytes(&self, image: usize) -> u64 {
        let (part, _) = self.locate(image);
        u64::from(part.rows) * u64::from(part.columns) + PNG_OVERHEAD_BYTES
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        let (part, index) = self.locate(image);
        let place = || part.path.display().to_string();
        let pixels = part.rows as usize * part.columns as usize;
        let mut values = vec![0; pixels];
        let at = part.first_value_at + (index * pixels) as u64;
        part.values.read_exact_at(&mut values, at).context(Stage::Import, place(), "cannot be read; check the disk")?;
        let mut encoded = Vec::with_capacity(pixels);
        PngEncoder::new_with_quality(&mut encoded, CompressionType::Default, FilterType::Adaptive)
            .write_image(&values, part.columns, part.rows, image::ExtendedColorType::L8)
            .context(Stage::Import, place(), "cannot be encoded as PNG")?;
        Ok(encoded)
    }

    fn split(&self, image: usize) -> Option<&str> {
        Some(split_name::stored(&self.locate(image).0.split))
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        let (part, index) = self.locate(image);
        let label = *part.labels.as_ref()?.get(index)?;
        Some(match self.label_names.get(usize::from(label)) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(label.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idx(kind: u8, dimensions: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn open_all(files: &[(&str, Vec<u8>)], names: &[&str]) -> Result<IdxFiles> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| PathBuf::from(name)).collect();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        IdxFiles::open(folder.path(), &paths, &names, folder.path())
    }

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("t10k-images-idx3-ubyte", idx(8, &[1, 2, 3], &[9; 6])),
            ("train-images-idx3-ubyte.gz", gzip(&idx(8, &[2, 2, 3], &(0..12).collect::<Vec<_>>()))),
            ("train-labels-idx1-ubyte.gz", gzip(&idx(8, &[2], &[1, 0]))),
        ]
    }

    #[test]
    fn images_become_grey_pngs_without_loss() {
        let source = open_all(&files(), &["zero", "one"]).unwrap();
        assert_eq!(source.images(), 3);
        let pixels = |i| image::load_from_memory(&source.read(i).unwrap()).unwrap();
        assert_eq!(pixels(0).as_luma8().unwrap().as_raw(), &[9; 6]);
        assert_eq!(pixels(2).as_luma8().unwrap().as_raw(), &(6..12).collect::<Vec<u8>>());
        assert_eq!((pixels(2).width(), pixels(2).height()), (3, 2));
        assert_eq!(source.name(2), "train-images-idx3-ubyte.gz#1");
        let places: Vec<_> = (0..3).map(|i| (source.split(i).unwrap(), source.label(i))).collect();
        assert_eq!(
            places,
            [("test", None), ("train", Some(Cow::Borrowed("one"))), ("train", Some(Cow::Borrowed("zero")))]
        );
    }

    #[test]
    fn labels_without_names_are_their_index_and_too_few_names_are_refused() {
        assert_eq!(open_all(&files(), &[]).unwrap().label(1).unwrap(), "1");
        let error = open_all(&files(), &["zero"]).unwrap_err().to_string();
        assert!(error.contains("has label 1, but there are 1 label names"), "{error}");
        assert_eq!(known_label_names("fashion_mnist").unwrap()[9], "ankle_boot");
    }

    #[test]
    fn unpacked_files_win_over_their_gzipped_copies() {
        let mut files = files();
        files.push(("t10k-images-idx3-ubyte.gz", gzip(b"whatever")));
        assert_eq!(open_all(&files, &[]).unwrap().images(), 3);
    }

    #[test]
    fn damaged_files_are_named() {
        let cases = [
            (idx(8, &[2, 2, 3], &[0; 11]), "holds 11 bytes of 12"),
            (idx(8, &[2, 2, 3], &[0; 13]), "holds 13 bytes of 12"),
            (gzip(&idx(8, &[2, 2, 3], &[0; 13])), "holds 13 bytes of 12"),
            (idx(8, &[2, 0, 3], &[]), "images of 3x0 pixels"),
            (idx(9, &[2, 2, 3], &[0; 12]), "no IDX file of unsigned bytes"),
            (idx(8, &[2, 12], &[0; 24]), "no IDX file of unsigned bytes"),
            (vec![0, 0], "is cut off"),
        ];
        for (bytes, expected) in cases {
            let error = open_all(&[("a-images-idx3-ubyte", bytes)], &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected} is not in {error}");
        }
        let mut wrong_labels = files();
        wrong_labels[2].1 = gzip(&idx(8, &[3], &[1, 0, 1]));
        let error = open_all(&wrong_labels, &[]).unwrap_err().to_string();
        assert!(error.contains("has 3 labels for 2 images"), "{error}");
        assert!(open_all(&files()[2..], &[]).unwrap_err().to_string().contains("none of images"));
    }

    #[test]
    fn splits_follow_from_names() {
        let names = ["train-images-idx3-ubyte", "t10k-images.idx3-ubyte", "emnist-letters-test-images-idx3-ubyte.gz"];
        assert_eq!(names.map(split_of), ["train", "test", "test"]);
    }
}
