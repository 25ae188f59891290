//! Converts domain types to gRPC messages.

use confab_proto::auth::v1;

use crate::service::{FoundUsers, Refresh, Session};
use crate::store::{Entry, ServerKey, State, StoredSession, User};

impl From<Session> for v1::Session {
    fn from(session: Session) -> Self {
        let Session { token, refresh, user } = session;
        let (refresh_token, refresh_expires_at_ms) = match refresh {
            Some(Refresh { token, expires_at_ms }) => (token.expose(), expires_at_ms),
            None => (String::new(), 0),
        };
        Self {
            token: token.text,
            expires_at_ms: token.expires_at_ms,
            user: Some(user.into()),
            refresh_token,
            refresh_expires_at_ms,
        }
    }
}

impl From<User> for v1::User {
    fn from(user: User) -> Self {
        let state = match user.state {
            State::Active => v1::AccountState::Active,
            State::Suspended => v1::AccountState::Suspended,
            State::Deleted => v1::AccountState::Deleted,
        };
        let (name, picture) = user.claimed.map(|claimed| (claimed.name, claimed.picture)).unwrap_or_default();
        // What the user has chosen takes precedence over the claims of the issuer.
        let picture = picture.filter(|_| user.profile.avatar_file_id.is_none());
        Self {
            id: user.id.to_string(),
            username: user.username,
            created_at_ms: user.created_at_ms,
            state: state.into(),
            display_name: user.profile.display_name.or(name).unwrap_or_default(),
            avatar_file_id: user.profile.avatar_file_id.map(|id| id.to_string()).unwrap_or_default(),
            data: user.profile.data,
            avatar_url: picture.unwrap_or_default(),
        }
    }
}

impl From<FoundUsers> for v1::SearchUsersResponse {
    fn from(found: FoundUsers) -> Self {
        let user = |(user, cursor): (User, String)| v1::FoundUser { user: Some(user.into()), cursor };
        Self { users: found.users.into_iter().map(user).collect(), next_cursor: found.next.unwrap_or_default() }
    }
}

impl From<StoredSession> for v1::SessionInfo {
    fn from(session: StoredSession) -> Self {
        Self {
            id: session.id.to_string(),
            created_at_ms: session.created_at_ms,
            last_seen_at_ms: session.last_seen_at_ms,
            user_agent: session.seen.user_agent,
            address: session.seen.address,
        }
    }
}

impl From<ServerKey> for v1::ServerKey {
    fn from(key: ServerKey) -> Self {
        let ServerKey { id, name, sha256, scopes, created_at_ms } = key;
        let scopes = scopes.names().map(str::to_owned).collect();
        Self { id: id.to_string(), name, scopes, created_at_ms, sha256: sha256.to_vec() }
    }
}

impl From<Entry> for v1::AuditEntry {
    fn from(entry: Entry) -> Self {
        let Entry { id, at_ms, actor, act, object, details } = entry;
        Self {
            id: id.to_string(),
            at_ms,
            key_id: actor.key_id.map(|id| id.to_string()).unwrap_or_default(),
            act,
            object,
            details: details.unwrap_or_default(),
            request_id: actor.request_id,
        }
    }
}
