//! The signing keys of tokens: from a setting, or created and stored in the data directory.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use confab_common::private;

/// The name of the key file in the data directory.
const FILE: &str = "signing.key";
/// Maximum keys in use at once.
const MAX_KEYS: usize = 8;

pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Parses the base64 of PKCS#8 or of the 32 secret bytes.
    fn parse(base64: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(base64.split_ascii_whitespace().collect::<String>()).ok()?;
        let pair = match bytes.len() {
            32 => Ed25519KeyPair::from_seed_unchecked(&bytes),
            // The library ignores bytes after a key. They might be another key, which would be lost without an error.
            length if bytes.get(1).is_some_and(|inner| usize::from(*inner) + 2 == length) => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes)
            }
            _ => return None,
        };
        pair.ok().map(Self)
    }

    /// The public key's 32 bytes.
    pub fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The 32 secret bytes, from which other keys are derived.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn seed(&self) -> anyhow::Result<Vec<u8>> {
        let seed: Option<Curve25519SeedBin<'_>> = self.0.seed().ok().and_then(|seed| seed.as_be_bytes().ok());
        Ok(seed.context("the signing key has no seed")?.as_ref().to_vec())
    }

    /// Encodes the key pair as PKCS#8.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn pkcs8(&self) -> anyhow::Result<Vec<u8>> {
        Ok(self.0.to_pkcs8v1().ok().context("the signing key cannot be encoded")?.as_ref().to_vec())
    }
}

/// The signing keys: the first key signs, all keys verify.
pub struct SigningKeys(Vec<SigningKey>);

impl SigningKeys {
    /// Parses PEM blocks of PKCS#8 (`openssl genpkey -algorithm ed25519`), or the base64 of such keys or of their 32
    /// secret bytes, separated by commas or white space.
    ///
    /// # Errors
    /// When there is no key, a key is invalid or repeated, or there are more than 8 keys. The message does not quote
    /// them.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        const EXPECTED: &str =
            "not an Ed25519 private key from `openssl genpkey -algorithm ed25519`, or the base64 of 32 bytes";
        // Some ways to set an environment variable write line breaks as `\n`.
        let text = text.replace("\\n", "\n");
        let texts = if text.contains("-----") { blocks(&text).context(EXPECTED)? } else { words(&text) };
        ensure!(
            texts.len() <= MAX_KEYS,
            "{} keys are set, but at most {MAX_KEYS} keys can be in use at once",
            texts.len()
        );
        let mut keys = Vec::<SigningKey>::new();
        for (at, text) in texts.iter().enumerate() {
            let Some(key) = SigningKey::parse(text) else { bail!("key {} of {} is {EXPECTED}", at + 1, texts.len()) };
            ensure!(
                keys.iter().all(|other| other.public() != key.public()),
                "key {} of {} is a duplicate",
                at + 1,
                texts.len()
            );
            keys.push(key);
        }
        ensure!(!keys.is_empty(), EXPECTED);
        Ok(Self(keys))
    }

    pub fn signing(&self) -> &SigningKey {
        &self.0[0]
    }

    /// All keys, the signing key first.
    pub fn all(&self) -> impl Iterator<Item = &SigningKey> {
        self.0.iter()
    }

    /// Loads the keys in a directory; creates a key if there is none. The key file is readable only for its owner.
    ///
    /// # Errors
    /// When the file cannot be read, written or parsed.
    pub fn load_or_create(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        if !fs::exists(&path).with_context(|| format!("cannot look for {}", path.display()))? {
            private::directory(directory).with_context(|| format!("cannot create {}", directory.display()))?;
            create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        private::close(&path).with_context(|| format!("cannot check the permissions of {}", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{} is damaged; restore it, or remove it to end all sessions", path.display()))
    }
}

/// Returns the contents of the PEM blocks, or `None` when there is other text between them.
fn blocks(text: &str) -> Option<Vec<String>> {
    let mut blocks = Vec::new();
    let mut parts = text.split("-----").map(str::trim);
    while let Some(between) = parts.next() {
        let Some(begin) = parts.next() else { return between.is_empty().then_some(blocks) };
        let (body, end) = (parts.next()?, parts.next()?);
        if !between.is_empty() || begin != "BEGIN PRIVATE KEY" || end != "END PRIVATE KEY" {
            return None;
        }
        blocks.push(body.to_owned());
    }
    None
}

/// Splits keys without PEM framing: one key on several lines, or several keys.
fn words(text: &str) -> Vec<String> {
    if SigningKey::parse(text).is_some() {
        return vec![text.to_owned()];
    }
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Creates a key file atomically. If another process creates the file first, that file is kept.
fn create(path: &Path) -> anyhow::Result<()> {
    let key = SigningKey(Ed25519KeyPair::generate().ok().context("no randomness")?);
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(key.pkcs8()?));
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    ensure!(
        linked.is_ok() || linked.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists),
        "{linked:?}"
    );
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    tracing::info!(path = %path.display(), "created a key that signs tokens; back it up together with the database");
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

    /// RFC 8032, section 7.1, test 2.
    const OTHER: &str = "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";

    fn der(secret: &str) -> String {
        BASE64_STANDARD.encode(SigningKey::parse(secret).unwrap().pkcs8().unwrap())
    }

    fn pem(secret: &str) -> String {
        let der = der(secret);
        format!("-----BEGIN PRIVATE KEY-----\r\n{}\r\n{}\r\n-----END PRIVATE KEY-----\r\n", &der[..40], &der[40..])
    }

    fn public(text: &str) -> Vec<String> {
        SigningKeys::parse(text).unwrap().all().map(|key| BASE64_STANDARD.encode(key.public())).collect()
    }

    #[test]
    fn all_formats_yield_the_same_keys() {
        let first = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let second = "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
        let broken = format!("{}\n  {}", &der(SECRET)[..40], &der(SECRET)[40..]);
        for text in [
            SECRET,
            &der(SECRET),
            &broken,
            &pem(SECRET),
            &pem(SECRET).replace("\r\n", "\\n"),
            &pem(SECRET).replace("\r\n", " "),
        ] {
            assert_eq!(public(text), [first], "{text}");
        }
        for text in [
            format!("{SECRET},{OTHER}"),
            format!(" {SECRET}\n{OTHER} \n"),
            format!("{SECRET} , {}", der(OTHER)),
            format!("{} {}", der(SECRET), der(OTHER)),
            format!("{}{}", pem(SECRET), pem(OTHER)),
            format!("\n{}\n\n{}", pem(SECRET), pem(OTHER)).replace("\r\n", "\\n"),
        ] {
            assert_eq!(public(&text), [first, second], "{text}");
        }
        assert_eq!(
            SigningKeys::parse(&format!("{OTHER},{SECRET}")).unwrap().signing().public(),
            BASE64_STANDARD.decode(second).unwrap()
        );
    }

    #[test]
    fn invalid_keys_are_rejected_without_quoting_them() {
        let (cut, wide) = (pem(SECRET).replace("-----END", "----END"), format!("{} hunter2", pem(SECRET)));
        for bad in [
            "",
            " , ",
            "hunter2!",
            "aHVudGVyMg==",
            "-----BEGIN PRIVATE KEY-----",
            &cut,
            &wide,
            &pem(SECRET).replace("PRIVATE", "PUBLIC"),
        ] {
            let error = format!("{:#}", SigningKeys::parse(bad).err().unwrap());
            assert!(
                error.contains("openssl genpkey") && !error.contains("hunter") && !error.contains("nWGx"),
                "{error}"
            );
        }
        let two = [der(SECRET), der(OTHER)].map(|der| BASE64_STANDARD.decode(der).unwrap()).concat();
        assert!(SigningKeys::parse(&BASE64_STANDARD.encode(two)).is_err(), "two concatenated keys");
        let error = format!("{:#}", SigningKeys::parse(&format!("{SECRET},hunter2")).err().unwrap());
        assert!(error.starts_with("key 2 of 2 is not an Ed25519 private key") && !error.contains("hunter"), "{error}");
    }

    #[test]
    fn keys_are_limited_and_distinct() {
        let keys = |count: u8| (0..count).map(|n| BASE64_STANDARD.encode([n; 32])).collect::<Vec<_>>().join(",");
        assert_eq!(public(&keys(8)).len(), 8);
        assert_eq!(
            SigningKeys::parse(&keys(9)).err().unwrap().to_string(),
            "9 keys are set, but at most 8 keys can be in use at once"
        );
        let error = SigningKeys::parse(&format!("{OTHER},{SECRET},{}", der(OTHER))).err().unwrap().to_string();
        assert_eq!(error, "key 3 of 3 is a duplicate");
    }

    #[test]
    fn key_is_created_once_and_private() {
        let directory = directory().join("data");
        let first = SigningKeys::load_or_create(&directory).unwrap();
        let path = directory.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");

        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let second = SigningKeys::load_or_create(&directory).unwrap();
        assert_eq!(first.signing().public(), second.signing().public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let kept = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{}{kept}", pem(OTHER))).unwrap();
        let both = SigningKeys::load_or_create(&directory).unwrap();
        assert_eq!((both.all().count(), both.all().last().unwrap().public()), (2, first.signing().public()));

        fs::write(&path, "").unwrap();
        assert!(
            format!("{:#}", SigningKeys::load_or_create(&directory).err().unwrap()).contains("signing.key is damaged")
        );
    }
}
