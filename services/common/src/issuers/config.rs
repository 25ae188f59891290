//! The setting `CONFAB_ISSUERS`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::algorithm::Algorithm;
use super::keys::Keys;
use super::metrics::MAX_ISSUERS;
use super::source::{Source, read_file};
use crate::config::duration;

/// The issuer of Confab's own tokens.
const CONFAB: &str = "confab";
/// Maximum length of an issuer's name, in bytes. It is stored with each user.
const MAX_ISSUER: usize = 2048;
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Settings of programs that accept tokens of other issuers
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Your own users")]
pub struct IssuersConfig {
    /// Issuers of tokens for the users of your app: a JSON list of at most 16 objects with `issuer`, `audience`,
    /// `jwksUrl` or `keyFile`, `algorithms`, and optionally `userClaim`, `nameClaim`, `pictureClaim` and `maxTtl`; see
    /// docs/own-users.md
    #[arg(long, env = "CONFAB_ISSUERS", value_name = "JSON")]
    pub issuers: Option<String>,
}

impl IssuersConfig {
    /// Validates the setting, and reads the key files.
    ///
    /// # Errors
    /// When an entry is wrong, or its key file cannot be used. The message names the entry and the field.
    pub fn check(&self) -> anyhow::Result<()> {
        for entry in self.entries()? {
            if let Source::File(path) = &entry.source {
                let keys = read_file(path).and_then(|content| Keys::of_file(&content, &entry.algorithms));
                keys.map_err(|error| entry.explain("keyFile", error))?;
            }
        }
        Ok(())
    }

    /// Returns whether there are issuers.
    pub fn is_set(&self) -> bool {
        self.entries().is_ok_and(|entries| !entries.is_empty())
    }

    /// Parses the entries.
    pub(super) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let text = self.issuers.as_deref().map(str::trim).filter(|text| !text.is_empty()).unwrap_or("[]");
        let list = serde_json::from_str::<Vec<&RawValue>>(text)
            .map_err(|error| anyhow!("CONFAB_ISSUERS must be a JSON list of objects: {error}"))?;
        ensure!(list.len() <= MAX_ISSUERS, "CONFAB_ISSUERS must have at most {MAX_ISSUERS} entries");
        let mut entries = Vec::<Entry>::new();
        for (place, json) in list.into_iter().enumerate() {
            let entry = Entry::parse(place, json.get()).with_context(|| at(place))?;
            if let Some(same) = entries.iter().find(|other| other.issuer == entry.issuer) {
                let number = same.place + 1;
                return Err(anyhow!("`issuer` must be unique, but entry {number} has the same").context(at(place)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn at(place: usize) -> String {
    format!("CONFAB_ISSUERS, entry {}", place + 1)
}

/// An issuer.
#[derive(Debug)]
pub struct Entry {
    /// The place in the list, counted from 0.
    pub place: usize,
    pub issuer: Arc<str>,
    /// A token must be for one of these.
    pub audience: Vec<String>,
    pub source: Source,
    pub algorithms: Vec<Algorithm>,
    pub user_claim: String,
    pub name_claim: Option<String>,
    pub picture_claim: Option<String>,
    /// The longest time from `iat` to `exp`, in seconds.
    pub max_life: i64,
}

/// An entry as the operator writes it.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", expecting = "an object")]
struct Written {
    issuer: String,
    #[serde(deserialize_with = "one_or_more")]
    audience: Vec<String>,
    jwks_url: Option<String>,
    key_file: Option<PathBuf>,
    algorithms: Vec<Algorithm>,
    user_claim: Option<String>,
    name_claim: Option<String>,
    picture_claim: Option<String>,
    max_ttl: Option<String>,
}

impl Entry {
    fn parse(place: usize, json: &str) -> anyhow::Result<Self> {
        let mut parser = serde_json::Deserializer::from_str(json);
        let written: Written = serde_path_to_error::deserialize(&mut parser).map_err(|error| anyhow!("{error}"))?;
        ensure!(!written.issuer.is_empty(), "`issuer` must not be empty");
        let is_storable = written.issuer.len() <= MAX_ISSUER && !written.issuer.contains(char::is_control);
        ensure!(is_storable, "`issuer` must have at most {MAX_ISSUER} bytes and no control characters");
        ensure!(written.issuer != CONFAB, "`issuer` must not be {CONFAB:?}, the issuer of Confab's own tokens");
        let is_named = !written.audience.is_empty() && written.audience.iter().all(|name| !name.is_empty());
        ensure!(is_named, "`audience` must be a text that is not empty, or a list of such texts");
        let source = match (&written.jwks_url, written.key_file) {
            (Some(url), None) => Source::url(url).map_err(|why| anyhow!("`jwksUrl` {why}"))?,
            (None, Some(file)) => Source::File(file),
            _ => return Err(anyhow!("exactly one of `jwksUrl` and `keyFile` must be set")),
        };
        check_algorithms(&written.algorithms, &source)?;
        for (name, claim) in [
            ("userClaim", &written.user_claim),
            ("nameClaim", &written.name_claim),
            ("pictureClaim", &written.picture_claim),
        ] {
            ensure!(claim.as_ref().is_none_or(|claim| !claim.is_empty()), "`{name}` must not be empty");
        }
        let max_ttl = duration(written.max_ttl.as_deref().unwrap_or("24h")).map_err(|why| anyhow!("`maxTtl` {why}"))?;
        ensure!((MIN_TTL..=MAX_TTL).contains(&max_ttl), "`maxTtl` must be from 1s to 8760h");
        Ok(Self {
            place,
            issuer: written.issuer.into(),
            audience: written.audience,
            source,
            algorithms: written.algorithms,
            user_claim: written.user_claim.unwrap_or_else(|| "sub".to_owned()),
            name_claim: written.name_claim,
            picture_claim: written.picture_claim,
            max_life: i64::try_from(max_ttl.as_secs())?,
        })
    }

    /// Whether the keys are fetched over HTTP.
    pub fn is_fetched(&self) -> bool {
        matches!(self.source, Source::Url(_))
    }

    /// The name of the issuer's part in `/readyz`.
    pub fn part(&self) -> String {
        format!("issuer {} of CONFAB_ISSUERS", self.place + 1)
    }

    /// Adds to an error what it is about.
    pub fn explain(&self, field: &str, error: anyhow::Error) -> anyhow::Error {
        error.context(format!("{}: `{field}` cannot be used", at(self.place)))
    }
}

fn check_algorithms(algorithms: &[Algorithm], source: &Source) -> anyhow::Result<()> {
    ensure!(!algorithms.is_empty(), "`algorithms` must not be empty");
    let Some(secret) = algorithms.iter().find(|algorithm| algorithm.is_secret()) else { return Ok(()) };
    ensure!(
        matches!(source, Source::File(_)),
        "`algorithms` must not contain {} with `jwksUrl`: its key is a secret, which only a `keyFile` can hold",
        secret.name()
    );
    ensure!(
        algorithms.iter().all(|algorithm| algorithm.is_secret()),
        "`algorithms` must not contain both {}, whose key is a secret, and algorithms with public keys",
        secret.name()
    );
    Ok(())
}

/// A text or a list of texts.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;

    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<S: SeqAccess<'de>>(self, list: S) -> Result<Self::Value, S::Error> {
            Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list))
        }
    }

    deserializer.deserialize_any(Texts)
}

#[cfg(test)]
mod tests;
