//! The key that signs tokens: given by a setting, or made and kept in the data directory.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use confab_common::private;

/// Its name in the data directory.
const FILE: &str = "signing.key";

/// An Ed25519 key pair.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads PKCS#8 as PEM (`openssl genpkey -algorithm ed25519`) or as bare base64, or the base64 of the 32 secret bytes.
    ///
    /// # Errors
    /// When it is none of these. The message does not quote the key.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        const EXPECTED: &str = "not an Ed25519 private key as `openssl genpkey -algorithm ed25519` makes it, or the base64 of 32 bytes";
        // Some ways of passing an environment variable spell line breaks as `\n`.
        let text = text.replace("\\n", "\n");
        let base64 = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect::<String>();
        let bytes = BASE64_STANDARD.decode(base64).ok().context(EXPECTED)?;
        let pair = match bytes.len() {
            32 => Ed25519KeyPair::from_seed_unchecked(&bytes),
            _ => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes),
        };
        Ok(Self(pair.ok().context(EXPECTED)?))
    }

    /// The key kept in a directory, made when there is none. Nobody but the owner may read it.
    ///
    /// # Errors
    /// When it cannot be read, written or understood.
    pub fn load_or_create(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        if !fs::exists(&path).with_context(|| format!("cannot look for {}", path.display()))? {
            private::directory(directory).with_context(|| format!("cannot create {}", directory.display()))?;
            create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        private::close(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is damaged; restore it, or remove it to end all sessions", path.display()))
    }

    /// The public key's 32 bytes.
    pub fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The pair as PKCS#8.
    ///
    /// # Errors
    /// When the crypto library refuses.
    pub fn pkcs8(&self) -> anyhow::Result<Vec<u8>> {
        Ok(self.0.to_pkcs8v1().ok().context("the signing key cannot be encoded")?.as_ref().to_vec())
    }
}

/// Makes a key and puts it there whole or not at all; one that came there meanwhile stays.
fn create(path: &Path) -> anyhow::Result<()> {
    let key = SigningKey(Ed25519KeyPair::generate().ok().context("no randomness")?);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(key.pkcs8()?));
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    ensure!(linked.is_ok() || linked.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists), "{linked:?}");
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    tracing::info!(path = %path.display(), "a key to sign tokens with was made; keep it with the database");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use confab_common::testing::directory;

    use super::*;

    /// RFC 8032, section 7.1, test 1.
    const SECRET: &str = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";

    #[test]
    fn every_form_gives_the_same_key() {
        let key = SigningKey::parse(SECRET).unwrap();
        assert_eq!(BASE64_STANDARD.encode(key.public()), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let der = BASE64_STANDARD.encode(key.pkcs8().unwrap());
        let pem = format!("-----BEGIN PRIVATE KEY-----\r\n{}\r\n{}\r\n-----END PRIVATE KEY-----\r\n", &der[..40], &der[40..]);
        for text in [&der, &pem, &pem.replace("\r\n", "\\n")] {
            assert_eq!(SigningKey::parse(text).unwrap().public(), key.public(), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        for bad in ["", "hunter2!", "aHVudGVyMg==", "-----BEGIN PRIVATE KEY-----"] {
            let error = format!("{:#}", SigningKey::parse(bad).err().unwrap());
            assert!(error.contains("openssl genpkey") && !error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let directory = directory().join("data");
        let first = SigningKey::load_or_create(&directory).unwrap();
        let path = directory.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no draft is left");

        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let second = SigningKey::load_or_create(&directory).unwrap();
        assert_eq!(first.public(), second.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&path, "").unwrap();
        assert!(format!("{:#}", SigningKey::load_or_create(&directory).err().unwrap()).contains("signing.key is damaged"));
    }
}
