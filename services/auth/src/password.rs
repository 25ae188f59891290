//! Passwords: the rules for new passwords, and their hashes. Hashes are computed outside the async threads, and never
//! more at once than there are cores.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use confab_common::metrics::LIMITS;
use confab_common::{Error, Result, text};
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};

use crate::hashing::Threads;
use crate::turns::{Ticket, Turn, Turns};
use crate::username;

/// Allowed lengths of a password, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;
/// How long a hash waits for its turn.
const TURN_WAIT_LIMIT: Duration = Duration::from_secs(5);
/// Compared with the password when the name has no account, so that such a login costs as much as a wrong password.
/// Also the hash of a deleted account, for replicas of the previous version.
pub const NO_ACCOUNT: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlzIQ$bm9ib2R5J3MgcGFzc3dvcmQgaGFzaGVzIHRvIHRoaXM";

/// In lower case, one per line.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("common_passwords.txt").lines().collect());

/// Returns the form in which a new password is hashed. Rejects a password that is too short, too long, or among the
/// first that an attacker tries.
///
/// # Errors
/// `invalid_request` for `field`.
pub fn check(field: &str, typed: &str, username: &str) -> Result<String> {
    let refuse = |why: String| Err(Error::field(field, why));
    let Some(password) = opaque(typed) else { return refuse("must not contain control characters".into()) };
    if password.chars().any(is_unusable) {
        return refuse("must not contain invisible or unassigned characters".into());
    }
    if !LENGTHS.contains(&password.len()) {
        return refuse(format!("must be {} to {} bytes", LENGTHS.start(), LENGTHS.end()));
    }
    let shown = password.chars().filter(|c| !is_joiner(*c)).collect::<String>();
    let folded = text::fold(shown.trim());
    if folded.chars().all(|c| c.is_whitespace() || text::is_blank(c)) {
        return refuse("must not be blank".into());
    }
    if COMMON.contains(folded.as_str()) {
        return refuse("is one of the most common passwords".into());
    }
    if folded == text::fold(username.trim()) || folded == username::folded(username) {
        return refuse("must not be the username".into());
    }
    Ok(password)
}

/// Returns whether the character is invisible alone and part of a visible character: a joiner or a variation selector,
/// as in emoji.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')
}

/// Returns whether no user types this character. RFC 8264 (9.6, 9.7, 9.11 to 9.13) rejects these, too.
fn is_unusable(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    matches!(category, GeneralCategory::Unassigned | GeneralCategory::PrivateUse)
        || (CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) && !is_joiner(c))
}

/// Returns the form of a password that is the same on every keyboard (RFC 8265, OpaqueString): composed, with ordinary
/// spaces. `None` when it has control characters.
fn opaque(typed: &str) -> Option<String> {
    if typed.chars().any(char::is_control) {
        return None;
    }
    let category = CodePointMapData::<GeneralCategory>::new();
    let spaced = typed
        .chars()
        .map(|c| if category.get(c) == GeneralCategory::SpaceSeparator { ' ' } else { c })
        .collect::<String>();
    Some(ComposingNormalizerBorrowed::new_nfc().normalize(&spaced).into_owned())
}

/// Hashes and verifies passwords with Argon2id. A hash takes 19 MiB and one core for tens of milliseconds.
pub struct Passwords {
    turns: Turns,
    threads: Threads,
    wait: Duration,
}

impl Passwords {
    /// Starts the hashing threads, one per core.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { turns: Turns::new(cores), threads: Threads::start(cores)?, wait: TURN_WAIT_LIMIT })
    }

    /// Waits for the right to compute one hash.
    ///
    /// # Errors
    /// `unavailable` when too many hashes wait, or after a wait of 5 s.
    pub async fn turn(&self, ticket: Ticket) -> Result<Turn> {
        let turn = tokio::time::timeout(self.wait, self.turns.take(ticket)).await;
        turn.unwrap_or_else(|_| Err(Error::unavailable("password checking")))
            .inspect_err(|_| LIMITS.hit("password_hashes"))
    }

    /// Hashes a password that [`check`] has returned, as a PHC string.
    ///
    /// # Errors
    /// Errors of the system.
    pub async fn hash(&self, turn: Turn, password: String) -> Result<String> {
        let work = move || argon2()?.hash_password(password.as_bytes()).map(|hash: PasswordHash| hash.to_string());
        self.threads.run(turn, work).await?.map_err(Error::internal)
    }

    /// Returns whether `hash` is the hash of the typed password. Earlier releases hashed the password without
    /// normalising it, so both forms are tried. Without a hash the answer is `false`, after the same work. If two
    /// hashes are computed, the second waits for its own turn.
    ///
    /// # Errors
    /// As [`turn`](Self::turn); `internal` when `hash` is malformed.
    pub async fn verify(&self, turn: Turn, ticket: Ticket, typed: String, hash: Option<String>) -> Result<bool> {
        let opaque = opaque(&typed).filter(|opaque| *opaque != typed);
        let Some(opaque) = opaque else { return self.matches(turn, typed, hash).await };
        Ok(self.matches(turn, opaque, hash.clone()).await?
            || self.matches(self.turn(ticket).await?, typed, hash).await?)
    }

    async fn matches(&self, turn: Turn, password: String, hash: Option<String>) -> Result<bool> {
        use argon2::password_hash::Error as HashError;
        let work = move || {
            let known = PasswordHash::new(hash.as_deref().unwrap_or(NO_ACCOUNT))?;
            match argon2()?.verify_password(password.as_bytes(), &known) {
                Err(HashError::PasswordInvalid) => Ok(false),
                verified => verified.map(|()| hash.is_some()),
            }
        };
        self.threads.run(turn, work).await?.map_err(|error: HashError| Error::internal(error))
    }
}

/// Argon2id with the first parameters that OWASP's cheat sheet recommends.
fn argon2() -> argon2::password_hash::Result<Argon2<'static>> {
    let params = Params::new(19_456, 2, 1, None).map_err(argon2::password_hash::Error::from)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use confab_common::Code;

    use super::*;

    const TICKET: Ticket =
        Ticket { address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), name: 0, is_known: false };

    #[test]
    fn checks() {
        for good in
            ["correct horse", &"x".repeat(256), "пароль", "\u{200D}👩\u{200D}🚀 🔑", "ada lovelace", "lovelaces"]
        {
            assert_eq!(check("password", good, "Lovelace").unwrap(), good);
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
            "\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}\u{200B}",
            "\u{200D}\u{200D}\u{200D}\u{200D}",
            "\u{2800}\u{2800} \u{2800}\u{2800}",
            "\u{3164}\u{3164}\u{3164}\u{3164}",
            "long\u{AD}enough",
            "long\u{FFFE}enough",
            "long\u{378}enough",
            "long\u{E000}enough",
            "long\u{E0061}enough",
            "lovelace\u{FEFF}",
            "love\u{200D}lace",
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
                check("password", bad, if bad.starts_with('Ｌ') { bad } else { " Lovelace" }).unwrap_err().fields[0]
                    .field,
                "password",
                "{bad:?}"
            );
        }
        assert!(check("password", "straßenbahn", "STRASSENBAHN").is_err());
    }

    #[test]
    fn password_is_the_same_on_every_keyboard() {
        assert_eq!(check("password", "cafe\u{301} au\u{A0}lait", "ada").unwrap(), "café au lait");
        assert_eq!(check("password", "ゆき\u{3000}ふる", "ada").unwrap(), "ゆき ふる");
        assert_eq!(check("password", "Case  and spaces ", "ada").unwrap(), "Case  and spaces ");
        assert_eq!(
            check("password", &"e\u{301}".repeat(128), "ada").unwrap().len(),
            256,
            "the length is that of the hashed form"
        );
        assert!(check("password", &"é".repeat(129), "ada").is_err());
    }

    #[test]
    fn common_passwords_have_an_allowed_length() {
        assert!(COMMON.len() >= 500, "{}", COMMON.len());
        for word in COMMON.iter() {
            assert!(LENGTHS.contains(&word.len()) && *word == text::fold(word.trim()), "{word:?}");
        }
    }

    async fn hashed(passwords: &Passwords, password: String) -> Result<String> {
        passwords.hash(passwords.turn(TICKET).await?, password).await
    }

    async fn verify(passwords: &Passwords, typed: String, hash: Option<String>) -> Result<bool> {
        passwords.verify(passwords.turn(TICKET).await?, TICKET, typed, hash).await
    }

    #[tokio::test]
    async fn hash_verifies_only_its_password() {
        let passwords = Passwords::start().unwrap();
        let hash = hashed(&passwords, "correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hashed(&passwords, "correct horse".into()).await.unwrap(), "salted");
        assert!(verify(&passwords, "correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!verify(&passwords, "Correct horse".into(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn passwords_verify_in_every_typed_and_hashed_form() {
        let passwords = Passwords::start().unwrap();
        let (composed, decomposed) = ("caf\u{e9} au lait", "cafe\u{301}\u{A0}au lait");
        let hash = hashed(&passwords, check("password", decomposed, "ada").unwrap()).await.unwrap();
        for typed in [composed, decomposed] {
            assert!(verify(&passwords, typed.into(), Some(hash.clone())).await.unwrap(), "{typed:?}");
        }
        // Earlier releases hashed passwords without normalising them.
        for typed in [decomposed, "tab\tinside"] {
            let hash = hashed(&passwords, typed.into()).await.unwrap();
            assert!(verify(&passwords, typed.into(), Some(hash.clone())).await.unwrap(), "{typed:?}");
            assert!(!verify(&passwords, composed.into(), Some(hash)).await.unwrap(), "{typed:?}");
        }
        assert!(!verify(&passwords, decomposed.into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn unknown_name_costs_as_much_as_a_wrong_password() {
        let passwords = Passwords::start().unwrap();
        assert!(!verify(&passwords, "correct horse".into(), None).await.unwrap());
        let (dummy, real) =
            (PasswordHash::new(NO_ACCOUNT).unwrap(), hashed(&passwords, "correct horse".into()).await.unwrap());
        let real = PasswordHash::new(&real).unwrap();
        let kind = |hash: &PasswordHash| (hash.algorithm.to_string(), hash.version, hash.params.to_string());
        assert_eq!(kind(&dummy), kind(&real));
        let lengths = |hash: &PasswordHash| (hash.salt.map(|s| s.len()), hash.hash.map(|h| h.len()));
        assert_eq!(lengths(&dummy), lengths(&real));
    }

    #[tokio::test]
    async fn hash_that_waits_too_long_is_rejected() {
        let passwords = Passwords { wait: Duration::from_millis(10), ..Passwords::start().unwrap() };
        let mut taken = Vec::new();
        let error = loop {
            match passwords.turn(TICKET).await {
                Ok(turn) => taken.push(turn),
                Err(error) => break error,
            }
        };
        assert_eq!((error.code, error.retry_after.is_some()), (Code::Unavailable, true));
    }
}
