//! Image ops.
