//! g_enc for images: overlapping patches on a grid, read column by column from the top down.
use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::EncoderSettings;
use super::encoder::Encoder;
use super::init::Initializer;
use crate::error::{Error, Result, Stage};

/// `encoder.patches`: every patch through an image encoder; each column of the grid is a sequence of its rows.
///
/// The paper cuts 256x256 pixels into 7x7 patches of 64, each half over the next. Its context also sees the patches above
/// on the left and right (a PixelCNN over the grid); here it sees those straight above. The image encoders have BatchNorm
/// over all patches of a batch, through which statistics of lower patches reach the upper ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchSettings {
    /// Of each patch.
    #[serde(default = "default_side")]
    pub side_pixels: usize,
    /// From one patch to the next.
    #[serde(default = "default_hop")]
    pub hop_pixels: usize,
    /// Exactly one encoder, of a patch.
    pub encoder: EncoderSettings,
}
fn default_side() -> usize {
    64
}
fn default_hop() -> usize {
    32
}

impl PatchSettings {
    /// Patches along so many pixels; 0 where there are fewer than one has.
    pub fn along(&self, pixels: usize) -> usize {
        along(pixels, self.side_pixels, self.hop_pixels)
    }
}

fn along(pixels: usize, side: usize, hop: usize) -> usize {
    if pixels < side { 0 } else { (pixels - side) / hop + 1 }
}

/// An image encoder over the patches of a grid.
#[derive(Module, Debug)]
pub struct PatchEncoder {
    encoder: Encoder,
    #[module(skip)]
    side: usize,
    #[module(skip)]
    hop: usize,
}

impl PatchEncoder {
    /// Parameters below `path`, under the names of the image encoder.
    ///
    /// # Errors
    /// A side or a hop of 0.
    pub fn new(path: &str, settings: &PatchSettings, init: &Initializer<'_>) -> Result<Self> {
        let (side, hop) = (settings.side_pixels, settings.hop_pixels);
        if side == 0 || hop == 0 {
            let reason = format!("patches of {side} pixels every {hop}; take 1 or more");
            return Err(Error::at(Stage::Model, "encoder.patches", reason));
        }
        Ok(Self { encoder: Encoder::new(&format!("{path}.encoder"), &settings.encoder, init), side, hop })
    }

    /// Columns of an encoding.
    pub fn width(&self) -> usize {
        self.encoder.feature_width()
    }

    /// Of a patch, in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Of the next patch from the one before, in pixels.
    pub fn hop(&self) -> usize {
        self.hop
    }

    /// Rows and columns of the grid over an image; 0 where it is smaller than a patch.
    pub fn grid(&self, height: usize, width: usize) -> [usize; 2] {
        [height, width].map(|pixels| along(pixels, self.side, self.hop))
    }

    /// # Shapes
    /// `[images, 3, height, width]` to `[images · columns, rows, width]`, an image's columns one after the other.
    pub fn forward_train(&mut self, pixels: &Tensor<4>) -> Tensor<3> {
        let (patches, grid) = self.patches(pixels);
        in_columns(self.encoder.forward_train(patches), grid)
    }

    /// [`Self::forward_train`] with running statistics.
    pub fn forward_eval(&self, pixels: &Tensor<4>) -> Tensor<3> {
        let (patches, grid) = self.patches(pixels);
        in_columns(self.encoder.forward_eval(patches), grid)
    }

    /// `[rows · columns · images, 3, side, side]`, and the grid.
    fn patches(&self, pixels: &Tensor<4>) -> (Tensor<4>, [usize; 2]) {
        let [_, _, height, width] = pixels.dims();
        let [rows, columns] = self.grid(height, width);
        let patch = |cell: usize| {
            let (row, column) = (cell / columns, cell % columns);
            pixels.clone().narrow(2, row * self.hop, self.side).narrow(3, column * self.hop, self.side)
        };
        (Tensor::cat((0..rows * columns).map(patch).collect(), 0), [rows, columns])
    }
}

fn in_columns(features: Tensor<2>, [rows, columns]: [usize; 2]) -> Tensor<3> {
    let [patches, width] = features.dims();
    let images = patches / (rows * columns);
    let grid = features.reshape([rows, columns, images, width]);
    grid.permute([2, 1, 0, 3]).reshape([images * columns, rows, width])
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::model::{ConvNetSettings, InitOptions};

    #[test]
    fn a_column_reads_its_patches_from_the_top_down() {
        let device = Device::flex();
        let settings = PatchSettings {
            side_pixels: 8,
            hop_pixels: 4,
            encoder: EncoderSettings::ConvNet(ConvNetSettings { base_width: 2, ..ConvNetSettings::default() }),
        };
        let init = InitOptions { seed: 1, compat_torch: false };
        let encoder = PatchEncoder::new("g_enc", &settings, &Initializer::new(init, &device)).expect("plain settings");
        let (images, height, width) = (2, 16, 12);
        let values: Vec<f32> = (0..images * 3 * height * width).map(|i| (0.37 * i as f32).sin()).collect();
        let pixels = Tensor::<4>::from_data(TensorData::new(values, [images, 3, height, width]), &device);
        assert_eq!(encoder.grid(height, width), [3, 2]);
        assert_eq!(encoder.grid(7, 12), [0, 2]);
        let out = encoder.forward_eval(&pixels);
        assert_eq!(out.dims(), [images * 2, 3, encoder.width()]);
        for (image, column, row) in [(0, 0, 0), (1, 0, 2), (1, 1, 1), (0, 1, 2)] {
            let patch = pixels.clone().narrow(0, image, 1).narrow(2, 4 * row, 8).narrow(3, 4 * column, 8);
            let alone = encoder.encoder.forward_eval(patch).into_data().try_into_vec::<f32>().expect("f32");
            let place = out.clone().narrow(0, 2 * image + column, 1).narrow(1, row, 1);
            let place = place.into_data().try_into_vec::<f32>().expect("f32");
            assert!(alone.iter().zip(&place).all(|(a, b)| (a - b).abs() < 1e-5), "{image} {column} {row}");
        }
    }
}
