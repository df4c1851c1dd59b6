//! What a store's error means, and what to do about it.
use std::error::Error as StdError;

use datafusion::object_store::Error;
use datafusion::object_store::client::{HttpError, HttpErrorKind};

use super::address::{Address, Protocol};

/// How the library words a server that knows no ranges.
pub(super) const RANGES_REFUSED: &str = "Range request not supported";

/// An answer that we refuse: what is wrong with it, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(pub(super) String);

/// A store's error under the address that met it, in one sentence and a remedy; the source is the store's own error.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {meaning}")]
pub struct Refusal {
    place: String,
    meaning: String,
    source: Box<dyn StdError + Send + Sync>,
}

/// `error`, met at `address`, as an error of the same kind that says what it means.
pub(super) fn explained(address: &Address, error: Error) -> Error {
    let (place, meaning) = (address.to_string(), meaning(address, &error));
    let wrap = |source| Box::new(Refusal { place: place.clone(), meaning, source });
    let path = place.clone();
    match error {
        Error::NotFound { source, .. } => Error::NotFound { path, source: wrap(source) },
        Error::PermissionDenied { source, .. } => Error::PermissionDenied { path, source: wrap(source) },
        Error::Unauthenticated { source, .. } => Error::Unauthenticated { path, source: wrap(source) },
        Error::Generic { source, .. } => Error::Generic { store: "remote", source: wrap(source) },
        other => Error::Generic { store: "remote", source: wrap(other.into()) },
    }
}

/// What a store's error means: a sentence and a remedy.
pub fn meaning(address: &Address, error: &Error) -> String {
    let root = &address.root;
    if let Some(Unusable(reason)) = error.source().and_then(|source| source.downcast_ref()) {
        return reason.clone();
    }
    let has_status = |status: &str| mentions(error, &format!("status code: {status} "));
    match error {
        _ if mentions(error, "NoSuchBucket") || mentions(error, "ContainerNotFound") => {
            format!("there is no bucket {root}; check its name{}", endpoint(address.protocol))
        }
        // The library gives listings no kinds of their own.
        Error::NotFound { .. } => "there is no such object; check the name and the bucket".into(),
        _ if has_status("404") => format!("there is no bucket {root}; check its name{}", endpoint(address.protocol)),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("the store refuses these credentials; {}", credentials(address.protocol))
        }
        _ if has_status("401") || has_status("403") => {
            format!("the store refuses these credentials; {}", credentials(address.protocol))
        }
        _ if mentions(error, RANGES_REFUSED) => {
            "its server sends whole files only, and shards are read in parts; download it".into()
        }
        _ if mentions(error, "BareRedirect") || mentions(error, "incorrectly configured region") => {
            "the bucket is in another region; set AWS_REGION to it".into()
        }
        _ => match http_kind(error) {
            Some(HttpErrorKind::Connect) => format!(
                "cannot connect to its server; check the network{}, or allow more time by scan.store.retry_seconds",
                endpoint(address.protocol)
            ),
            Some(HttpErrorKind::Timeout) => {
                "its server did not answer in time; check the network, or allow more by scan.store.timeout_seconds"
                    .into()
            }
            _ if mentions(error, "169.254.169.254") => {
                format!("no credentials were found; {}", credentials(address.protocol))
            }
            _ => format!(
                "the store does not answer as it should; try again later, check the endpoint{}, or allow more by \
                 scan.store.retries",
                endpoint(address.protocol)
            ),
        },
    }
}

fn credentials(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::S3 => {
            "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_SKIP_SIGNATURE=true for a public \
             bucket"
        }
        Protocol::Gcs => {
            "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, or GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
        Protocol::Azure => {
            "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY, or \
             AZURE_SKIP_SIGNATURE=true for a public container"
        }
        Protocol::Http => "files behind a login cannot be read; download them",
    }
}

fn endpoint(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::S3 => " and AWS_ENDPOINT_URL (AWS_ALLOW_HTTP=true where it begins with http://)",
        Protocol::Gcs => " and GOOGLE_BASE_URL",
        Protocol::Azure => " and AZURE_ENDPOINT",
        Protocol::Http => "",
    }
}

/// Whether the error or one of its causes says so: the store's own errors have no public types.
pub(super) fn mentions(error: &Error, text: &str) -> bool {
    causes(error).any(|cause| cause.to_string().contains(text))
}

fn http_kind(error: &Error) -> Option<HttpErrorKind> {
    causes(error).find_map(|cause| cause.downcast_ref::<HttpError>().map(HttpError::kind))
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}
