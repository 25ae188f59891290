//! Server keys, invites and the audit.

use confab_proto::auth::v1::{AuditEntry, CreateInviteResponse, CreateKeyResponse, ServerKey};
use confab_proto::server_key::Scope;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::page::Time;

/// A server key, without its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ServerKey)]
pub struct KeyJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    /// What the key is for; may be empty.
    name: &'a str,
    /// What the key may do.
    #[schema(value_type = Vec<ScopeJson>)]
    scopes: Vec<&'static str>,
    created_at: Time,
}

/// `users`: create, change, suspend and delete users, and create invites. `tokens`: issue tokens of users. `keys`:
/// create, list and delete server keys. `audit`: read the audit. `rooms`: read, change and delete rooms and their
/// members. `messages`: read messages, and read and delete files; on behalf of a user also send them.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Scope)]
#[expect(dead_code, reason = "describes the texts in the OpenAPI document")]
pub enum ScopeJson {
    Users,
    Tokens,
    Keys,
    Audit,
    Rooms,
    Messages,
}

impl<'a> From<&'a ServerKey> for KeyJson<'a> {
    fn from(key: &'a ServerKey) -> Self {
        let scopes = key.scopes.iter().filter_map(|name| Scope::parse(name)).map(Scope::name).collect();
        Self { id: &key.id, name: &key.name, scopes, created_at: Time(key.created_at_ms) }
    }
}

/// All server keys.
#[derive(Serialize, ToSchema)]
pub struct Keys<'a> {
    /// The oldest key first, at most 100.
    items: Vec<KeyJson<'a>>,
}

impl<'a> Keys<'a> {
    pub fn new(keys: &'a [ServerKey]) -> Self {
        Self { items: keys.iter().map(KeyJson::from).collect() }
    }
}

/// A new server key.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedKey)]
pub struct CreatedKey<'a> {
    #[serde(flatten)]
    details: KeyJson<'a>,
    /// The key, to be sent as `Authorization: Bearer …`. The server stores only its hash, so no other response
    /// contains it.
    #[schema(format = "password")]
    key: &'a str,
}

impl<'a> CreatedKey<'a> {
    /// `None` when the auth service left the details out.
    pub fn new(created: &'a CreateKeyResponse) -> Option<Self> {
        Some(Self { details: created.details.as_ref()?.into(), key: &created.key })
    }
}

/// A new invite.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Invite)]
pub struct InviteJson<'a> {
    /// The code for `inviteCode` at signup. The server stores only its hash.
    code: &'a str,
    expires_at: Time,
}

impl<'a> From<&'a CreateInviteResponse> for InviteJson<'a> {
    fn from(invite: &'a CreateInviteResponse) -> Self {
        Self { code: &invite.code, expires_at: Time(invite.expires_at_ms) }
    }
}

/// An entry of the audit.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub struct EntryJson<'a> {
    /// UUIDv7.
    #[schema(format = "uuid")]
    id: &'a str,
    at: Time,
    actor: AuditActor<'a>,
    /// The name of the act, such as `user.suspend`, `room.delete`, or `act_as` for acts on behalf of a user.
    act: &'a str,
    /// The id of the user, room, file, key or invite.
    object: &'a str,
    /// Details of the act; null if there are none.
    #[schema(required, value_type = Option<Object>)]
    details: Option<&'a RawValue>,
    /// The id of the request; null for an operator.
    #[schema(required)]
    request_id: Option<&'a str>,
}

/// Who did an act.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuditActor<'a> {
    /// The server key; null for an operator with a program on the server.
    #[schema(format = "uuid", required)]
    key_id: Option<&'a str>,
}

impl<'a> From<&'a AuditEntry> for EntryJson<'a> {
    fn from(entry: &'a AuditEntry) -> Self {
        let given = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        Self {
            id: &entry.id,
            at: Time(entry.at_ms),
            actor: AuditActor { key_id: given(&entry.key_id) },
            act: &entry.act,
            object: &entry.object,
            details: serde_json::from_str(&entry.details).ok(),
            request_id: given(&entry.request_id),
        }
    }
}
