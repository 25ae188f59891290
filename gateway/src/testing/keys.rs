//! The part of the scripted auth service that server keys use.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use confab_common::{Code, Error};
use confab_proto::auth::v1::*;
use confab_proto::server_key::Scopes;
use parking_lot::Mutex;
use prost::Message;
use uuid::Uuid;

/// The suspended user `mallory`.
pub const MALLORY: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0bad";
/// The beginning of the ids of keys that exist. The last byte is the index of the scopes in [`SETS`].
const KEYS: u128 = 0x0193_a4c0_7d50_7cc3_98a5_2f6b_8e1d_0e00;
/// The sets of scopes for which there is a key.
const SETS: [&str; 8] =
    ["users", "tokens", "keys", "audit", "rooms", "messages", "rooms messages", "users tokens keys audit"];

/// The id of the key with exactly these scopes, separated by spaces.
pub fn key_id(scopes: &str) -> Uuid {
    let index = SETS.iter().position(|set| *set == scopes).unwrap();
    Uuid::from_u128(KEYS + index as u128)
}

/// The key with exactly these scopes, separated by spaces.
pub fn key(scopes: &str) -> String {
    text_of(key_id(scopes))
}

fn text_of(id: Uuid) -> String {
    format!("cfk_{}_{}", id.simple(), "A".repeat(43))
}

/// Answers the calls about keys and about the users that they manage; `None` for other calls.
pub fn answer(method: &str, body: &Bytes) -> Option<Result<Vec<u8>, Error>> {
    Some(Ok(match method {
        "GetKey" => {
            let id = GetKeyRequest::decode(body.clone()).unwrap().id.parse::<Uuid>().unwrap();
            let Some(scopes) = SETS.get(usize::try_from(id.as_u128().wrapping_sub(KEYS)).unwrap_or(usize::MAX)) else {
                return Some(Err(Error::not_found("key")));
            };
            let sha256 = digest(&SHA256, text_of(id).as_bytes()).as_ref().to_vec();
            let scopes = Scopes::of_names(scopes.split(' ')).names().map(str::to_owned).collect();
            ServerKey { id: id.to_string(), scopes, sha256, ..ServerKey::default() }.encode_to_vec()
        }
        "GetUser" if GetUserRequest::decode(body.clone()).unwrap().id == MALLORY => {
            let state = AccountState::Suspended.into();
            User { id: MALLORY.into(), username: "mallory".into(), state, ..User::default() }.encode_to_vec()
        }
        "GetAvatar" => User { id: MALLORY.into(), username: "mallory".into(), ..User::default() }.encode_to_vec(),
        "RecordAct" => RecordActResponse {}.encode_to_vec(),
        "CreateKey" => {
            let CreateKeyRequest { scopes, name, .. } = CreateKeyRequest::decode(body.clone()).unwrap();
            let details = Some(ServerKey { id: MALLORY.into(), name, scopes, ..ServerKey::default() });
            CreateKeyResponse { key: "cfk_new".into(), details }.encode_to_vec()
        }
        "ListKeys" => {
            let key = ServerKey { id: MALLORY.into(), scopes: vec!["rooms".into(), "tea".into()], ..<_>::default() };
            ListKeysResponse { keys: vec![key] }.encode_to_vec()
        }
        "DeleteKey" => DeleteKeyResponse {}.encode_to_vec(),
        "CreateInvite" => {
            let expires_at_ms = CreateInviteRequest::decode(body.clone()).unwrap().expires_at_ms;
            CreateInviteResponse { code: "CODE".into(), expires_at_ms }.encode_to_vec()
        }
        "IssueToken" => {
            let IssueTokenRequest { user_id, ttl_s, .. } = IssueTokenRequest::decode(body.clone()).unwrap();
            let user = Some(User { id: user_id, username: "bob".into(), ..User::default() });
            Session { token: "t".into(), expires_at_ms: i64::from(ttl_s), user, ..Session::default() }.encode_to_vec()
        }
        "PutUser" => {
            let PutUserRequest { user_id: id, username, display_name, data, .. } =
                PutUserRequest::decode(body.clone()).unwrap();
            let (display_name, data) = (display_name.unwrap_or_default(), data.unwrap_or_default());
            let created = username == "new";
            let user = Some(User { id, username, display_name, data, ..User::default() });
            PutUserResponse { user, created }.encode_to_vec()
        }
        "SuspendUser" | "RestoreUser" | "DeleteUser" => Revocations::default().encode_to_vec(),
        "ListAudit" => {
            let ListAuditRequest { limit, cursor } = ListAuditRequest::decode(body.clone()).unwrap();
            let entry = AuditEntry { act: "key.create".into(), request_id: cursor, ..AuditEntry::default() };
            let next_cursor = if limit == 1 { "next".into() } else { String::new() };
            ListAuditResponse { entries: vec![entry], next_cursor }.encode_to_vec()
        }
        _ => return None,
    }))
}

/// Records the acts that it is asked to record, in order; or is unavailable for them.
#[derive(Default)]
pub struct Recorder {
    acts: Mutex<Vec<(String, String)>>,
    is_down: bool,
}

impl Recorder {
    /// A recorder that is unavailable.
    pub fn down() -> Self {
        Self { is_down: true, ..Self::default() }
    }

    /// Answers `RecordAct`; `None` for other calls.
    pub fn answer(&self, method: &str, body: &Bytes) -> Option<Result<Vec<u8>, Error>> {
        if method != "RecordAct" {
            return None;
        }
        if self.is_down {
            return Some(Err(Error::new(Code::Unavailable, "the database")));
        }
        let RecordActRequest { act, details, .. } = RecordActRequest::decode(body.clone()).unwrap();
        self.acts.lock().push((act, details));
        Some(Ok(Vec::new()))
    }

    /// The acts and their details.
    pub fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.acts.lock())
    }
}
