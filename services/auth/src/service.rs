//! The rules of accounts and sessions.

mod audit;
mod claims;
mod directory;
mod invites;
mod keys;
mod lifecycle;
mod passwords;
mod profiles;
mod sessions;
mod upkeep;
mod users;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result, text};
use moka::future::Cache;
use tokio::time::sleep;
use uuid::Uuid;

use crate::client::Client;
use crate::config::SignupMode;
use crate::cursors::CursorKeys;
use crate::password::{self, Passwords};
use crate::publish::Publisher;
use crate::refresh::{RefreshKeys, RefreshToken};
use crate::store::{
    NewSession, Profile, Refreshable, Revocation, Seen, State, Store, User, name_taken, wrong_credentials,
};
use crate::token::{LIFE, Lifetimes, Token, Tokens};
use crate::turns::Ticket;
use crate::username::{self, Username};

pub use claims::Claims;
pub use directory::{FoundUsers, renew_names};
pub use keys::{NewKey, create_key_as_operator};
pub use passwords::create_reset;
pub use profiles::Change;
pub use upkeep::{fill_skeletons, purge};

/// How long the service remembers a client that has logged in to an account.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Maximum clients that the service remembers; each takes about 150 bytes.
const MAX_KNOWN: u64 = 100_000;
/// Maximum length of a typed name or password before it is normalised, in bytes.
const MAX_TYPED: usize = 1024;
/// How long a login waits at most for the second from which tokens of the user are valid, in milliseconds.
const MAX_WAIT_MS: i64 = 1100;

/// A request to create an account.
pub struct Signup {
    /// The id that the caller has created.
    pub id: Option<Uuid>,
    pub username: String,
    pub password: String,
    /// The code of an invite; empty: none.
    pub invite_code: String,
    /// Whether the client requests refresh tokens.
    pub refresh: bool,
    pub client: Client,
}

/// A session and its newest tokens.
pub struct Session {
    pub token: Token,
    pub refresh: Option<Refresh>,
    /// The user of the session.
    pub user: User,
}

/// The refresh token of a session.
pub struct Refresh {
    pub token: RefreshToken,
    pub expires_at_ms: i64,
}

/// The issuer of tokens.
pub struct Issuer {
    pub tokens: Tokens,
    pub refresh_keys: RefreshKeys,
    pub lifetimes: Lifetimes,
}

/// Accounts and their sessions.
pub struct Accounts {
    store: Arc<dyn Store>,
    passwords: Passwords,
    issuer: Issuer,
    cursors: CursorKeys,
    signup: SignupMode,
    publisher: Publisher,
    /// The addresses and names of recent logins. Only a login with the correct password adds an entry.
    known: Cache<(IpAddr, u64), ()>,
    hasher: RandomState,
}

impl Accounts {
    pub fn new(
        store: Arc<dyn Store>,
        passwords: Passwords,
        issuer: Issuer,
        cursors: CursorKeys,
        signup: SignupMode,
        publisher: Publisher,
    ) -> Self {
        let known = Cache::builder().max_capacity(MAX_KNOWN).time_to_live(KNOWN_FOR).build();
        Self { store, passwords, issuer, cursors, signup, publisher, known, hasher: RandomState::new() }
    }

    /// Creates an account and its first session. A repeat with the same id, name and password opens another session.
    ///
    /// # Errors
    /// `invalid_request`; `forbidden` when signup is off, or needs an invite and has none; `username_taken`; `conflict`
    /// when the id belongs to another account; `unavailable` when too many hashes wait.
    pub async fn signup(&self, given: Signup) -> Result<Session> {
        let Signup { id, username, password, invite_code, refresh, client } = given;
        let (Username { kept, folded }, hashable) = check(&username, &password)?;
        if id.is_some_and(claims::is_of_issuer) {
            return Err(Error::field("userId", "must be a UUIDv7"));
        }
        let id = id.unwrap_or_else(Uuid::now_v7);
        if let Some(first) = self.store.user(id).await? {
            return self.repeat(first, &folded, password, refresh, &client).await;
        }
        // Checked first, so that a rejection does not cost a hash.
        let invite = self.admit(&invite_code).await?;
        if named(self.store.as_ref(), &username).await?.is_some_and(|other| other.id != id) {
            return Err(name_taken());
        }
        let turn = self.passwords.turn(self.ticket(client.address, &folded)).await?;
        let user = User {
            id,
            username: kept,
            username_folded: folded.clone(),
            password_hash: self.passwords.hash(turn, hashable).await?,
            created_at_ms: now_ms(),
            state: State::Active,
            profile: Profile::default(),
            claimed: None,
        };
        let stored = self.store.create_user(user.clone(), username::skeleton(&user.username), invite, None).await?;
        if stored == user {
            self.open(stored, refresh, &client).await
        } else {
            self.repeat(stored, &folded, password, refresh, &client).await
        }
    }

    /// Opens a session.
    ///
    /// # Errors
    /// `invalid_credentials` for an unknown name and for a wrong password alike, after the same work; `forbidden` for
    /// the correct password of a suspended account.
    pub async fn login(&self, username: &str, password: String, refresh: bool, client: &Client) -> Result<Session> {
        within_bounds(&[("username", username), ("password", &password)])?;
        text::no_nul("username", username)?;
        text::no_nul("password", &password)?;
        let ticket = self.ticket(client.address, &username::folded(username));
        // Before any other work: during a flood, a rejected login must cost next to nothing.
        let turn = self.passwords.turn(ticket).await?;
        // A deleted account is an unknown name.
        let user = named(self.store.as_ref(), username).await?.filter(|user| user.state != State::Deleted);
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        match (self.passwords.verify(turn, ticket, password, hash).await?, user) {
            (true, Some(user)) => self.open(user, refresh, client).await,
            _ => Err(wrong_credentials()),
        }
    }

    /// Returns the public keys as a JSON Web Key Set.
    pub fn jwks(&self) -> &str {
        self.issuer.tokens.jwks()
    }

    /// Answers a signup whose id belongs to an account: a retry of the signup, or a misuse of the id.
    async fn repeat(
        &self,
        first: User,
        folded: &str,
        password: String,
        refresh: bool,
        client: &Client,
    ) -> Result<Session> {
        if first.state != State::Deleted && username::folded(&first.username) == folded {
            let ticket = self.ticket(client.address, folded);
            let turn = self.passwords.turn(ticket).await?;
            if self.passwords.verify(turn, ticket, password, Some(first.password_hash.clone())).await? {
                return self.open(first, refresh, client).await;
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

    /// Opens a session of a user whose password was verified against the account's hash.
    async fn open(&self, user: User, refreshable: bool, client: &Client) -> Result<Session> {
        let (id, now_ms) = (Uuid::now_v7(), now_ms());
        let (life, expires_at_ms) = (self.issuer.lifetimes.of_token(refreshable), self.refresh_expiry(now_ms));
        let first = if refreshable { Some(self.issuer.refresh_keys.first(id)?) } else { None };
        let refresh = first.as_ref().map(|token| Refreshable { token_sha256: token.sha256(), expires_at_ms });
        let session = NewSession {
            id,
            user_id: user.id,
            created_at_ms: now_ms,
            token_expires_at_ms: now_ms.saturating_add(life.as_millis() as i64),
            refresh,
            seen: seen(client),
            entry: None,
        };
        let opened = self.store.open_session(session, user.password_hash.clone()).await?;
        self.announce(&opened.revoked);
        self.known.insert((client.address, self.hasher.hash_one(username::folded(&user.username))), ()).await;
        let issued_at = time_of_issue(opened.tokens_from_s).await;
        let token = self.issuer.tokens.issue(user.id, &user.username, id, issued_at, life)?;
        Ok(Session { token, refresh: first.map(|token| Refresh { token, expires_at_ms }), user })
    }

    /// Returns when a refresh token expires that a client receives now and does not use.
    fn refresh_expiry(&self, now_ms: i64) -> i64 {
        now_ms.saturating_add(self.issuer.lifetimes.refresh.as_millis() as i64)
    }

    /// Announces committed revocations.
    fn announce(&self, revocations: &[Revocation]) {
        revocations.iter().for_each(|revocation| self.publisher.revoked(revocation.clone()));
    }
}

/// Finds the account of a typed name. The folded form of earlier releases is tried first: it distinguishes more names,
/// and an account created under it has no other form.
async fn named(store: &dyn Store, typed: &str) -> Result<Option<User>> {
    let (folded, former) = (username::folded(typed), username::former(typed));
    if former != folded
        && let Some(user) = store.user_by_name(former).await?
    {
        return Ok(Some(user));
    }
    store.user_by_name(folded).await
}

fn seen(client: &Client) -> Seen {
    Seen { user_agent: client.user_agent.clone(), address: client.network() }
}

/// Returns the time of issue of a token, in seconds since the Unix epoch. Times of issue are whole seconds, and earlier
/// ones than `from_s` are revoked. So a login in the second in which a user ended all sessions waits for the next one.
async fn time_of_issue(from_s: i64) -> i64 {
    let early_ms = from_s.saturating_mul(1000).saturating_sub(now_ms()).clamp(0, MAX_WAIT_MS);
    if early_ms > 0 {
        sleep(Duration::from_millis(early_ms as u64)).await;
    }
    (now_ms() / 1000).max(from_s)
}

/// Returns the latest expiry that a token can have now.
fn latest_expiry() -> i64 {
    now_ms().saturating_add(LIFE.end().as_millis() as i64)
}

/// Rejects texts far longer than any name or password before any work is done on them, because normalising costs time.
fn within_bounds(fields: &[(&str, &str)]) -> Result<()> {
    match fields.iter().find(|(_, text)| text.len() > MAX_TYPED) {
        Some((field, _)) => Err(Error::field(field, format!("must be at most {MAX_TYPED} bytes"))),
        None => Ok(()),
    }
}

/// Returns the name, and the form in which the password is hashed. The error names every invalid field.
fn check(username: &str, password: &str) -> Result<(Username, String)> {
    within_bounds(&[("username", username), ("password", password)])?;
    match (Username::parse(username), password::check("password", password, username)) {
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

    #[tokio::test]
    async fn no_token_is_issued_before_its_user_may_have_it() {
        let now = now_ms() / 1000;
        for from in [0, now, now + 1] {
            let issued = time_of_issue(from).await;
            assert!(issued >= from && issued >= now && now_ms() / 1000 >= from, "{issued} {from}");
        }
        assert_eq!(time_of_issue(now + 100).await, now + 100, "the clocks of two replicas differ");
    }
}
