//! The rules of accounts and sessions.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result, text};
use moka::future::Cache;
use uuid::Uuid;

use crate::password::{self, Passwords};
use crate::publish::Publisher;
use crate::store::{Revocations, Store, User};
use crate::token::{LIFE, Token, Tokens};
use crate::turns::Ticket;
use crate::username::{self, Username};

/// Maximum revocations in one answer.
const MAX_REVOCATIONS: u32 = 1000;
/// Maximum revocations that one statement purges, so that the statement stays short.
const PURGE_BATCH: u32 = 1000;
/// Maximum accounts that one statement gives skeletons.
const FILL_BATCH: u32 = 500;
/// How long after its expiry a gateway may still accept a token, because of leeway or a slow clock.
const LEEWAY_MS: i64 = 60_000;
/// How long the service remembers a client that has logged in to an account.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Maximum clients that the service remembers; each takes about 150 bytes.
const MAX_KNOWN: u64 = 100_000;
/// Maximum length of a typed name or password before it is normalised, in bytes.
const MAX_TYPED: usize = 1024;

/// A new session.
pub struct Session {
    pub token: Token,
    /// The user of the session.
    pub user: User,
}

/// Accounts and their sessions.
pub struct Accounts {
    store: Arc<dyn Store>,
    passwords: Passwords,
    tokens: Tokens,
    publisher: Publisher,
    /// The addresses and names of recent logins. Only a login with the correct password adds an entry.
    known: Cache<(IpAddr, u64), ()>,
    hasher: RandomState,
}

impl Accounts {
    pub fn new(store: Arc<dyn Store>, passwords: Passwords, tokens: Tokens, publisher: Publisher) -> Self {
        let known = Cache::builder().max_capacity(MAX_KNOWN).time_to_live(KNOWN_FOR).build();
        Self { store, passwords, tokens, publisher, known, hasher: RandomState::new() }
    }

    /// Creates an account and its first session. A repeat with the same id, name and password opens another session.
    ///
    /// # Errors
    /// `invalid_request`; `username_taken`; `conflict` when the id belongs to another account; `unavailable` when too
    /// many hashes wait.
    pub async fn signup(&self, id: Option<Uuid>, username: &str, password: String, address: IpAddr) -> Result<Session> {
        let (Username { kept, folded }, hashable) = check(username, &password)?;
        let id = id.unwrap_or_else(Uuid::now_v7);
        if let Some(first) = self.store.user(id).await? {
            return self.repeat(first, &folded, password, address).await;
        }
        // Checked first, so that a rejection does not cost a hash.
        if self.named(username).await?.is_some_and(|other| other.id != id) {
            return Err(Error::new(Code::UsernameTaken, "this username is taken"));
        }
        let turn = self.passwords.turn(self.ticket(address, &folded)).await?;
        let password_hash = self.passwords.hash(turn, hashable).await?;
        let user = User { id, username: kept, username_folded: folded.clone(), password_hash, created_at_ms: now_ms() };
        let stored = self.store.create_user(user.clone(), username::skeleton(&user.username)).await?;
        if stored == user {
            self.open(stored, address).await
        } else {
            self.repeat(stored, &folded, password, address).await
        }
    }

    /// Opens a session.
    ///
    /// # Errors
    /// `invalid_credentials` for an unknown name and for a wrong password alike, after the same work.
    pub async fn login(&self, username: &str, password: String, address: IpAddr) -> Result<Session> {
        within_bounds(username, &password)?;
        text::no_nul("username", username)?;
        text::no_nul("password", &password)?;
        let ticket = self.ticket(address, &username::folded(username));
        // Before any other work: during a flood, a rejected login must cost next to nothing.
        let turn = self.passwords.turn(ticket).await?;
        let user = self.named(username).await?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        match (self.passwords.verify(turn, ticket, password, hash).await?, user) {
            (true, Some(user)) => self.open(user, address).await,
            _ => Err(Error::new(Code::InvalidCredentials, "wrong username or password")),
        }
    }

    /// Revokes a session permanently and announces the revocation; a repeat announces it again. No token lives longer
    /// than [`LIFE`], so a revocation with a later expiry is kept only for that long.
    ///
    /// # Errors
    /// `invalid_request` when the expiry is missing.
    pub async fn logout(&self, session_id: Uuid, user_id: Uuid, expires_at_ms: i64) -> Result<()> {
        if expires_at_ms <= 0 {
            return Err(Error::field("expiresAtMs", "must be the token's expiry"));
        }
        let revocation = self.store.revoke(session_id, user_id, expires_at_ms.min(latest_expiry())).await?;
        self.publisher.revoked(revocation);
        Ok(())
    }

    /// Returns one account.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn user(&self, id: Uuid) -> Result<User> {
        self.store.user(id).await?.ok_or_else(|| Error::not_found("user"))
    }

    /// Returns the public keys as a JSON Web Key Set.
    pub fn jwks(&self) -> &str {
        self.tokens.jwks()
    }

    /// Returns up to `limit` revocations with numbers above `after`; 0 stands for the maximum, 1000.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn revocations(&self, after: u64, limit: u32) -> Result<Revocations> {
        let limit = if limit == 0 { MAX_REVOCATIONS } else { limit.min(MAX_REVOCATIONS) };
        self.store.revocations(after, limit).await
    }

    /// Finds the account of a typed name. The folded form of earlier releases is tried first: it distinguishes more
    /// names, and an account created under it has no other form.
    async fn named(&self, typed: &str) -> Result<Option<User>> {
        let (folded, former) = (username::folded(typed), username::former(typed));
        if former != folded
            && let Some(user) = self.store.user_by_name(former).await?
        {
            return Ok(Some(user));
        }
        self.store.user_by_name(folded).await
    }

    /// Answers a signup whose id belongs to an account: a retry of the signup, or a misuse of the id.
    async fn repeat(&self, first: User, folded: &str, password: String, address: IpAddr) -> Result<Session> {
        if username::folded(&first.username) == folded {
            let ticket = self.ticket(address, folded);
            let turn = self.passwords.turn(ticket).await?;
            if self.passwords.verify(turn, ticket, password, Some(first.password_hash.clone())).await? {
                return self.open(first, address).await;
            }
        }
        Err(Error::new(Code::Conflict, "that id belongs to another account"))
    }

    /// Returns the key that identifies this client in the login queue. Whether the name has an account must not
    /// influence its turn.
    fn ticket(&self, address: IpAddr, folded: &str) -> Ticket {
        let name = self.hasher.hash_one(folded);
        Ticket { address, name, is_known: self.known.contains_key(&(address, name)) }
    }

    async fn open(&self, user: User, address: IpAddr) -> Result<Session> {
        self.known.insert((address, self.hasher.hash_one(username::folded(&user.username))), ()).await;
        let token = self.tokens.issue(user.id, &user.username, now_ms() / 1000)?;
        Ok(Session { token, user })
    }
}

/// Returns the latest expiry that a token can have now.
fn latest_expiry() -> i64 {
    now_ms().saturating_add(LIFE.end().as_millis() as i64)
}

/// Deletes the revocations of expired tokens and returns their number.
///
/// # Errors
/// Errors of the store.
pub async fn purge(store: &dyn Store) -> Result<u64> {
    // An earlier release stored every expiry without a limit.
    store.shorten(latest_expiry()).await?;
    let mut purged = 0;
    loop {
        let batch = store.purge(now_ms() - LEEWAY_MS, PURGE_BATCH).await?;
        purged += batch;
        if batch < u64::from(PURGE_BATCH) {
            return Ok(purged);
        }
    }
}

/// Stores the skeletons of accounts that an earlier release created without one, and returns the number of skeletons.
/// If two accounts look alike, the older account gets the skeleton, and both accounts remain usable.
///
/// # Errors
/// Errors of the store.
pub async fn fill_skeletons(store: &dyn Store) -> Result<u64> {
    let (mut filled, mut after) = (0, Uuid::nil());
    loop {
        let accounts = store.without_skeleton(after, FILL_BATCH).await?;
        let Some((last, _)) = accounts.last() else { return Ok(filled) };
        after = *last;
        let skeleton = |(id, name): (Uuid, String)| (id, username::skeleton(&name));
        filled += store.fill_skeletons(accounts.into_iter().map(skeleton).collect()).await?;
    }
}

/// Rejects texts far longer than any name or password before any work is done on them, because normalising costs time.
fn within_bounds(username: &str, password: &str) -> Result<()> {
    let fields = [("username", username.len()), ("password", password.len())];
    match fields.iter().find(|(_, bytes)| *bytes > MAX_TYPED) {
        Some((field, _)) => Err(Error::field(field, format!("must be at most {MAX_TYPED} bytes"))),
        None => Ok(()),
    }
}

/// Returns the name, and the form in which the password is hashed. The error names every invalid field.
fn check(username: &str, password: &str) -> Result<(Username, String)> {
    within_bounds(username, password)?;
    match (Username::parse(username), password::check(password, username)) {
        (Ok(username), Ok(password)) => Ok((username, password)),
        (Err(mut error), Err(other)) => {
            error.fields.extend(other.fields);
            Err(error)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_every_invalid_field() {
        let fields = check("a", "b").unwrap_err().fields;
        assert_eq!(fields.iter().map(|field| field.field.as_str()).collect::<Vec<_>>(), ["username", "password"]);
    }
}
