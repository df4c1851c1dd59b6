//! What a method is given of a batch.
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{
    captions::{ImageTexts, PairCaptions},
    series::SeriesBatch,
};
use crate::{
    error::{Error, Result, Stage},
    model::Windows,
};

/// What a batch holds, on its device.
#[derive(Debug, Clone)]
pub enum Content {
    /// Views of images, u8: `[items, views, 3, side, side]`.
    Views(Tensor<5, Int>),
    /// Images with their texts.
    ImageTexts(ImageTexts),
    /// Windows and what they are windows of.
    Windows(SequencedWindows),
}

/// Windows and what they are windows of, one row each.
#[derive(Debug, Clone)]
pub struct SequencedWindows {
    /// Series, sentences or images.
    pub windows: Windows,
    /// Each row's sequence: equal for windows of one series.
    pub sequences: Vec<u32>,
    /// Each row's group, where groups are known.
    pub groups: Option<Vec<u32>>,
}

/// Images with their texts, one row each.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Floats in [0, 1]: `[pairs, 3, height, width]`.
    pub images: Tensor<4>,
    /// As many texts.
    pub captions: PairCaptions,
}

/// What a method is given of a batch.
#[derive(Debug, Clone)]
pub enum Input {
    /// Views of images as floats in [0, 1], each `[items, 3, height, width]`.
    Views(Vec<Tensor<4>>),
    /// Images with their texts.
    Pairs(Pairs),
    /// Windows.
    Windows(SequencedWindows),
}

impl SequencedWindows {
    /// Windows of as many sequences, without groups.
    pub fn apart(windows: impl Into<Windows>) -> Self {
        let windows = windows.into();
        let rows = windows.count() as u32;
        Self { windows, sequences: (0..rows).collect(), groups: None }
    }

    /// A batch of series on a device.
    ///
    /// # Errors
    /// Its parts do not agree in length.
    pub fn of(batch: SeriesBatch, device: &Device) -> Result<Self> {
        let SeriesBatch { windows, rows, channels, steps, sequences, groups } = batch;
        let of_groups = groups.as_ref().map_or(rows, Vec::len);
        if windows.len() != rows * channels * steps || sequences.len() != rows || of_groups != rows {
            let reason = format!(
                "{} numbers, {} sequences and {of_groups} groups are not {rows} windows of {channels} channels and \
                 {steps} steps",
                windows.len(),
                sequences.len()
            );
            return Err(Error::at(Stage::Batch, "windows", reason));
        }
        let windows = Tensor::<3>::from_data(TensorData::new(windows, [rows, channels, steps]), device);
        Ok(Self { windows: windows.into(), sequences, groups })
    }
}

impl Content {
    /// In words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Views(_) => "views of images",
            Self::ImageTexts(_) => "images with texts",
            Self::Windows(_) => "windows",
        }
    }

    /// Items.
    pub fn items(&self) -> usize {
        match self {
            Self::Views(pixels) | Self::ImageTexts(ImageTexts { pixels, .. }) => pixels.dims()[0],
            Self::Windows(windows) => windows.windows.count(),
        }
    }

    /// Some of the rows, from `first` on.
    ///
    /// # Errors
    /// Of windows, which are compared with what is in their own batch and have no part of it.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Views(pixels) => Ok(Self::Views(pixels.clone().narrow(0, first, count))),
            Self::ImageTexts(ImageTexts { pixels, captions }) => Ok(Self::ImageTexts(ImageTexts {
                pixels: pixels.clone().narrow(0, first, count),
                captions: captions.rows(first, count),
            })),
            Self::Windows(_) => {
                let reason = "windows are compared with others of their batch; take it in one piece, train.chunks = 1";
                Err(Error::at(Stage::Batch, "windows", reason))
            }
        }
    }

    /// As a method takes it; pixels become floats on the device.
    pub fn input(&self) -> Input {
        match self {
            Self::Views(pixels) => Input::Views((0..pixels.dims()[1]).map(|at| view(pixels, at)).collect()),
            Self::ImageTexts(ImageTexts { pixels, captions }) => {
                Input::Pairs(Pairs { images: view(pixels, 0), captions: captions.clone() })
            }
            Self::Windows(windows) => Input::Windows(windows.clone()),
        }
    }
}

impl Input {
    /// Items of the batch.
    pub fn items(&self) -> usize {
        match self {
            Self::Views(views) => views.first().map_or(0, |view| view.dims()[0]),
            Self::Pairs(pairs) => pairs.images.dims()[0],
            Self::Windows(windows) => windows.windows.count(),
        }
    }

    /// For a method that takes so many views of images.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_views<const VIEWS: usize>(self, method: &str) -> Result<[Tensor<4>; VIEWS]> {
        let found = match self {
            Self::Views(views) => match <[Tensor<4>; VIEWS]>::try_from(views) {
                Ok(views) => return Ok(views),
                Err(views) => format!("{} views", views.len()),
            },
            Self::Pairs(_) => "images with texts".to_owned(),
            Self::Windows(_) => "windows".to_owned(),
        };
        let reason = format!("takes {VIEWS} views of an image, not {found}; choose a pairing that makes them");
        Err(Error::at(Stage::Model, method, reason))
    }

    /// For a method that takes windows; one view of each image is a window too.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_windows(self, method: &str) -> Result<SequencedWindows> {
        match self {
            Self::Windows(windows) => Ok(windows),
            views => views.into_views::<1>(method).map(|[view]| SequencedWindows::apart(view)),
        }
    }

    /// For a method that takes images with their texts.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_pairs(self, method: &str) -> Result<Pairs> {
        let found = match self {
            Self::Pairs(pairs) => return Ok(pairs),
            Self::Views(views) => format!("{} views", views.len()),
            Self::Windows(_) => "windows".to_owned(),
        };
        let reason = format!("takes images with texts, not {found}; choose pair.image_text");
        Err(Error::at(Stage::Model, method, reason))
    }

    /// One image per item, whatever text goes with it.
    ///
    /// # Errors
    /// It is something else.
    pub fn into_images(self, method: &str) -> Result<Tensor<4>> {
        match self {
            Self::Pairs(pairs) => Ok(pairs.images),
            other => other.into_views::<1>(method).map(|[view]| view),
        }
    }
}

/// One view of every item, `[items, 3, side, side]`.
pub(super) fn view(pixels: &Tensor<5, Int>, view: usize) -> Tensor<4> {
    let one = pixels.clone().narrow(1, view, 1); // [items, 1, 3, side, side]
    one.squeeze_dim::<4>(1).float().div_scalar(255.0) // [items, 3, side, side]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_view_is_a_window_of_an_image_and_two_are_not() {
        let device = Device::flex();
        let view = || Tensor::<4>::zeros([2, 3, 4, 4], &device);
        let one = Input::Views(vec![view()]).into_windows("cpc").expect("one view");
        assert_eq!((one.sequences, one.windows.count()), (vec![0, 1], 2));
        let error = Input::Views(vec![view(), view()]).into_windows("cpc").expect_err("two").to_string();
        assert!(error.contains("cpc") && error.contains("not 2 views"), "{error}");
        let windows = Input::Windows(SequencedWindows::apart(Tensor::<3>::zeros([2, 1, 9], &device)));
        assert_eq!(windows.items(), 2);
        let error = windows.into_views::<2>("simclr").expect_err("windows").to_string();
        assert!(error.contains("takes 2 views") && error.contains("not windows"), "{error}");
    }

    #[test]
    fn a_pair_is_an_image_and_no_window() {
        let device = Device::flex();
        let images = Tensor::<4>::zeros([2, 3, 4, 4], &device);
        let captions = PairCaptions::of_distinct_images(vec![vec![1, 2], vec![1, 2]]);
        let pairs = Input::Pairs(Pairs { images, captions });
        assert_eq!(pairs.items(), 2);
        let texts = pairs.clone().into_pairs("clip").expect("pairs").captions.texts;
        assert_eq!(texts[0], texts[1]);
        assert_eq!(pairs.clone().into_images("clip").expect("images").dims(), [2, 3, 4, 4]);
        let error = pairs.into_windows("cpc").expect_err("no windows").to_string();
        assert!(error.contains("cpc") && error.contains("images with texts"), "{error}");
        let view = || Tensor::<4>::zeros([2, 3, 4, 4], &device);
        let error = Input::Views(vec![view(), view()]).into_pairs("clip").expect_err("views").to_string();
        assert!(error.contains("not 2 views") && error.contains("pair.image_text"), "{error}");
    }

    #[test]
    fn a_batch_whose_parts_disagree_is_refused() {
        let good = SeriesBatch {
            windows: vec![0.0; 12],
            rows: 2,
            channels: 2,
            steps: 3,
            sequences: vec![0, 1],
            groups: Some(vec![0, 0]),
        };
        let device = Device::flex();
        assert!(SequencedWindows::of(good.clone(), &device).is_ok());
        let bad = [
            SeriesBatch { rows: 3, ..good.clone() },
            SeriesBatch { sequences: vec![0], ..good.clone() },
            SeriesBatch { groups: Some(vec![0]), ..good },
        ];
        assert!(bad.into_iter().all(|batch| SequencedWindows::of(batch, &device).is_err()));
    }
}
