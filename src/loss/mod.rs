//! Contrastive losses, all in `f32`, on Burn alone.

pub mod duplicates;
pub mod info_nce;
mod l2_normalize;
pub mod negatives;
pub mod nt_xent;
mod pair_logits;
pub mod sigmoid;
pub mod symmetric;
mod tiles;
pub mod tower_loss;

pub use duplicates::{DuplicatePolicy, Duplicates};
pub use info_nce::{InfoNce, Predicted};
pub use l2_normalize::l2_normalize;
pub use negatives::{Chance, Negatives, Sequences};
pub use nt_xent::{Contrast, NtXent};
pub use sigmoid::{sigmoid, sigmoid_with};
pub use symmetric::{Symmetric, symmetric, symmetric_with};
pub use tower_loss::{Compared, TowerLoss};
