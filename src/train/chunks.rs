//! The loss and the gradients of one batch, in one piece or in chunks.
//!
//! In chunks (GradCache, Gao et al. 2021, arXiv 2101.06983) they are still those of the whole batch, up to rounding:
//!
//! 1. every chunk is embedded without a graph;
//! 2. the loss of all embeddings is differentiated down to the embeddings. What stands behind them (scale and bias of the
//!    logits) has its whole gradient from here, once;
//! 3. every chunk is embedded again, with a graph, and differentiated with the embeddings' gradients as weights.
//!
//! Every draw of a training forward is named by seed, step and row, so that the second embedding is the first. BatchNorm's
//! statistics would be a chunk's, which is why methods that have it refuse.
use std::collections::BTreeMap;

use burn::tensor::Tensor;

use super::parameters::{Gradient, gradients};
use crate::batch::Content;
use crate::error::{Error, Result, Stage};
use crate::method::{BatchRows, Embedded, Method, MethodOutput};

/// The batch of `step`, counted from 0: what its forward gives, and the gradient of every trained parameter by path.
///
/// # Errors
/// As of [`Method::train_loss`]; the method takes no chunks and `chunks` is more than 1.
pub fn step<M: Method>(
    method: &mut M,
    content: &Content,
    step: u64,
    chunks: usize,
) -> Result<(MethodOutput, BTreeMap<String, Gradient>)> {
    if chunks <= 1 {
        let output = method.train_loss(content.input(), step)?;
        let gradients = gradients(method, output.loss.backward());
        return Ok((output, gradients));
    }
    if let Some(reason) = method.refuses_chunks() {
        return Err(Error::at(Stage::Train, "train.chunks", format!("{} takes no chunks: {reason}", method.name())));
    }
    let pieces = pieces(content.items(), chunks);
    // Gradients are not wanted, but it stays in training mode: evaluation mode would give other embeddings.
    let mut without_graph = method.clone().no_grad();
    let embedded = pieces.iter().map(|&piece| embed(&mut without_graph, content, step, piece));
    let embedded = Embedded::cat(&embedded.collect::<Result<Vec<_>>>()?);
    let embedded = embedded.ok_or_else(|| Error::at(Stage::Train, "", "a batch without items"))?;
    let leaves = embedded.sides.map(|side| side.detach().require_grad()); // [items, width]
    let output = method.loss_of(Embedded { sides: leaves.clone(), identities: embedded.identities })?;
    let mut of_loss = output.loss.backward();
    let slopes = leaves.map(|leaf| leaf.grad_remove(&mut of_loss));
    let mut sum = gradients(method, of_loss);
    for piece in pieces {
        let sides = embed(method, content, step, piece)?.sides;
        let weighted =
            sides.into_iter().zip(&slopes).filter_map(|(side, slope)| weighted(side, slope.as_ref()?, piece));
        let Some(surrogate) = weighted.reduce(|a, b| a + b) else { continue };
        add(&mut sum, gradients(method, surrogate.backward()));
    }
    Ok((output, sum))
}

/// First row and length.
type Piece = (usize, usize);

/// Rows in so many pieces, all equally long but for a shorter last one.
fn pieces(rows: usize, chunks: usize) -> Vec<Piece> {
    let length = rows.div_ceil(chunks).max(1);
    (0..rows).step_by(length).map(|first| (first, length.min(rows - first))).collect()
}

fn embed<M: Method>(method: &mut M, content: &Content, step: u64, (first, length): Piece) -> Result<Embedded> {
    method.embed(content.rows(first, length)?.input(), BatchRows { step, first })
}

/// Σ side · slope over the piece's rows, `[1]`: its gradients are the loss's. `None` where nothing in front is trained.
fn weighted(side: Tensor<2>, slope: &Tensor<2>, (first, length): Piece) -> Option<Tensor<1>> {
    let slope = slope.clone().narrow(0, first, length);
    side.is_tracked().then(|| (side * slope).sum_dim(1).sum_dim(0).squeeze_dim(1))
}

/// Adds path by path; what both have in common is added in the order of the pieces, so that bits do not vary.
fn add(sum: &mut BTreeMap<String, Gradient>, more: BTreeMap<String, Gradient>) {
    for (path, gradient) in more {
        match sum.remove(&path) {
            None => sum.insert(path, gradient),
            Some(Gradient { values, rows }) => sum.insert(path, Gradient { values: values + gradient.values, rows }),
        };
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, TensorData};

    use super::super::toy::{Toy, batch};
    use super::*;
    use crate::batch::{ImageTexts, PairCaptions};
    use crate::loss::{DuplicatePolicy, TowerLoss};
    use crate::method::{CLIP, SimCLR, SimclrSettings, clip};
    use crate::model::{
        ConvNetSettings, EncoderSettings, HeadSettings, InitOptions, NormSettings, ResNetSettings, Stem,
    };
    use crate::seed::draws;

    const ITEMS: usize = 16;

    fn floats<const D: usize>(of: Tensor<D>) -> Vec<f32> {
        of.into_data().try_into_vec::<f32>().expect("f32")
    }

    /// Random pixels: `[items, views, 3, side, side]`.
    fn pixels(views: usize, side: usize, device: &Device) -> Tensor<5, Int> {
        let mut draws = draws(5, "pixels of chunks", &[]);
        let bytes: Vec<i64> = (0..ITEMS * views * 3 * side * side).map(|_| draws.below(256) as i64).collect();
        Tensor::from_data(TensorData::new(bytes, [ITEMS, views, 3, side, side]), device)
    }

    /// The whole batch's loss, embeddings and gradients come back in every number of chunks. Their paths come back.
    fn chunks_equal_the_whole<M: Method>(make: impl Fn() -> M, content: &Content) -> Vec<String> {
        let (output, expected) = step(&mut make(), content, 3, 1).expect("a batch");
        let [first, second] = output.embeddings.map(floats);
        let loss = floats(output.loss)[0];
        for chunks in [2, 3, 4, 8] {
            let (output, gradients) = step(&mut make(), content, 3, chunks).expect("a batch");
            let ours = floats(output.loss)[0];
            assert!((ours - loss).abs() <= 1e-5 * loss, "{ours} in {chunks} chunks, {loss} in one");
            let [a, b] = output.embeddings.map(floats);
            for (ours, whole) in a.iter().zip(&first).chain(b.iter().zip(&second)) {
                assert!((ours - whole).abs() < 1e-5, "{ours} {whole}");
            }
            assert!(gradients.keys().eq(expected.keys()), "{:?}", gradients.keys());
            for (path, expected) in &expected {
                assert_eq!(gradients[path].rows, expected.rows, "{path}");
                let (ours, expected) = (floats(gradients[path].values.clone()), floats(expected.values.clone()));
                let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let gap = ours.iter().zip(&expected).fold(0.0_f32, |gap, (a, b)| gap.max((a - b).abs()));
                assert!(gap <= 1e-5 * largest, "{path} in {chunks} chunks: {gap} of {largest}");
            }
        }
        // Behind a gain that starts at 0 there is no gradient yet; elsewhere there is.
        let moving = expected.values().filter(|of| floats(of.values.clone()).iter().any(|x| *x != 0.0)).count();
        assert!(2 * moving > expected.len(), "{moving} of {}", expected.len());
        expected.into_keys().collect()
    }

    fn simclr(encoder: EncoderSettings, head: HeadSettings, tile_rows: Option<usize>) -> SimclrSettings {
        SimclrSettings {
            encoder,
            head,
            projection_width: 8,
            temperature: 0.2,
            imagenet_normalization: true,
            loss_tile_rows: tile_rows,
            joint_forward: tile_rows.is_some(),
        }
    }

    fn make(settings: &SimclrSettings, device: &Device) -> SimCLR {
        SimCLR::new(settings, InitOptions { seed: 1, compat_torch: false }, device).expect("plain settings")
    }

    #[test]
    fn simclr_in_chunks_is_simclr() {
        let device = Device::flex().autodiff();
        let content = Content::Views(pixels(2, 12, &device));
        let resnet =
            ResNetSettings { stem: Stem::Cifar, base_width: 4, zero_init_residual: false, norm: NormSettings::Group };
        let convnet = |norm| EncoderSettings::ConvNet(ConvNetSettings { base_width: 4, norm });
        for (encoder, tile_rows) in [
            (EncoderSettings::ResNet18(resnet), None),
            (convnet(NormSettings::Group), Some(5)),
            (convnet(NormSettings::Frozen), None),
        ] {
            let settings = simclr(encoder, HeadSettings::PaperV1, tile_rows);
            let paths = chunks_equal_the_whole(|| make(&settings, &device), &content);
            assert!(paths.iter().any(|path| path == "head.layers.1.linear.weight"), "{paths:?}");
        }
    }

    /// A small CLIP with dropout everywhere it can be.
    fn clip_settings(loss: TowerLoss, loss_tile_rows: Option<usize>) -> clip::Settings {
        let text = "embedding_width = 6\ndropout = 0.2\npatch_dropout = 0.5\nduplicates = \"mask\"\n\
                    [vision.vision_transformer]\nimage_side_pixels = 8\npatch_side_pixels = 2\nwidth = 8\n\
                    blocks = 2\nheads = 2\nperceptron_width = 16\n\
                    [text]\ncontext_tokens = 7\nvocabulary_tokens = 30\nwidth = 8\nblocks = 2\nheads = 2\n\
                    perceptron_width = 16\n";
        clip::Settings { loss, loss_tile_rows, ..toml::from_str(text).expect("settings") }
    }

    /// Captions of two to seven tokens, so that chunks are padded differently; every sixth text and fifth image repeats.
    fn pairs(side: usize, device: &Device) -> Content {
        let mut draws = draws(6, "captions of chunks", &[]);
        let mut tokens: Vec<Vec<u32>> = Vec::new();
        for item in 0..ITEMS {
            let longer = if item < ITEMS / 2 { 3 } else { 6 };
            let words = (0..=draws.below(longer)).map(|_| 1 + draws.below(28) as u32);
            tokens.push(words.chain([29]).collect());
        }
        tokens[12] = tokens[2].clone();
        let images = (0..ITEMS as u64).map(|item| item % 15).collect();
        let captions = PairCaptions::new(tokens, images).expect("pairs");
        Content::ImageTexts(ImageTexts { pixels: pixels(1, side, device), captions })
    }

    fn make_clip(settings: &clip::Settings, device: &Device) -> CLIP {
        CLIP::new(settings, InitOptions { seed: 1, compat_torch: false }, device).expect("plain settings")
    }

    #[test]
    fn clip_in_chunks_is_clip_with_dropout_and_patch_dropout_and_its_scale_counts_once() {
        let device = Device::flex().autodiff();
        let content = pairs(8, &device);
        for (loss, tile_rows) in [(TowerLoss::Softmax, None), (TowerLoss::Softmax, Some(5)), (TowerLoss::Sigmoid, None)]
        {
            let settings = clip_settings(loss, tile_rows);
            let paths = chunks_equal_the_whole(|| make_clip(&settings, &device), &content);
            let has = |path: &str| paths.iter().any(|found| found.ends_with(path));
            assert!(has("logit_scale") && has("logit_bias") == loss.has_bias() && has("text_projection"), "{paths:?}");
        }
    }

    #[test]
    fn both_dropouts_are_on_where_chunks_are_compared() {
        let device = Device::flex().autodiff();
        let content = pairs(8, &device);
        let loss = |settings: &clip::Settings, of_step: u64| {
            floats(step(&mut make_clip(settings, &device), &content, of_step, 2).expect("a batch").0.loss)[0]
        };
        let settings = clip_settings(TowerLoss::Softmax, None);
        let all = loss(&settings, 3);
        let without = |dropout, patch_dropout| loss(&clip::Settings { dropout, patch_dropout, ..settings.clone() }, 3);
        assert_eq!(all, loss(&settings, 3));
        for other in [loss(&settings, 4), without(0.0, 0.5), without(0.2, 0.0)] {
            assert!((other - all).abs() > 1e-4, "{other} {all}");
        }
        let kept = clip::Settings { duplicates: DuplicatePolicy::Keep, ..settings };
        assert!((loss(&kept, 3) - all).abs() > 1e-4);
    }

    #[test]
    fn clips_resnet_in_chunks_needs_another_norm() {
        let device = Device::flex().autodiff();
        let content = pairs(32, &device);
        let settings = |norm: &str| -> clip::Settings {
            let text = format!(
                "embedding_width = 6\n[vision.modified_resnet]\nimage_side_pixels = 32\nwidth = 8\nheads = 4\n\
                 blocks = [1, 1, 1, 1]\nnorm = \"{norm}\"\n\
                 [text]\ncontext_tokens = 7\nvocabulary_tokens = 30\nwidth = 8\nblocks = 1\nheads = 2\n\
                 perceptron_width = 16\n"
            );
            toml::from_str(&text).expect("settings")
        };
        let error =
            step(&mut make_clip(&settings("batch"), &device), &content, 0, 2).expect_err("BatchNorm").to_string();
        assert!(error.contains("vision.modified_resnet.norm = \"group\""), "{error}");
        let group = settings("group");
        let paths = chunks_equal_the_whole(|| make_clip(&group, &device), &content);
        assert!(paths.iter().any(|path| path.ends_with("visual.layer4.0.bn3.weight")), "{paths:?}");
    }

    #[test]
    fn what_normalises_over_the_batch_is_refused_by_name_and_trains_in_one_piece() {
        let device = Device::flex().autodiff();
        let content = Content::Views(pixels(2, 12, &device));
        let convnet = |norm| EncoderSettings::ConvNet(ConvNetSettings { base_width: 4, norm });
        for (norm, head, key) in [
            (NormSettings::Batch, HeadSettings::PaperV1, "encoder.convnet.norm = \"group\""),
            (NormSettings::Group, HeadSettings::GoogleV2, "head = \"paper_v1\""),
        ] {
            let settings = simclr(convnet(norm), head, None);
            let error = step(&mut make(&settings, &device), &content, 0, 2).expect_err("BatchNorm").to_string();
            assert!(error.contains(key) && error.contains("train.chunks"), "{error}");
            assert!(step(&mut make(&settings, &device), &content, 0, 1).is_ok());
        }
        let error =
            step(&mut Toy::new(&device), &batch(0, &device).content, 0, 2).expect_err("no embeddings").to_string();
        assert!(error.contains("toy takes no chunks"), "{error}");
    }

    #[test]
    fn pieces_cover_the_batch() {
        assert_eq!(pieces(8, 2), [(0, 4), (4, 4)]);
        assert_eq!(pieces(7, 3), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(pieces(2, 9), [(0, 1), (1, 1)]);
    }
}
