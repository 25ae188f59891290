//! Passwords: which are taken, and their hashes, computed off the async threads and never more at once than there are cores.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use confab_common::metrics::LIMITS;
use confab_common::{Error, Result, text};

use crate::turns::{Ticket, Turns};

/// Lengths of a password, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;
/// How long a hash waits for its turn.
const WAIT: Duration = Duration::from_secs(5);
/// What the password of a name that nobody has is compared with, so that it costs the same as a wrong one.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlzIQ$bm9ib2R5J3MgcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXM";

/// Lower case, one a line.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// Refuses a password that is too short, too long, or among the first that anybody would try.
///
/// # Errors
/// `invalid_request` about `password`.
pub fn check(password: &str) -> Result<()> {
    text::no_nul("password", password)?;
    if !LENGTHS.contains(&password.len()) {
        return Err(Error::field("password", format!("must be {} to {} bytes", LENGTHS.start(), LENGTHS.end())));
    }
    if COMMON.contains(password.to_lowercase().as_str()) {
        return Err(Error::field("password", "is one of the commonest passwords"));
    }
    Ok(())
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

    /// The hash of a password, as a PHC string.
    ///
    /// # Errors
    /// `unavailable` when too many wait or this one has waited too long.
    pub async fn hash(&self, ticket: Ticket, password: String) -> Result<String> {
        let hash =
            self.run(ticket, move || argon2()?.hash_password(password.as_bytes()).map(|hash: PasswordHash| hash.to_string())).await?;
        hash.map_err(Error::internal)
    }

    /// Whether the hash is that password's. Without a hash the answer is no, after the same work.
    ///
    /// # Errors
    /// `unavailable` when too many wait or this one has waited too long; `internal` when the hash is not one.
    pub async fn verify(&self, ticket: Ticket, password: String, hash: Option<String>) -> Result<bool> {
        use argon2::password_hash::Error as HashError;
        let known = hash.is_some();
        let verified = self
            .run(ticket, move || {
                let hash = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY))?;
                argon2()?.verify_password(password.as_bytes(), &hash)
            })
            .await?;
        match verified {
            Ok(()) => Ok(known),
            Err(HashError::PasswordInvalid) => Ok(false),
            Err(error) => Err(Error::internal(error)),
        }
    }

    async fn run<T: Send + 'static>(&self, ticket: Ticket, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let ran = tokio::time::timeout(self.wait, self.turns.run(ticket, work)).await;
        ran.unwrap_or_else(|_| Err(Error::unavailable("password checking"))).inspect_err(|_| LIMITS.hit("password_hashes"))
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
        assert!(check("correct horse").is_ok());
        assert!(check(&"x".repeat(256)).is_ok());
        assert!(check("пароль").is_ok(), "12 bytes");
        for bad in ["", "short12", &"x".repeat(257), "long enough\0", "password123", "PassWord123", "12345678", "QWERTYUIOP"] {
            assert_eq!(check(bad).unwrap_err().fields[0].field, "password", "{bad:?}");
        }
    }

    #[test]
    fn the_list_holds_only_what_the_length_lets_pass() {
        assert!(COMMON.len() >= 500, "{}", COMMON.len());
        for word in COMMON.iter() {
            assert!(LENGTHS.contains(&word.len()) && *word == word.to_lowercase() && *word == word.trim(), "{word:?}");
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
