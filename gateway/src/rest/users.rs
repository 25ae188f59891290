//! Users in paths.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use confab_common::{Code, Error, Result, text};
use confab_identity::tokens::Identity;
use confab_proto::auth::v1::{AccountState, GetUserRequest, UserRef};
use uuid::Uuid;

use super::Deadline;
use super::extract::needs_user;
use crate::App;
use crate::config::UserDirectory;
use crate::limits::{Act, RequestLimits};

/// Longest username that is looked up, in bytes.
const MAX_USERNAME: usize = 256;

/// The user in a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UserPath {
    /// `me`: the caller.
    Me,
    Id(Uuid),
    /// `@` and a username.
    Name(String),
    /// A malformed id or name, which no user has.
    Unknown,
}

impl UserPath {
    pub fn of(text: &str) -> Self {
        match text.strip_prefix('@') {
            Some(name) if name.is_empty() || name.len() > MAX_USERNAME || name.contains('\0') => Self::Unknown,
            Some(name) => Self::Name(name.to_owned()),
            None if text == "me" => Self::Me,
            None => text::id("userId", text).map_or(Self::Unknown, Self::Id),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UserPath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let path = RawPathParams::from_request_parts(parts, state).await.ok();
        let user = path.as_ref().and_then(|path| path.iter().find(|(key, _)| *key == "userId"));
        Ok(user.map_or(Self::Unknown, |(_, text)| Self::of(text)))
    }
}

/// The user in a path, with the user's current name; `me` is the user who makes the request. `None` when there is no
/// such user. The answer shows whether a user exists, also one that the directory hides from the caller. So a name counts
/// as a look-up, in the same limit as the directory; with a directory that hides users, another user's id counts, too.
///
/// # Errors
/// `invalid_request` for `me` without a user; `rate_limited`; when the auth service does not answer.
pub(super) async fn resolve_user(
    app: &App,
    deadline: &Deadline,
    limits: &RequestLimits,
    me: Option<&Identity>,
    path: &UserPath,
) -> Result<Option<UserRef>> {
    let ask = match path {
        UserPath::Me => return me.map(|me| Some(me.user.clone())).ok_or_else(needs_user),
        UserPath::Unknown => return Ok(None),
        UserPath::Id(id) => GetUserRequest { id: id.to_string(), ..GetUserRequest::default() },
        UserPath::Name(name) => GetUserRequest { username: name.clone(), ..GetUserRequest::default() },
    };
    // Server keys without a user are not limited.
    if let Some(me) = me.filter(|me| is_look_up(app.directory, me, path)) {
        limits.check(Act::UserDirectory, me.user_id).await?;
    }
    match app.clients.auth.clone().get_user(deadline.reading(ask)).await.map_err(Error::from) {
        Ok(user) => {
            let user = user.into_inner();
            let exists = user.state() != AccountState::Deleted;
            Ok(exists.then_some(UserRef { id: user.id, username: user.username }))
        }
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a path of this user shows something that the user cannot know from the id alone.
fn is_look_up(directory: UserDirectory, me: &Identity, path: &UserPath) -> bool {
    match path {
        UserPath::Id(id) => directory == UserDirectory::Shared && *id != me.user_id,
        UserPath::Name(_) => true,
        UserPath::Me | UserPath::Unknown => false,
    }
}

/// The id of the user in a path; empty when there is no such user. Only a name is looked up: an id is returned also if
/// no user has it.
///
/// # Errors
/// As [`resolve_user`].
pub(super) async fn resolve_id(
    app: &App,
    deadline: &Deadline,
    limits: &RequestLimits,
    me: Option<&Identity>,
    path: &UserPath,
) -> Result<String> {
    match path {
        UserPath::Id(id) => Ok(id.to_string()),
        _ => Ok(resolve_user(app, deadline, limits, me, path).await?.map(|user| user.id).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_users_by_id_name_or_me() {
        let id = Uuid::now_v7();
        assert_eq!(UserPath::of(&id.to_string()), UserPath::Id(id));
        assert_eq!((UserPath::of("me"), UserPath::of("@me")), (UserPath::Me, UserPath::Name("me".into())));
        assert_eq!(UserPath::of("@Zoë"), UserPath::Name("Zoë".into()));
        let long = format!("@{}", "x".repeat(MAX_USERNAME + 1));
        for unknown in ["", "Me", "@", "zoë", "@a\0b", &id.simple().to_string(), &long] {
            assert_eq!(UserPath::of(unknown), UserPath::Unknown, "{unknown}");
        }
    }
}
