//! Users and accounts.

use confab_common::Error;
use confab_proto::auth::v1::{Session, User, UserRef};
use serde::Serialize;
use utoipa::ToSchema;

use super::page::Time;

/// A reference to a user.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    pub id: &'a str,
    /// The username in the user's own spelling.
    pub username: &'a str,
}

impl<'a> From<&'a UserRef> for UserJson<'a> {
    fn from(user: &'a UserRef) -> Self {
        Self { id: &user.id, username: &user.username }
    }
}

/// An account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    username: &'a str,
    created_at: Time,
}

impl<'a> From<&'a User> for Account<'a> {
    fn from(user: &'a User) -> Self {
        Self { id: &user.id, username: &user.username, created_at: Time(user.created_at_ms) }
    }
}

/// A new token and the account that it belongs to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub struct Opened<'a> {
    /// The token, to be sent as `Authorization: Bearer …`.
    token: &'a str,
    /// Always `Bearer`.
    token_type: &'static str,
    expires_at: Time,
    user: Account<'a>,
}

impl<'a> TryFrom<&'a Session> for Opened<'a> {
    type Error = Error;

    fn try_from(session: &'a Session) -> Result<Self, Error> {
        let user = session.user.as_ref().ok_or_else(|| Error::internal("a session without a user"))?;
        Ok(Self {
            token: &session.token,
            token_type: "Bearer",
            expires_at: Time(session.expires_at_ms),
            user: user.into(),
        })
    }
}
