//! Contrastive losses, all in `f32`, on Burn alone.

pub mod info_nce;
mod l2_normalize;
pub mod negatives;
pub mod nt_xent;
pub mod sigmoid;
pub mod symmetric;
pub mod tower_loss;

pub use info_nce::{InfoNce, Predicted};
pub use l2_normalize::l2_normalize;
pub use negatives::{Chance, Negatives, Sequences};
pub use nt_xent::{Contrast, NtXent};
pub use sigmoid::sigmoid;
pub use symmetric::{Symmetric, symmetric};
pub use tower_loss::{Compared, TowerLoss};
