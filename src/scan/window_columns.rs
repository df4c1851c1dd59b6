//! Names of the columns by which windows of series and documents reach the trainer: one row is one window.

/// FixedSizeList of Float32 with the extension type `arrow.fixed_shape_tensor`, `[channels, steps]`.
pub const WINDOWS: &str = "windows";
/// FixedSizeList of UInt32 with the extension type `arrow.fixed_shape_tensor`, `[sentences, tokens]`: ids from 1, 0 behind a
/// sentence's last.
pub const TOKENS: &str = "tokens";
/// UInt32: a number for the window's series or document, dense within the batch, equal for windows of one series.
pub const SEQUENCE: &str = "sequence_ordinal";
/// UInt32, where the pairing knows groups: a number for the window's group (a speaker), dense within the batch. Not named
/// `group`: that is the column of the shards, which an evaluation may ask for as its label.
pub const GROUP: &str = "group_ordinal";
