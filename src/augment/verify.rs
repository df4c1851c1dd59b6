//! Whether a row's bytes are those that were imported: Parquet pages have no checksum of their own.
use super::{BadClass, BadSample};

/// Checks a blob (no bytes where it is null) against what its row declares; `hash` gives its XXH3 and is asked
/// only where one is declared.
///
/// # Errors
/// [`BadClass::Empty`], [`BadClass::Checksum`].
pub fn verify(
    encoded: &[u8],
    declared_bytes: Option<u64>,
    declared_xxh3: Option<u64>,
    hash: impl FnOnce() -> u64,
) -> Result<(), BadSample> {
    let bad = |class, message| Err(BadSample { class, message });
    if encoded.is_empty() {
        return bad(BadClass::Empty, "it is null or has no bytes".to_owned());
    }
    match (declared_bytes, declared_xxh3) {
        (Some(bytes), _) if bytes != encoded.len() as u64 => {
            bad(BadClass::Checksum, format!("has {} bytes, imported were {bytes}", encoded.len()))
        }
        (_, Some(declared)) if declared != hash() => {
            bad(BadClass::Checksum, "its bytes are not those that were imported".to_owned())
        }
        _ => Ok(()),
    }
}
