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
    let embedded = Embedded::cat(embedded.collect::<Result<_>>()?);
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
