//! What a store's error means, and what to do about it.
use std::error::Error as StdError;

use datafusion::object_store::Error;
use datafusion::object_store::client::{HttpError, HttpErrorKind};

use super::address::{Address, Protocol};

/// A store's error under the address that met it, in one sentence and a remedy; the source is the store's own error.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {meaning}")]
pub struct Refusal {
    place: String,
    meaning: String,
    source: Error,
}

impl Refusal {
    /// What `source` means at `address`.
    pub(super) fn new(address: &Address, source: Error) -> Self {
        Self { place: address.to_string(), meaning: meaning(address, &source), source }
    }

    /// As a store's error of the same kind.
    pub(super) fn into_store_error(self) -> Error {
        let path = self.place.clone();
        match &self.source {
            Error::NotFound { .. } => Error::NotFound { path, source: Box::new(self) },
            Error::PermissionDenied { .. } => Error::PermissionDenied { path, source: Box::new(self) },
            Error::Unauthenticated { .. } => Error::Unauthenticated { path, source: Box::new(self) },
            _ => Error::Generic { store: "remote", source: Box::new(self) },
        }
    }
}

/// What a store's error means: a sentence and a remedy.
pub fn meaning(address: &Address, error: &Error) -> String {
    let root = &address.root;
    match error {
        Error::NotFound { .. } if mentions(error, "NoSuchBucket") => {
            format!("there is no bucket {root}; check its name, and the endpoint and region")
        }
        Error::NotFound { .. } => "there is no such object; check the name and the bucket".into(),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("the store refuses these credentials; {}", credentials(address.protocol))
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
                "its server did not answer in time; check the network, or allow more by scan.store.timeout_seconds".into()
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
    std::iter::successors(Some(error), |error| error.source())
}
