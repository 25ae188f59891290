//! The object store, which stores the content of files. The scheme of a URL selects the implementation.

#[cfg(test)]
mod contract;
mod directory;
mod owner;
#[cfg(feature = "s3")]
mod s3;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use bytes::Bytes;
use confab_common::{Error, Result, Secret};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use uuid::Uuid;

pub use owner::{Found, Owner};

use crate::memory::Parts;
use directory::Directory;

pub type Content = BoxStream<'static, Result<Bytes>>;

/// A store of objects. A key is a UUIDv7 that is used once.
pub trait Objects: Send + Sync + 'static {
    /// Begins an object whose bytes are collected in `parts`, if the store is reachable. The object is invisible until
    /// its writer has finished; a writer that is dropped leaves nothing behind.
    fn create(&self, key: Uuid, parts: Parts) -> BoxFuture<'_, Result<Box<dyn Writer>>>;

    /// Returns the bytes of a range within the object; `None` when the object does not exist.
    fn read(&self, key: Uuid, offset: u64, length: u64) -> BoxFuture<'_, Result<Option<Content>>>;

    /// Removes an object; a missing object is not an error.
    fn delete(&self, key: Uuid) -> BoxFuture<'_, Result<()>>;

    /// Lists objects with keys above `after`, in ascending order. Returns fewer than `limit` only at the end.
    fn list(&self, after: Uuid, limit: u32) -> BoxFuture<'_, Result<Vec<Stored>>>;

    /// Aborts unfinished writes that began before that time, and returns their number.
    fn abandon(&self, before: SystemTime) -> BoxFuture<'_, Result<u64>>;

    /// Returns the owner object, if there is one.
    fn owner(&self) -> BoxFuture<'_, Result<Option<Found>>>;

    /// Creates the owner object unless it exists. Returns whether it was created.
    fn claim(&self, owner: Owner) -> BoxFuture<'_, Result<bool>>;

    /// Checks whether the store works, with its current owner, or with this one if it has none. The error describes the
    /// fault for the operator.
    fn check(&self, owner: Owner) -> BoxFuture<'_, std::result::Result<(), String>>;

    /// Replaces the owner object. If the store supports conditional writes, only if the object is still the one that
    /// was found.
    fn set_owner(&self, owner: Owner, found: Option<&Found>) -> BoxFuture<'_, Result<()>>;
}

/// An object being written. After an error it can only be dropped.
pub trait Writer: Send {
    /// Accepts more bytes; waits while too many bytes are in transit.
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Completes when sending a part has failed, otherwise never, so that a slow sender learns of a failure at once.
    fn failed(&mut self) -> BoxFuture<'_, Error>;

    /// Makes the object durable and visible. An existing object with this key is kept: `conflict`.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<()>>;
}

/// An object in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub key: Uuid,
    pub modified: SystemTime,
}

/// Settings of the object store
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Files")]
pub struct ObjectsConfig {
    /// Where the files' content is stored: `file:DIR`, `s3://bucket` or `s3://bucket/prefix`; each installation needs
    /// its own [default: objects in the data directory]
    #[arg(long, env = "CONFAB_OBJECTS", hide_env_values = true, value_name = "URL")]
    pub objects: Option<Secret>,
    /// URL of the S3 store, `http://host:port` or `https://host:port` [default: Amazon's own for the region]
    #[arg(long, env = "CONFAB_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Region of the S3 store [default: for Amazon's own the one in AWS_REGION, else us-east-1]
    #[arg(long, env = "CONFAB_S3_REGION", value_name = "NAME")]
    pub s3_region: Option<String>,
    /// The access key of the S3 store [default: the credentials that Amazon's SDK finds: AWS_ variables, the role of a
    /// Kubernetes service account or pod identity, ~/.aws, the role of the container or machine]
    #[arg(long, env = "CONFAB_S3_ACCESS_KEY_ID", value_name = "ID")]
    pub s3_access_key_id: Option<String>,
    /// The secret of the access key
    #[arg(long, env = "CONFAB_S3_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "SECRET")]
    pub s3_secret_access_key: Option<Secret>,
    /// The session token of a temporary access key
    #[arg(long, env = "CONFAB_S3_SESSION_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub s3_session_token: Option<Secret>,
}

/// The kinds of store, by the scheme of the URL.
#[derive(Debug, PartialEq, Eq)]
enum Location {
    Directory(PathBuf),
    /// The bucket's name, and the prefix of every key: empty, or a path that ends with a slash.
    Bucket(String, String),
}

/// Opens the configured store, for objects of at most `largest` bytes. No request is sent before its first use.
///
/// # Errors
/// When the settings are wrong.
pub fn open(config: &ObjectsConfig, data_dir: &Path, largest: u64) -> anyhow::Result<Arc<dyn Objects>> {
    Ok(match location(config.objects.as_ref(), data_dir)? {
        Location::Directory(path) => in_directory(path),
        Location::Bucket(bucket, prefix) => in_bucket(&bucket, &prefix, config, largest)?,
    })
}

/// Returns a store in a directory, which need not exist yet.
pub fn in_directory(path: PathBuf) -> Arc<dyn Objects> {
    Arc::new(Directory::new(path))
}

#[cfg(feature = "s3")]
fn in_bucket(bucket: &str, prefix: &str, config: &ObjectsConfig, largest: u64) -> anyhow::Result<Arc<dyn Objects>> {
    Ok(Arc::new(s3::S3::new(bucket, prefix, s3::Account::new(config)?, largest)))
}

#[cfg(not(feature = "s3"))]
fn in_bucket(_: &str, _: &str, _: &ObjectsConfig, _: u64) -> anyhow::Result<Arc<dyn Objects>> {
    bail!("this program was built without S3 stores; build it with `cargo build --release --features s3`")
}

fn location(url: Option<&Secret>, data_dir: &Path) -> anyhow::Result<Location> {
    let Some(url) = url else { return Ok(Location::Directory(data_dir.join("objects"))) };
    match url.expose().split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(Location::Directory(path.into())),
        // The URL is not quoted: it may contain keys by mistake, and those must not be logged.
        Some(("s3", rest)) => bucket(rest).context(
            "CONFAB_OBJECTS must be s3://bucket or s3://bucket/prefix: a bucket's name has 3 to 63 lower-case letters, digits, hyphens and \
             dots, a prefix up to 512 letters, digits and _ . - between single slashes; keys have their own settings",
        ),
        _ => bail!("CONFAB_OBJECTS must be file:DIR, s3://bucket or s3://bucket/prefix"),
    }
}

fn bucket(rest: &str) -> Option<Location> {
    let rest = rest.strip_prefix("//")?;
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = match path {
        "" => String::new(),
        path => Some(path.strip_suffix('/').unwrap_or(path)).filter(|path| is_path(path))?.to_owned() + "/",
    };
    is_bucket(name).then(|| Location::Bucket(name.into(), prefix))
}

/// Returns whether every store accepts the path in keys without escaping.
fn is_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
    path.len() <= 512 && path.split('/').all(part)
}

/// Returns whether it is a bucket name by those of Amazon's rules that all stores share.
fn is_bucket(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    (3..=63).contains(&name.len())
        && name.bytes().all(inner)
        && outer(name.as_bytes().first())
        && outer(name.as_bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_picks() {
        let location = |url: Option<&str>| location(url.map(Secret::from).as_ref(), Path::new("data"));
        assert_eq!(location(None).unwrap(), Location::Directory("data/objects".into()));
        assert_eq!(location(Some("file:/x/y")).unwrap(), Location::Directory("/x/y".into()));
        let bucket = |name: &str, prefix: &str| Location::Bucket(name.into(), prefix.into());
        for whole in ["s3://confab-files.eu", "s3://confab-files.eu/"] {
            assert_eq!(location(Some(whole)).unwrap(), bucket("confab-files.eu", ""));
        }
        for prefixed in ["s3://confab/Prod_1.eu/chat", "s3://confab/Prod_1.eu/chat/"] {
            assert_eq!(location(Some(prefixed)).unwrap(), bucket("confab", "Prod_1.eu/chat/"));
        }
        let refused = |bad: &str| location(Some(bad)).unwrap_err().to_string();
        for bad in ["", "file:", "/x/y", "gs://confab"] {
            assert_eq!(refused(bad), "CONFAB_OBJECTS must be file:DIR, s3://bucket or s3://bucket/prefix", "{bad}");
        }
        let long = format!("s3://confab/{}", "a".repeat(513));
        for bad in [
            "s3:confab",
            "s3://",
            "s3://ab",
            "s3://Confab",
            "s3://a/b",
            "s3://key:hunter2@confab",
            "s3://confab//",
            "s3://confab//prod",
            "s3://confab/prod//",
            "s3://confab/a//b",
            "s3://confab/a/../b",
            "s3://confab/./b",
            "s3://confab/prod?x=hunter2",
            "s3://confab/prod hunter2",
            "s3://confab/größe",
            &long,
        ] {
            let error = refused(bad);
            assert!(
                error.contains("a bucket's name has 3 to 63 lower-case letters") && !error.contains("hunter2"),
                "{bad}: {error}"
            );
        }
    }
}
