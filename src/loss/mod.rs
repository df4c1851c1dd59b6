//! Contrastive losses, all in `f32`, on Burn alone.

mod l2_normalize;
pub mod nt_xent;
pub mod sigmoid;
pub mod symmetric;

pub use l2_normalize::l2_normalize;
pub use nt_xent::{Contrast, NtXent};
pub use sigmoid::sigmoid;
pub use symmetric::{Symmetric, symmetric};
