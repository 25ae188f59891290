//! Server keys in requests: verification, the scope of the route, and the user in `Confab-User`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::header::ORIGIN;
use axum::http::request::Parts;
use confab_common::{Code, Error, Result, text};
use confab_identity::credential::Credential;
use confab_identity::server_keys::ServerKey;
use confab_identity::tokens::{Identity, refused};
use confab_proto::server_key::{Scope, id_of};
use confab_socketio::net::ClientAddress;
use uuid::Uuid;

use super::actor::{Actor, CONFAB_USER, Key, unauthorized};
use crate::App;
use crate::edge;
use crate::limits::RequestLimits;

/// The scope that a server key needs for a route, by the first path that the route equals or continues. A server key
/// may call no other route.
const SCOPES: [(&str, Scope); 17] = [
    ("/api/admin/keys", Scope::Keys),
    ("/api/admin/tokens", Scope::Tokens),
    ("/api/admin/audit", Scope::Audit),
    ("/api/admin/users", Scope::Users),
    ("/api/admin/invites", Scope::Users),
    ("/api/users", Scope::Users),
    ("/api/rooms/{roomId}/messages", Scope::Messages),
    ("/api/rooms/{roomId}/pins", Scope::Messages),
    ("/api/rooms/{roomId}/changes", Scope::Messages),
    ("/api/rooms/{roomId}/read", Scope::Messages),
    ("/api/rooms/{roomId}/reads", Scope::Messages),
    ("/api/rooms/{roomId}/notify", Scope::Messages),
    ("/api/rooms", Scope::Rooms),
    ("/api/messages", Scope::Messages),
    ("/api/files", Scope::Messages),
    ("/api/unread", Scope::Messages),
    ("/api/search", Scope::Messages),
];

/// Verifies a server key, and decides on whose behalf it acts.
///
/// # Errors
/// `unauthorized` for a key that is malformed, unknown or deleted, on a route without a scope, and for a request of a
/// web page; `rate_limited` after too many wrong keys; `forbidden` without the scope of the route, and for a suspended
/// user; `not_found` for an unknown or deleted user; `unavailable` when auth does not answer.
pub(super) async fn actor_of_key(parts: &mut Parts, app: &Arc<App>, text: &str) -> Result<Actor> {
    if parts.headers.contains_key(ORIGIN) {
        return Err(unauthorized("a server key must not be sent by a web page"));
    }
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let scope = scope_of(route).ok_or_else(|| unauthorized("a user's token is needed; server keys may not do this"))?;
    let known = verified(parts, app, text).await?;
    if !known.scopes.contains(scope) {
        return Err(Error::new(Code::Forbidden, "the server key does not have the scope of this operation"));
    }
    let request_id = parts.extensions.get::<edge::Context>().map(edge::Context::request_id).unwrap_or_default();
    let (request_id, credential) = (request_id.to_owned(), Credential::of_key(text, None));
    let key = Key { id: known.id, scopes: known.scopes, request_id, credential };
    let Some(id) = named_user(parts)? else { return Ok(Actor::Key(key)) };
    let user = app.acting.find(id).await?;
    app.audit.record_acting(key.id, id, key.by()).await?;
    // Not a sign-in: routes with a scope read only the user.
    let credential = Credential::of_key(text, Some(id));
    let user = Identity { user_id: id, user, session_id: Uuid::nil(), issued_at: 0, expires_at: i64::MAX, credential };
    Ok(Actor::UserOfKey { user, key })
}

async fn verified(parts: &mut Parts, app: &Arc<App>, text: &str) -> Result<Arc<ServerKey>> {
    let id = id_of(text).ok_or_else(refused)?;
    // Not a guess: the whole key was right in auth's last answer.
    if app.keys.last(id).await.is_some_and(|key| key.is(text)) {
        return app.keys.find(id).await?.filter(|key| key.is(text)).ok_or_else(refused);
    }
    let limits = RequestLimits::from_request_parts(parts, app).await.map_err(|problem| problem.0)?;
    let Ok(address) = ClientAddress::from_request_parts(parts, app).await;
    let attempt = limits.key_attempt(address).await?;
    match app.keys.find(id).await? {
        Some(key) if key.is(text) => Ok(key),
        _ => {
            attempt.failed().await;
            Err(refused())
        }
    }
}

/// The user in the header. A malformed id belongs to no user.
fn named_user(parts: &Parts) -> Result<Option<Uuid>> {
    let mut named = parts.headers.get_all(CONFAB_USER).iter();
    let Some(user) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(Error::field(CONFAB_USER, "must be given once"));
    }
    let id = user.to_str().ok().and_then(|user| text::id(CONFAB_USER, user.trim()).ok());
    id.map(Some).ok_or_else(|| Error::not_found("user"))
}

/// The scope that a server key needs for a route.
fn scope_of(route: &str) -> Option<Scope> {
    let covers = |path: &str| route.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    SCOPES.iter().find(|(path, _)| covers(path)).map(|(_, scope)| *scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_has_one_scope() {
        for (route, scope) in [
            ("/api/admin/keys", Some(Scope::Keys)),
            ("/api/admin/keys/{keyId}", Some(Scope::Keys)),
            ("/api/admin/keysx", None),
            ("/api/admin", None),
            ("/api/admin/tokens", Some(Scope::Tokens)),
            ("/api/admin/audit", Some(Scope::Audit)),
            ("/api/admin/invites", Some(Scope::Users)),
            ("/api/admin/users/{userId}/suspend", Some(Scope::Users)),
            ("/api/users", Some(Scope::Users)),
            ("/api/users/{userId}", Some(Scope::Users)),
            ("/api/usersx", None),
            ("/api/rooms", Some(Scope::Rooms)),
            ("/api/rooms/{roomId}/members/{userId}", Some(Scope::Rooms)),
            ("/api/rooms/{roomId}/messages", Some(Scope::Messages)),
            ("/api/rooms/{roomId}/messages/{seq}/pin", Some(Scope::Messages)),
            ("/api/rooms/{roomId}/pins", Some(Scope::Messages)),
            ("/api/rooms/{roomId}/changes", Some(Scope::Messages)),
            ("/api/messages/{roomId}", Some(Scope::Messages)),
            ("/api/files/{fileId}/link", Some(Scope::Messages)),
            ("/api/search", Some(Scope::Messages)),
            ("/api/roomsx", None),
            ("/api/auth/me", None),
            ("/api/auth/sessions/{sessionId}", None),
            ("/api/avatars/{fileId}", None),
            ("", None),
        ] {
            assert_eq!(scope_of(route), scope, "{route}");
        }
    }

    #[test]
    fn the_header_names_one_user() {
        let named = |values: &[&str]| {
            let mut parts = axum::http::Request::new(()).into_parts().0;
            for value in values {
                parts.headers.append("confab-user", value.parse().unwrap());
            }
            named_user(&parts).map_err(|error| error.code)
        };
        let id = Uuid::from_u128(7);
        assert_eq!((named(&[]), named(&[&id.to_string()])), (Ok(None), Ok(Some(id))));
        assert_eq!(named(&[&id.to_string(), &id.to_string()]), Err(Code::InvalidRequest));
        for unknown in ["", "me", "@zoë", &id.simple().to_string()] {
            assert_eq!(named(&[unknown]), Err(Code::NotFound), "{unknown}");
        }
    }
}
