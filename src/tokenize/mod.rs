//! Text into the numbers that a text tower or an encoder of sentences reads.
//!
//! | file | holds |
//! |---|---|
//! | [`clip`] | CLIP's byte-pair encoding: ids of a caption |
//! | [`sentences`] | documents into sentences |
//! | [`tokenizer`] | sentences into ids, of CLIP or of bytes |
//! | [`clean`] | what CLIP does to a caption before |
//! | [`mend`], [`mojibake`], `neighbours` | repairs of broken Unicode, the part of it that `ftfy` does in Python |
//! | [`unescape`] | HTML's character references |

pub mod clean;
pub mod clip;
pub mod mend;
pub mod mojibake;
mod neighbours;
pub mod sentences;
pub mod tokenizer;
pub mod unescape;
