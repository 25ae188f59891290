//! Passwords: which are taken, and their hashes, computed off the async threads and never more at once than there are cores.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use confab_common::metrics::LIMITS;
use confab_common::{Error, Result, text};
use tokio::sync::Semaphore;

/// Lengths of a password, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;
/// Hashes that may wait for a core.
const WAITERS: usize = 1000;
/// How long one waits.
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

/// Hashes and verifies passwords with Argon2id.
pub struct Passwords {
    /// One for each hash that runs or waits.
    entries: Semaphore,
    /// One for each that runs: a hash takes 19 MiB and a core for tens of milliseconds.
    slots: Arc<Semaphore>,
    wait: Duration,
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from), WAITERS, WAIT)
    }
}

impl Passwords {
    fn new(slots: usize, waiters: usize, wait: Duration) -> Self {
        Self { entries: Semaphore::new(slots + waiters), slots: Arc::new(Semaphore::new(slots)), wait }
    }

    /// The hash of a password, as a PHC string.
    ///
    /// # Errors
    /// `unavailable` when too many wait or this one has waited too long.
    pub async fn hash(&self, password: String) -> Result<String> {
        let hash = self.run(move || argon2()?.hash_password(password.as_bytes()).map(|hash: PasswordHash| hash.to_string())).await?;
        hash.map_err(Error::internal)
    }

    /// Whether the hash is that password's. Without a hash the answer is no, after the same work.
    ///
    /// # Errors
    /// `unavailable` when too many wait or this one has waited too long; `internal` when the hash is not one.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        use argon2::password_hash::Error as HashError;
        let known = hash.is_some();
        let verified = self
            .run(move || {
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

    /// Runs `work` on a blocking thread as soon as a core is free.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _entry = self.entries.try_acquire().map_err(|_| too_many_wait())?;
        let slot = tokio::time::timeout(self.wait, self.slots.clone().acquire_owned())
            .await
            .map_err(|_| too_many_wait())?
            .map_err(Error::internal)?;
        let task = tokio::task::spawn_blocking(move || {
            // Moved here: the core stays taken when the caller is gone.
            let _slot = slot;
            work()
        });
        task.await.map_err(Error::internal)
    }
}

fn too_many_wait() -> Error {
    LIMITS.hit("password_hashes");
    Error::unavailable("password checking")
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
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse".into()).await.unwrap(), "salted");
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("Correct horse".into(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_costs_what_somebody_costs() {
        let passwords = Passwords::default();
        assert!(!passwords.verify("correct horse".into(), None).await.unwrap());
        let (nobody, real) = (PasswordHash::new(NOBODY).unwrap(), passwords.hash("correct horse".into()).await.unwrap());
        let real = PasswordHash::new(&real).unwrap();
        let kind = |hash: &PasswordHash| (hash.algorithm.to_string(), hash.version, hash.params.to_string());
        assert_eq!(kind(&nobody), kind(&real));
        let lengths = |hash: &PasswordHash| (hash.salt.map(|s| s.len()), hash.hash.map(|h| h.len()));
        assert_eq!(lengths(&nobody), lengths(&real));
    }

    #[tokio::test]
    async fn who_waits_too_long_is_refused_and_the_queue_is_bounded() {
        let passwords = Passwords::new(1, 1, Duration::from_millis(10));
        let slot = passwords.slots.clone().acquire_owned().await.unwrap();
        let error = passwords.hash("correct horse".into()).await.unwrap_err();
        assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
        drop(slot);

        let passwords = Passwords::new(1, 1, Duration::from_secs(600));
        let _all = passwords.entries.try_acquire_many(2).unwrap();
        assert_eq!(passwords.hash("correct horse".into()).await.unwrap_err().code, Code::Unavailable);
    }
}
