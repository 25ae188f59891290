//! Users and accounts.

use confab_common::Error;
use confab_proto::auth::v1::{Session, SessionInfo, User, UserRef};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::page::Time;

/// A reference to a user.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserJson<'a> {
    /// UUIDv7; UUIDv5 for a user of the app's own issuer.
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

/// A user as other users see them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Profile)]
pub struct ProfileJson<'a> {
    /// UUIDv7; UUIDv5 for a user of the app's own issuer.
    #[schema(format = "uuid")]
    id: &'a str,
    /// The current username, in the user's own spelling.
    username: &'a str,
    /// The name that clients show; null if the user has none.
    #[schema(required)]
    display_name: Option<&'a str>,
    /// The URL of the user's picture, which may be relative to this server; null if the user has none.
    #[schema(required, value_type = Option<String>, format = "uri-reference")]
    avatar_url: Option<AvatarUrl<'a>>,
}

impl<'a> From<&'a User> for ProfileJson<'a> {
    fn from(user: &'a User) -> Self {
        let given = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        Self {
            id: &user.id,
            username: &user.username,
            display_name: given(&user.display_name),
            avatar_url: match given(&user.avatar_file_id) {
                Some(file) => Some(AvatarUrl::File(file)),
                None => given(&user.avatar_url).map(AvatarUrl::Elsewhere),
            },
        }
    }
}

/// An account.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account<'a> {
    /// UUIDv7; UUIDv5 for a user of the app's own issuer.
    #[schema(format = "uuid")]
    id: &'a str,
    username: &'a str,
    /// The name that clients show; null if the user chose none.
    #[schema(required)]
    display_name: Option<&'a str>,
    /// The URL of the user's picture, which may be relative to this server; null if the user has none.
    #[schema(required, value_type = Option<String>, format = "uri-reference")]
    avatar_url: Option<AvatarUrl<'a>>,
    /// The object that the app stores for the user.
    #[schema(value_type = Object)]
    data: &'a RawValue,
    created_at: Time,
}

impl<'a> From<&'a User> for Account<'a> {
    fn from(user: &'a User) -> Self {
        let ProfileJson { id, username, display_name, avatar_url } = user.into();
        Self {
            id,
            username,
            display_name,
            avatar_url,
            // An auth service of the previous version leaves it empty.
            data: serde_json::from_str(&user.data).or_else(|_| serde_json::from_str("{}")).unwrap_or(RawValue::NULL),
            created_at: Time(user.created_at_ms),
        }
    }
}

/// The URL of a picture.
enum AvatarUrl<'a> {
    /// Of this file, relative to this server.
    File(&'a str),
    /// The URL in a token of the app's own issuer.
    Elsewhere(&'a str),
}

impl Serialize for AvatarUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(file) => serializer.collect_str(&format_args!("/api/avatars/{file}")),
            Self::Elsewhere(url) => serializer.serialize_str(url),
        }
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
    /// The token for `POST /api/auth/refresh`; only present if the client requested it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refresh_token: Option<&'a str>,
    /// When the refresh token expires if the client does not use it; only present with a refresh token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    refresh_expires_at: Option<Time>,
    user: Account<'a>,
}

impl<'a> TryFrom<&'a Session> for Opened<'a> {
    type Error = Error;

    fn try_from(session: &'a Session) -> Result<Self, Error> {
        let user = session.user.as_ref().ok_or_else(|| Error::internal("a session without a user"))?;
        let refresh_token = Some(session.refresh_token.as_str()).filter(|token| !token.is_empty());
        Ok(Self {
            token: &session.token,
            token_type: "Bearer",
            expires_at: Time(session.expires_at_ms),
            refresh_token,
            refresh_expires_at: refresh_token.map(|_| Time(session.refresh_expires_at_ms)),
            user: user.into(),
        })
    }
}

/// The sessions of a user.
#[derive(Serialize, ToSchema)]
pub struct Sessions<'a> {
    /// The last used session first.
    items: Vec<SessionJson<'a>>,
}

/// A session: it begins with a login, and lasts until its newest token expires or a request ends it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ListedSession)]
struct SessionJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    /// Whether it is the session of this request.
    current: bool,
    created_at: Time,
    /// The time of the login or of the last refresh.
    last_seen_at: Time,
    /// The client's `User-Agent`, up to 256 bytes; null if it is unknown.
    #[schema(required)]
    user_agent: Option<&'a str>,
    /// The client's network: the /24 of an IPv4 address, the /48 of an IPv6 address; null if it is unknown.
    #[schema(required)]
    address: Option<&'a str>,
}

impl<'a> Sessions<'a> {
    /// These sessions; `current` is the id of the caller's.
    pub fn new(sessions: &'a [SessionInfo], current: &str) -> Self {
        let known = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        let item = |session: &'a SessionInfo| SessionJson {
            id: &session.id,
            current: session.id == current,
            created_at: Time(session.created_at_ms),
            last_seen_at: Time(session.last_seen_at_ms),
            user_agent: known(&session.user_agent),
            address: known(&session.address),
        };
        Self { items: sessions.iter().map(item).collect() }
    }
}
