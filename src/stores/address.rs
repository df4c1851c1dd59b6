//! Addresses of objects: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`, `https://host/path`.
use std::fmt;

use datafusion::object_store::path::Path;

/// The protocols that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Amazon S3 and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// A web server: single files, no listing.
    Http,
}

/// What `://` may follow.
const SCHEMES: [(&str, Protocol); 8] = [
    ("s3", Protocol::S3),
    ("s3a", Protocol::S3),
    ("gs", Protocol::Gcs),
    ("az", Protocol::Azure),
    ("abfs", Protocol::Azure),
    ("abfss", Protocol::Azure),
    ("http", Protocol::Http),
    ("https", Protocol::Http),
];

/// A URL as the user writes it. Keys of buckets are taken as they stand; paths of web servers are percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// How it is reached.
    pub protocol: Protocol,
    /// `s3://bucket`: all addresses with one root share a store.
    pub root: String,
    /// Below the root, without a slash at either end; may be a pattern.
    pub path: String,
}

impl Address {
    /// `None` where `text` is a local path; `Some(Err)` says what is wrong with a URL.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = text.split_once("://")?;
        if scheme.is_empty() || !scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let Some((_, protocol)) = SCHEMES.into_iter().find(|(known, _)| *known == scheme) else {
            let known = SCHEMES.map(|(known, _)| known).join("://, ");
            return Some(Err(format!(
                "`{text}`: no store is known for {scheme}://; known are {known}:// and local paths"
            )));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            let missing = if protocol == Protocol::Http { "host" } else { "bucket" };
            return Some(Err(format!("`{text}` names no {missing}; write {scheme}://{missing}/path")));
        }
        if protocol == Protocol::Http && path.contains(['?', '#']) {
            let remedy = "name the file itself, or download it";
            return Some(Err(format!(
                "`{text}` has a query; signed and computed URLs cannot be read in ranges; {remedy}"
            )));
        }
        let path = path.trim_matches('/').to_owned();
        Some(Ok(Self { protocol, root: format!("{scheme}://{authority}"), path }))
    }

    /// Whether files below a prefix can be listed.
    pub fn can_list(&self) -> bool {
        self.protocol != Protocol::Http
    }

    /// Another path below the same root.
    #[must_use]
    pub fn with_path(&self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// The root as the first two parts of a [`Path`], such as `s3:/bucket`: local paths do not begin so.
    pub(super) fn route(&self) -> String {
        self.root.replacen("://", ":/", 1)
    }

    /// Where [`Stores`](super::routing_store::Stores) keep what is at this address: `s3:/bucket/key`.
    ///
    /// # Errors
    /// Why no store can have such a path.
    pub fn location(&self) -> Result<Path, String> {
        let key = self.key()?;
        Path::parse(format!("{}/{key}", self.route())).map_err(|error| format!("`{self}` is no path: {error}"))
    }

    /// The address of a root from its [route](Self::route); `None` where a local path begins so.
    pub(super) fn of_route(route: &str) -> Option<Self> {
        Self::parse(&route.replacen(":/", "://", 1))?.ok()
    }

    /// The path below the root as its store knows it.
    fn key(&self) -> Result<Path, String> {
        let path = match self.protocol {
            Protocol::Http => Path::from_url_path(&self.path),
            _ => Path::parse(&self.path),
        };
        path.map_err(|error| format!("`{self}` cannot be an object: {error}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.root, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        Address::parse(text).unwrap().unwrap()
    }

    #[test]
    fn roots_and_paths_are_told_apart() {
        let address = parse("s3://bucket/a/b*.parquet");
        assert_eq!((address.root.as_str(), address.path.as_str()), ("s3://bucket", "a/b*.parquet"));
        assert_eq!(address.to_string(), "s3://bucket/a/b*.parquet");
        assert_eq!(address.route(), "s3:/bucket");
        assert_eq!(parse("gs://bucket").path, "");
        assert_eq!(parse("abfss://box@name.dfs.core.windows.net/x/").root, "abfss://box@name.dfs.core.windows.net");
        assert_eq!(parse("HTTP://127.0.0.1:8080/x/y").root, "http://127.0.0.1:8080");
        assert!(parse("az://box/x").can_list() && !parse("https://host/x").can_list());
    }

    #[test]
    fn keys_stand_as_written_and_web_paths_are_decoded() {
        assert_eq!(parse("s3://b/100%25 a/x").key().unwrap().as_ref(), "100%25 a/x");
        assert_eq!(parse("https://h/100%25%20a/x").key().unwrap().as_ref(), "100% a/x");
        assert!(parse("s3://b/a//x").key().unwrap_err().contains("s3://b/a//x"));
        assert_eq!(parse("s3://b/a/x").location().unwrap().as_ref(), "s3:/b/a/x");
        assert_eq!(Address::of_route("https:/h:80").unwrap(), parse("https://h:80"));
        assert!(Address::of_route("home/x").is_none());
    }

    #[test]
    fn what_is_no_address_says_why() {
        assert!(Address::parse("data/train").is_none() && Address::parse("/a b://c").is_none());
        let wrong = |text: &str| Address::parse(text).unwrap().unwrap_err();
        assert!(wrong("ftp://host/x").contains("no store is known for ftp://; known are s3://, s3a://, gs://"));
        assert!(wrong("s3:///x").contains("names no bucket"));
        assert!(wrong("https://host/x?sig=1").contains("has a query"));
    }
}
