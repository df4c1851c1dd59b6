//! SimCLR (Chen et al. 2020, arXiv 2002.05709): two views of one image attract, every other image repels.
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{BatchRows, Embedded, Method, MethodOutput, SimclrSettings};
use crate::batch::Input;
use crate::error::Result;
use crate::loss::NtXent;
use crate::model::{Encoder, InitOptions, Initializer, ProjectionHead};

/// Mean and standard deviation of ImageNet's channels, of pixels in [0, 1].
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Encoder, projection head and NT-Xent.
#[derive(Module, Debug)]
pub struct SimCLR {
    encoder: Encoder,
    head: ProjectionHead,
    #[module(skip)]
    loss: NtXent,
    #[module(skip)]
    imagenet_normalization: bool,
    #[module(skip)]
    joint_forward: bool,
    #[module(skip)]
    refuses_chunks: Option<String>,
}

impl SimCLR {
    /// A new model with the weights that `init` names, on `device`.
    pub fn new(settings: &SimclrSettings, init: InitOptions, device: &Device) -> Result<Self> {
        let loss = NtXent::new(settings.temperature)?.with_tile_rows(settings.loss_tile_rows);
        let joint_forward = settings.joint_forward || init.compat_torch;
        let init = Initializer::new(init, device);
        let encoder = Encoder::new("encoder", &settings.encoder, &init);
        let width = encoder.feature_width();
        let head = ProjectionHead::new("head", settings.head, width, settings.projection_width, &init);
        Ok(Self {
            encoder,
            head,
            loss,
            imagenet_normalization: settings.imagenet_normalization,
            joint_forward,
            refuses_chunks: settings.refuses_chunks(),
        })
    }

    fn normalized(&self, pixels: Tensor<4>) -> Tensor<4> {
        if !self.imagenet_normalization {
            return pixels;
        }
        let device = pixels.device();
        let channels = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device).reshape([1, 3, 1, 1]);
        (pixels - channels(IMAGENET_MEAN)) / channels(IMAGENET_DEVIATION)
    }

    /// `[images, 3, height, width]` to `[images, projection_width]`.
    fn project(&mut self, pixels: Tensor<4>) -> Tensor<2> {
        let pixels = self.normalized(pixels);
        self.head.forward_train(self.encoder.forward_train(pixels))
    }
}

impl Method for SimCLR {
    fn name(&self) -> &'static str {
        "simclr"
    }

    fn feature_width(&self) -> usize {
        self.encoder.feature_width()
    }

    fn least_items(&self) -> usize {
        2
    }

    fn features_in_words(&self) -> &'static str {
        "the encoder's, in front of the head"
    }

    fn train_loss(&mut self, input: Input, step: u64) -> Result<MethodOutput> {
        let embedded = self.embed(input, BatchRows::whole(step))?;
        self.loss_of(embedded)
    }

    fn refuses_chunks(&self) -> Option<String> {
        self.refuses_chunks.clone()
    }

    fn embed(&mut self, input: Input, _rows: BatchRows) -> Result<Embedded> {
        let [first, second] = input.into_views::<2>(self.name())?;
        let items = first.dims()[0];
        let sides = if self.joint_forward {
            let both = self.project(Tensor::cat(vec![first, second], 0)); // [2 items, projection_width]
            [both.clone().narrow(0, 0, items), both.narrow(0, items, items)]
        } else {
            [self.project(first), self.project(second)]
        };
        Ok(Embedded::new(sides))
    }

    fn loss_of(&self, embedded: Embedded) -> Result<MethodOutput> {
        let items = embedded.items();
        let [first, second] = embedded.sides;
        let contrast = self.loss.forward(first, second)?;
        Ok(MethodOutput {
            loss: contrast.loss,
            embeddings: contrast.embeddings,
            no_signal_loss: libm::log(2.0 * items as f64 - 1.0),
            readings: vec![],
        })
    }

    fn features(&self, input: Input) -> Result<Tensor<2>> {
        let [pixels] = input.into_views::<1>(self.name())?;
        // `valid` leaves autodiff, or every batch of an evaluation would record a graph that nobody walks back.
        Ok(self.encoder.valid().forward_eval(self.normalized(pixels.without_autodiff())))
    }
}
