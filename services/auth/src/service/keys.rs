//! Server keys.

use confab_common::clock::now_ms;
use confab_common::{Code, Error, Result, Secret, text};
use confab_proto::server_key::{Scope, Scopes};
use serde_json::json;
use uuid::Uuid;

use super::Accounts;
use crate::secret::{server_key, sha256};
use crate::store::{Actor, Entry, ServerKey, Store};

/// Maximum number of server keys.
const MAX_KEYS: u32 = 100;
/// Maximum length of the name of a key, in characters.
const MAX_NAME: usize = 80;

/// A new server key, which is not stored and can be shown once.
pub struct NewKey {
    pub key: Secret,
    pub details: ServerKey,
}

impl Accounts {
    /// Creates a key that has these scopes, at most those of the key that acts.
    ///
    /// # Errors
    /// `invalid_request`; `unauthorized` when the key that acts is deleted; `forbidden` for a scope that it does not
    /// have; `conflict` when 100 keys exist.
    pub async fn create_key(&self, scopes: &[String], name: &str, actor: Actor) -> Result<NewKey> {
        let (scopes, name) = (parse(scopes)?, named(name)?);
        let own = match actor.key_id {
            Some(id) => self.store.key(id).await?,
            None => None,
        };
        let own = own.ok_or_else(deleted)?;
        if !scopes.is_within(own.scopes) {
            return Err(Error::new(Code::Forbidden, "a key can create only keys with its own scopes"));
        }
        create(self.store.as_ref(), scopes, name, actor).await
    }

    /// Returns all keys, the oldest first.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn keys(&self) -> Result<Vec<ServerKey>> {
        self.store.keys().await
    }

    /// Returns a key.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn key(&self, id: Uuid) -> Result<ServerKey> {
        self.store.key(id).await?.ok_or_else(|| Error::not_found("key"))
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delete_key(&self, id: Uuid, actor: Actor, operation: Option<Uuid>) -> Result<()> {
        let operations = self.store.operations();
        if self.store.key(id).await?.is_some() {
            operations.begin(operation, id).await?;
        }
        let deleted = self.store.delete_key(id, Entry::new(actor, "key.delete", id)).await?;
        // A repeat of the same operation finds the key deleted.
        if deleted || operations.has_begun(operation, id).await? { Ok(()) } else { Err(Error::not_found("key")) }
    }
}

/// Creates a key with any scopes, for an operator with a program on the server.
///
/// # Errors
/// `invalid_request`; `conflict` when 100 keys exist.
pub async fn create_key_as_operator(store: &dyn Store, scopes: &[String], name: &str) -> Result<NewKey> {
    create(store, parse(scopes)?, named(name)?, Actor::default()).await
}

async fn create(store: &dyn Store, scopes: Scopes, name: String, actor: Actor) -> Result<NewKey> {
    let id = Uuid::now_v7();
    let key = server_key(id)?;
    let details = ServerKey { id, name, sha256: sha256(key.as_bytes()), scopes, created_at_ms: now_ms() };
    let shown = json!({"name": details.name, "scopes": scopes.names().collect::<Vec<_>>()});
    let own = actor.key_id;
    let entry = Entry::new(actor, "key.create", id).with(&shown);
    if store.create_key(details.clone(), MAX_KEYS, entry).await? {
        return Ok(NewKey { key: Secret::from(key.as_str()), details });
    }
    match own {
        Some(own) if store.key(own).await?.is_none() => Err(deleted()),
        _ => Err(Error::new(Code::Conflict, format!("{MAX_KEYS} keys exist, the maximum; delete one first"))),
    }
}

fn deleted() -> Error {
    Error::new(Code::Unauthorized, "the token is not valid")
}

fn parse(scopes: &[String]) -> Result<Scopes> {
    let wrong = || {
        let names = Scope::ALL.map(Scope::name).join(", ");
        Error::field("scopes", format!("must be at least one of {names}"))
    };
    let parsed = scopes.iter().map(|name| Scope::parse(name).ok_or_else(wrong)).collect::<Result<Scopes>>()?;
    if parsed.is_empty() { Err(wrong()) } else { Ok(parsed) }
}

fn named(name: &str) -> Result<String> {
    if name.is_empty() { Ok(String::new()) } else { text::name("name", name, MAX_NAME) }
}
