//! The account of a store in the settings.

use anyhow::{Context, bail, ensure};
use confab_common::Secret;

use super::{Account, Key};
use crate::object::ObjectsConfig;

impl Account {
    /// Returns the account in the settings.
    ///
    /// # Errors
    /// When a setting is malformed or missing.
    pub fn new(config: &ObjectsConfig) -> anyhow::Result<Self> {
        let endpoint = config.s3_endpoint.clone();
        if let Some(url) = &endpoint {
            let url = url.parse::<http::Uri>().ok().context("CONFAB_S3_ENDPOINT is not a URL")?;
            let plain = url.path() == "/"
                && url.query().is_none()
                && url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            ensure!(
                matches!(url.scheme_str(), Some("http" | "https")) && plain,
                "CONFAB_S3_ENDPOINT must be http://host:port or https://host:port"
            );
        }
        let amazons = || std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION")).ok();
        let region = config.s3_region.clone().or_else(|| amazons().filter(|_| endpoint.is_none()));
        Ok(Self { endpoint, region: region.unwrap_or_else(|| "us-east-1".into()), key: key(config)? })
    }
}

/// Returns the access key in the settings. An empty setting counts as unset.
fn key(config: &ObjectsConfig) -> anyhow::Result<Option<Key>> {
    let given = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.expose().is_empty());
    let id = config.s3_access_key_id.clone().filter(|id| !id.is_empty());
    match (id, given(&config.s3_secret_access_key), given(&config.s3_session_token)) {
        (Some(id), Some(secret), token) => Ok(Some(Key { id, secret, token })),
        (Some(_), None, _) => bail!("CONFAB_S3_ACCESS_KEY_ID needs CONFAB_S3_SECRET_ACCESS_KEY"),
        (None, None, None) => Ok(None),
        (None, ..) => bail!("CONFAB_S3_SECRET_ACCESS_KEY and CONFAB_S3_SESSION_TOKEN require CONFAB_S3_ACCESS_KEY_ID"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::object::open;

    #[test]
    fn missing_s3_settings_are_named() {
        let whole = ObjectsConfig {
            objects: Some("s3://confab".into()),
            s3_endpoint: Some("http://127.0.0.1:8333".into()),
            s3_region: None,
            s3_access_key_id: Some("confab".into()),
            s3_secret_access_key: Some("hunter2".into()),
            s3_session_token: Some("hunter2".into()),
        };
        assert!(open(&whole, Path::new("data"), 1).is_ok());
        assert!(!format!("{whole:?}").contains("hunter2"));
        let refused = |config: ObjectsConfig| {
            open(&config, Path::new("data"), 1).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for id in [None, Some(String::new())] {
            assert!(
                refused(ObjectsConfig { s3_access_key_id: id, ..whole.clone() })
                    .contains("require CONFAB_S3_ACCESS_KEY_ID")
            );
        }
        let none = ObjectsConfig {
            s3_access_key_id: Some("".into()),
            s3_secret_access_key: None,
            s3_session_token: None,
            ..whole.clone()
        };
        assert!(open(&none, Path::new("data"), 1).is_ok(), "the SDK looks for credentials");
        assert!(
            refused(ObjectsConfig { s3_secret_access_key: None, ..whole.clone() })
                .contains("CONFAB_S3_SECRET_ACCESS_KEY")
        );
        for bad in ["127.0.0.1:8333", "ftp://host", "http://u:hunter2@host", "http://host/path", "http://host?x", ""] {
            let error = refused(ObjectsConfig { s3_endpoint: Some(bad.into()), ..whole.clone() });
            assert!(error.contains("CONFAB_S3_ENDPOINT") && !error.contains("hunter2"), "{bad}: {error}");
        }
    }
}
