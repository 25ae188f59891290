//! The contents of a file service's object store, read without the service: from its directory, or over S3.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use serde_json::Value;

use crate::daemon::Daemon;

pub enum Objects {
    Directory(PathBuf),
    Bucket(Bucket),
}

/// A bucket and its credentials.
pub struct Bucket {
    /// `host:port`.
    host: String,
    name: String,
    region: String,
    key: String,
    secret: String,
}

impl Objects {
    /// Opens the store in a program's settings.
    ///
    /// # Errors
    /// When the settings are incomplete.
    pub fn of(daemon: &Daemon) -> anyhow::Result<Self> {
        let Some(url) = setting(daemon, "CONFAB_OBJECTS") else {
            return Ok(Self::Directory(daemon.work.join("data/objects")));
        };
        let Some(place) = url.strip_prefix("s3://") else {
            return Ok(Self::Directory(daemon.work.join(url.trim_start_matches("file:"))));
        };
        let given = |name: &str| setting(daemon, name).with_context(|| format!("{name} is not set"));
        let endpoint = given("CONFAB_S3_ENDPOINT")?;
        Ok(Self::Bucket(Bucket {
            host: endpoint.strip_prefix("http://").context("an http endpoint")?.into(),
            name: place.split('/').next().unwrap_or_default().into(),
            region: setting(daemon, "CONFAB_S3_REGION").unwrap_or_else(|| "us-east-1".into()),
            key: given("CONFAB_S3_ACCESS_KEY_ID")?,
            secret: given("CONFAB_S3_SECRET_ACCESS_KEY")?,
        }))
    }

    /// Returns whether a file's content is in the store.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn has(&self, file: &Value) -> anyhow::Result<bool> {
        let id = file["id"].as_str().context("a File has an id")?;
        Ok(self.all().await?.iter().any(|name| name.ends_with(id)))
    }

    /// Lists all objects, finished or not: names of files, or keys and unfinished uploads; without the owner object.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn all(&self) -> anyhow::Result<Vec<String>> {
        let mut all = match self {
            Self::Directory(directory) => files(directory)?,
            Self::Bucket(bucket) => {
                let (listed, begun) = (bucket.get("list-type=2&max-keys=1000").await?, bucket.get("uploads=").await?);
                ensure!(!listed.contains("<IsTruncated>true"), "too many objects for a test");
                let unfinished = texts(&begun, "UploadId").into_iter().map(|id| format!("unfinished {id}"));
                texts(&listed, "Key").into_iter().chain(unfinished).collect()
            }
        };
        all.retain(|name| !name.ends_with(".confab"));
        all.sort();
        Ok(all)
    }
}

impl Bucket {
    /// Returns the store's answer to a query about the bucket, signed with AWS Signature Version 4; empty when the
    /// bucket does not exist yet.
    async fn get(&self, query: &str) -> anyhow::Result<String> {
        let Self { host, name, region, key, secret } = self;
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let (scope, empty) = (format!("{}/{region}/s3/aws4_request", &now[..8]), sha256(b""));
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let request = format!(
            "GET\n/{name}\n{query}\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{now}\n\n{signed}\n{empty}"
        );
        let to_sign = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", sha256(request.as_bytes()));
        let steps = scope.split('/').chain([to_sign.as_str()]);
        let signature = steps.fold(format!("AWS4{secret}").into_bytes(), |key, text| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes()).as_ref().to_vec()
        });
        let signature = hex(&signature);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={signed}, Signature={signature}");
        let asked =
            reqwest::Client::new().get(format!("http://{host}/{name}?{query}")).header("authorization", authorization);
        let answer = asked.header("x-amz-content-sha256", empty).header("x-amz-date", now).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success() || text.contains("NoSuchBucket"), "{status}: {text}");
        Ok(text)
    }
}

/// Returns the SHA-256 of bytes in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the texts of all elements with this name.
fn texts(xml: &str, element: &str) -> Vec<String> {
    let text = |rest: &str| rest.split('<').next().unwrap_or_default().to_owned();
    xml.split(&format!("<{element}>")).skip(1).map(text).collect()
}

/// Returns a setting of a program, given by value or by file.
fn setting(daemon: &Daemon, name: &str) -> Option<String> {
    let given = |name: &str| daemon.environment.iter().find(|(given, _)| given == name).map(|(_, value)| value.clone());
    let by_file = || std::fs::read_to_string(given(&format!("{name}_FILE"))?).ok().map(|text| text.trim().to_owned());
    given(name).or_else(by_file)
}

fn files(directory: &Path) -> anyhow::Result<Vec<String>> {
    let Ok(entries) = directory.read_dir() else { return Ok(vec![]) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() { found.append(&mut files(&path)?) } else { found.push(path.display().to_string()) }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_texts() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(texts("<a><Key>x</Key><Key>y z</Key></a>", "Key"), ["x", "y z"]);
    }
}
