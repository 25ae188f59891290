//! Passwords: which are taken, and their hashes, computed off the async threads and never more at once than there are cores.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use confab_common::metrics::LIMITS;
use confab_common::{Error, Result, text};
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

use crate::turns::{Ticket, Turns};
use crate::username;

/// Lengths of a password, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;
/// How long a hash waits for its turn.
const WAIT: Duration = Duration::from_secs(5);
/// What the password of a name that nobody has is compared with, so that it costs the same as a wrong one.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlzIQ$bm9ib2R5J3MgcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXM";

/// Lower case, one a line.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// The form in which a new password is hashed. Refuses one that is too short, too long, or among the first that an attacker tries.
///
/// # Errors
/// `invalid_request` about `password`.
pub fn check(typed: &str, username: &str) -> Result<String> {
    let refuse = |why: String| Err(Error::field("password", why));
    let Some(password) = opaque(typed) else { return refuse("must not contain control characters".into()) };
    if !LENGTHS.contains(&password.len()) {
        return refuse(format!("must be {} to {} bytes", LENGTHS.start(), LENGTHS.end()));
    }
    let folded = text::fold(password.trim());
    if folded.is_empty() {
        return refuse("must not be blank".into());
    }
    if COMMON.contains(folded.as_str()) {
        return refuse("is one of the commonest passwords".into());
    }
    if folded == text::fold(username.trim()) || folded == username::folded(username) {
        return refuse("must not be the username".into());
    }
    Ok(password)
}

/// The form of a password that is the same on every keyboard (RFC 8265, OpaqueString): composed, with ordinary spaces. `None` when
/// it has control characters.
fn opaque(typed: &str) -> Option<String> {
    if typed.chars().any(char::is_control) {
        return None;
    }
    let category = CodePointMapData::<GeneralCategory>::new();
    let spaced = typed.chars().map(|c| if category.get(c) == GeneralCategory::SpaceSeparator { ' ' } else { c }).collect::<String>();
    Some(ComposingNormalizerBorrowed::new_nfc().normalize(&spaced).into_owned())
}

/// Hashes and verifies passwords with Argon2id. A hash takes 19 MiB and a core for tens of milliseconds.
pub struct Passwords {
    turns: Turns,
    wait: Duration,
}

impl Passwords {
    /// As many hashes at once as there are cores.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        Ok(Self { turns: Turns::start(std::thread::available_parallelism().map_or(1, usize::from))?, wait: WAIT })
    }

    /// The hash of a password that [`check`] has returned, as a PHC string.
    ///
    /// # Errors
    /// `unavailable` when too many wait or this one has waited too long.
    pub async fn hash(&self, ticket: Ticket, password: String) -> Result<String> {
        let work = move || argon2()?.hash_password(password.as_bytes()).map(|hash: PasswordHash| hash.to_string());
        self.in_time(self.turns.run(ticket, work)).await?.map_err(Error::internal)
    }

    /// Whether the hash is that of a password as it was typed, or as it was typed once: earlier releases hashed it as it came.
    /// Without a hash the answer is no, after the same work.
    ///
    /// # Errors
    /// `unavailable` when too many wait or this one has waited too long; `internal` when the hash is not one.
    pub async fn verify(&self, ticket: Ticket, typed: String, hash: Option<String>) -> Result<bool> {
        use argon2::password_hash::Error as HashError;
        let is_known = hash.is_some();
        let hash: Arc<str> = hash.as_deref().unwrap_or(NOBODY).into();
        let forms = opaque(&typed).filter(|opaque| *opaque != typed).into_iter().chain([typed]);
        let verified = self.in_time(async {
            // One turn each: what costs two hashes waits twice.
            for form in forms {
                let hash = hash.clone();
                let work = move || argon2()?.verify_password(form.as_bytes(), &PasswordHash::new(&hash)?);
                match self.turns.run(ticket, work).await? {
                    Err(HashError::PasswordInvalid) => {}
                    outcome => return Ok(outcome.map(|()| is_known)),
                }
            }
            Ok(Ok(false))
        });
        verified.await?.map_err(Error::internal)
    }

    async fn in_time<T>(&self, hashing: impl Future<Output = Result<T>>) -> Result<T> {
        let hashed = tokio::time::timeout(self.wait, hashing).await;
        hashed.unwrap_or_else(|_| Err(Error::unavailable("password checking"))).inspect_err(|_| LIMITS.hit("password_hashes"))
    }
}

/// Argon2id with the parameters that OWASP's cheat sheet puts first.
fn argon2() -> argon2::password_hash::Result<Argon2<'static>> {
    let params = Params::new(19_456, 2, 1, None).map_err(argon2::password_hash::Error::from)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use confab_common::Code;

    use super::*;

    const TICKET: Ticket = Ticket { address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), name: 0, is_known: false };

    #[test]
    fn checks() {
        for good in ["correct horse", &"x".repeat(256), "пароль", "\u{200D}👩\u{200D}🚀 🔑", "ada lovelace", "lovelaces"] {
            assert_eq!(check(good, "Lovelace").unwrap(), good);
        }
        for bad in [
            "",
            "short12",
            &"x".repeat(257),
            "long enough\0",
            "long\tenough",
            "long enough\u{85}",
            "        ",
            "\u{3000}\u{A0}\u{2003}\u{3000}",
            "password123",
            "PassWord123",
            " password123 ",
            "12345678",
            "QWERTYUIOP",
            "Lovelace",
            "LOVELACE",
            " lovelace ",
            "ＬＯＶＥＬＡＣＥ",
        ] {
            assert_eq!(
                check(bad, if bad.starts_with('Ｌ') { bad } else { " Lovelace" }).unwrap_err().fields[0].field,
                "password",
                "{bad:?}"
            );
        }
        assert!(check("straßenbahn", "STRASSENBAHN").is_err());
    }

    #[test]
    fn a_password_is_the_same_on_every_keyboard() {
        assert_eq!(check("cafe\u{301} au\u{A0}lait", "ada").unwrap(), "café au lait");
        assert_eq!(check("ゆき\u{3000}ふる", "ada").unwrap(), "ゆき ふる");
        assert_eq!(check("Case  and spaces ", "ada").unwrap(), "Case  and spaces ");
        assert_eq!(check(&"e\u{301}".repeat(128), "ada").unwrap().len(), 256, "counted in the form that is hashed");
        assert!(check(&"é".repeat(129), "ada").is_err());
    }

    #[test]
    fn the_list_holds_only_what_the_length_lets_pass() {
        assert!(COMMON.len() >= 500, "{}", COMMON.len());
        for word in COMMON.iter() {
            assert!(LENGTHS.contains(&word.len()) && *word == text::fold(word.trim()), "{word:?}");
        }
    }

    #[tokio::test]
    async fn a_hash_verifies_its_password_alone() {
        let passwords = Passwords::start().unwrap();
        let hash = passwords.hash(TICKET, "correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash(TICKET, "correct horse".into()).await.unwrap(), "salted");
        assert!(passwords.verify(TICKET, "correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(TICKET, "Correct horse".into(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn passwords_verify_however_they_are_typed_and_however_they_were_hashed() {
        let passwords = Passwords::start().unwrap();
        let (composed, decomposed) = ("caf\u{e9} au lait", "cafe\u{301}\u{A0}au lait");
        let hash = passwords.hash(TICKET, check(decomposed, "ada").unwrap()).await.unwrap();
        for typed in [composed, decomposed] {
            assert!(passwords.verify(TICKET, typed.into(), Some(hash.clone())).await.unwrap(), "{typed:?}");
        }
        // As earlier releases hashed them: as they came.
        for typed in [decomposed, "tab\tinside"] {
            let hash = passwords.hash(TICKET, typed.into()).await.unwrap();
            assert!(passwords.verify(TICKET, typed.into(), Some(hash.clone())).await.unwrap(), "{typed:?}");
            assert!(!passwords.verify(TICKET, composed.into(), Some(hash)).await.unwrap(), "{typed:?}");
        }
        assert!(!passwords.verify(TICKET, decomposed.into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_costs_what_somebody_costs() {
        let passwords = Passwords::start().unwrap();
        assert!(!passwords.verify(TICKET, "correct horse".into(), None).await.unwrap());
        let (nobody, real) = (PasswordHash::new(NOBODY).unwrap(), passwords.hash(TICKET, "correct horse".into()).await.unwrap());
        let real = PasswordHash::new(&real).unwrap();
        let kind = |hash: &PasswordHash| (hash.algorithm.to_string(), hash.version, hash.params.to_string());
        assert_eq!(kind(&nobody), kind(&real));
        let lengths = |hash: &PasswordHash| (hash.salt.map(|s| s.len()), hash.hash.map(|h| h.len()));
        assert_eq!(lengths(&nobody), lengths(&real));
    }

    #[tokio::test]
    async fn a_hash_that_waits_too_long_is_refused() {
        let passwords = Passwords { turns: Turns::start(0).unwrap(), wait: Duration::from_millis(10) };
        let error = passwords.hash(TICKET, "correct horse".into()).await.unwrap_err();
        assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
    }
}
