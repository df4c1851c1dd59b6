//! The logits of all pairs under CLIP's loss, of which tiles are made on demand, and its gradients from them.
use burn::tensor::{Bool, Tensor};

use super::duplicates::Relation;
use super::tiles::{Excess, MASKED, Numbers, Softmax, tiles};

/// A = s I Tᵀ.
#[derive(Debug)]
pub(super) struct PairLogits {
    /// At unit length, `[pairs, width]`.
    images: Tensor<2>,
    texts: Tensor<2>,
    /// s, `[1, 1]`.
    scale: Tensor<2>,
    /// The diagonal of A, `[pairs, 1]`.
    own: Tensor<2>,
    /// What is right for rows and for columns, `[pairs, 1]` each: the diagonal, or under soft targets the mean over all
    /// that equal it.
    right: [Tensor<2>; 2],
    relation: Option<Relation>,
    numbers: Numbers,
}

impl PairLogits {
    /// Of embeddings at unit length and the logarithm of the scale.
    ///
    /// # Shapes
    /// `[pairs, width]` twice, `[1, 1]`.
    pub(super) fn new(
        images: Tensor<2>,
        texts: Tensor<2>,
        log_scale: Tensor<2>,
        relation: Option<Relation>,
        tile_rows: usize,
    ) -> Self {
        let scale = log_scale.exp();
        let logit = |a: &Tensor<2>, b: &Tensor<2>| (a.clone() * b.clone()).sum_dim(1) * scale.clone(); // [pairs, 1]
        let own = logit(&images, &texts);
        let right = match relation.as_ref().filter(|relation| relation.softens) {
            None => [own.clone(), own.clone()],
            Some(relation) => {
                [logit(&images, &relation.means(&texts, tile_rows)), logit(&relation.means(&images, tile_rows), &texts)]
            }
        };
        let numbers = Numbers::new(images.dims()[0], &images.device());
        Self { images, texts, scale, own, right, relation, numbers }
    }

    /// How far the diagonal is above what is right for rows and for columns, `[pairs, 1]` each: 0 but under soft targets
    /// where something else is right as well.
    ///
    /// A constant 0, not a difference of equals: slopes of 1 and −1 would swallow the small ones that they are added to.
    pub(super) fn own_above(&self) -> [Tensor<2>; 2] {
        match self.softening() {
            None => [self.own.zeros_like(), self.own.zeros_like()],
            Some(relation) => {
                let shared = relation.weights.clone().lower_scalar(1.0).float(); // [pairs, 1]
                self.right.clone().map(|right| (self.own.clone() - right) * shared.clone())
            }
        }
    }

    /// How far each logit of a tile is above what is right for its row and for its column, `[length, pairs]` each; far
    /// below where it takes no part, as the diagonal does, which everything is relative to.
    ///
    /// Near convergence LSE − right would cancel; log1p over these does not, and neither does its gradient, in which what
    /// is right stands in every exponent.
    pub(super) fn above(&self, first: usize, length: usize) -> [Tensor<2>; 2] {
        let images = self.images.clone().narrow(0, first, length);
        let logits = images.matmul(self.texts.clone().transpose()) * self.scale.clone(); // [length, pairs]
        let [rows, columns] = &self.right;
        let apart = self.apart(first, length);
        [
            (logits.clone() - rows.clone().narrow(0, first, length)).mask_fill(apart.clone(), MASKED),
            (logits - columns.clone().transpose()).mask_fill(apart, MASKED),
        ]
    }

    /// Sums over all rows, `[pairs, 1]`, and over all columns, `[1, pairs]`.
    pub(super) fn excess(&self, tile_rows: usize) -> [Excess; 2] {
        let (mut of_rows, mut of_columns) = (Vec::new(), None::<Excess>);
        for (first, length) in tiles(self.images.dims()[0], tile_rows) {
            let [rows, columns] = self.above(first, length);
            of_rows.push(Excess::over(1, rows));
            let columns = Excess::over(0, columns);
            of_columns = Some(match of_columns {
                None => columns,
                Some(before) => before.and(columns),
            });
        }
        let rows = Excess::below(of_rows);
        // Two pairs at least, so there is a tile.
        let columns = of_columns.unwrap_or_else(|| rows.clone());
        [rows, columns]
    }

    /// Gradients of the loss by images, texts and the logarithm of the scale.
    ///
    /// By a logit it is softmax − target. Off the diagonal that is what a tile says; on the diagonal the softmax is one
    /// minus all others', so that the digits of small differences are kept.
    ///
    /// # Shapes
    /// Rows' and columns' softmax: `[pairs, 1]` and `[1, pairs]`; `shares`, how much of each is not on the diagonal:
    /// `[pairs, 1]` each.
    pub(super) fn gradients(
        &self,
        [of_rows, of_columns]: &[Softmax; 2],
        shares: [Tensor<2>; 2],
        tile_rows: usize,
    ) -> [Tensor<2>; 3] {
        let [pairs, _] = self.images.dims();
        let mut of_images = Vec::new();
        let (mut of_texts, mut of_scale) = (self.texts.zeros_like(), self.scale.zeros_like());
        for (first, length) in tiles(pairs, tile_rows) {
            let [rows, columns] = self.above(first, length);
            let by_row = of_rows.tile(first, length).of(rows.clone()); // [length, pairs]
            let by_column = of_columns.of(columns.clone());
            let moved = by_row.clone() * rows + by_column.clone() * columns;
            of_scale = of_scale + moved.sum_dim(1).sum_dim(0);
            let slopes = self.less_targets(by_row + by_column, first, length);
            of_images.push(slopes.clone().matmul(self.texts.clone())); // [length, width]
            of_texts = of_texts + slopes.transpose().matmul(self.images.clone().narrow(0, first, length));
        }
        let [row_shares, column_shares] = shares;
        let [own_rows, own_columns] = self.own_above();
        // Where the diagonal is not what is right, logits are relative to something else than what the scale multiplies.
        let own = own_rows * (row_shares.clone().neg() + 1.0) + own_columns * (column_shares.clone().neg() + 1.0);
        let of_scale = of_scale + own.sum_dim(0);
        let diagonal = (row_shares + column_shares).neg();
        let diagonal = match self.softening() {
            None => diagonal,
            Some(relation) => diagonal + (relation.weights.clone().neg() + 1.0) * 2.0,
        };
        let half = 0.5 / pairs as f64;
        let of_images = Tensor::cat(of_images, 0) + diagonal.clone() * self.texts.clone();
        let of_texts = of_texts + diagonal * self.images.clone();
        [of_images * self.scale.clone() * half, of_texts * self.scale.clone() * half, of_scale * half]
    }

    /// Softmax minus target off the diagonal, from both directions' softmax: targets are 0 there but under soft targets.
    fn less_targets(&self, softmax: Tensor<2>, first: usize, length: usize) -> Tensor<2> {
        let Some(relation) = self.softening() else { return softmax };
        let Some(equal) = relation.equal(first, length) else { return softmax };
        let others = equal.bool_and(self.numbers.diagonal(first, length, 0).bool_not()).float(); // [length, pairs]
        let weights = relation.weights.clone();
        softmax - others * (weights.clone().narrow(0, first, length) + weights.transpose())
    }

    /// Logits that are no negatives: the diagonal's, and where equal items are left out theirs.
    fn apart(&self, first: usize, length: usize) -> Tensor<2, Bool> {
        let own = self.numbers.diagonal(first, length, 0);
        match self.relation.as_ref().filter(|relation| !relation.softens) {
            None => own,
            Some(relation) => match relation.equal(first, length) {
                None => own,
                Some(equal) => own.bool_or(equal),
            },
        }
    }

    fn softening(&self) -> Option<&Relation> {
        self.relation.as_ref().filter(|relation| relation.softens)
    }
}
