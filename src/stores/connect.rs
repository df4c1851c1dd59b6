//! The store of an address: its builder, credentials from the environment, patience from the settings.
use std::sync::Arc;
use std::time::Duration;

use datafusion::object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use datafusion::object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use datafusion::object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use datafusion::object_store::http::HttpBuilder;
use datafusion::object_store::{ClientConfigKey, ObjectStore, Result, RetryConfig};

use super::StoreSettings;
use super::address::{Address, Protocol};

/// Opens the store at an address's root; nothing is sent yet.
///
/// `options` are named as the environment variables are (`aws_endpoint_url`), and win over them.
///
/// # Errors
/// The root or an option cannot be right.
pub(super) fn connect(
    address: &Address,
    settings: &StoreSettings,
    options: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>> {
    let patience = [
        (ClientConfigKey::Timeout, format!("{} s", settings.timeout_seconds)),
        (ClientConfigKey::ConnectTimeout, format!("{} s", settings.connect_timeout_seconds)),
    ];
    let options = options.iter().map(|(key, value)| (key.to_ascii_lowercase(), value));
    Ok(match address.protocol {
        Protocol::S3 => {
            let mut builder = AmazonS3Builder::from_env();
            for (key, value) in patience {
                builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
            }
            for (key, value) in options.filter(|(key, _)| key.starts_with("aws_")) {
                builder = builder.with_config(key.parse()?, value);
            }
            Arc::new(builder.with_url(&address.root).with_retry(retries(settings)).build()?)
        }
        Protocol::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::from_env();
            for (key, value) in patience {
                builder = builder.with_config(GoogleConfigKey::Client(key), value);
            }
            for (key, value) in options.filter(|(key, _)| key.starts_with("google_")) {
                builder = builder.with_config(key.parse()?, value);
            }
            Arc::new(builder.with_url(&address.root).with_retry(retries(settings)).build()?)
        }
        Protocol::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env();
            for (key, value) in patience {
                builder = builder.with_config(AzureConfigKey::Client(key), value);
            }
            for (key, value) in options.filter(|(key, _)| key.starts_with("azure_")) {
                builder = builder.with_config(key.parse()?, value);
            }
            Arc::new(builder.with_url(&address.root).with_retry(retries(settings)).build()?)
        }
        Protocol::Http => {
            let mut builder = HttpBuilder::new().with_url(&address.root);
            for (key, value) in patience {
                builder = builder.with_config(key, value);
            }
            // Who writes http:// means it.
            let builder = builder.with_config(ClientConfigKey::AllowHttp, "true");
            Arc::new(builder.with_retry(retries(settings)).build()?)
        }
    })
}

fn retries(settings: &StoreSettings) -> RetryConfig {
    RetryConfig {
        max_retries: settings.retries as usize,
        retry_timeout: Duration::from_secs(settings.retry_seconds),
        ..RetryConfig::default()
    }
}
