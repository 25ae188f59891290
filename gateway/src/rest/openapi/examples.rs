//! Examples, serialised by the same types as the responses.

use confab_common::{Code, Error};
use confab_proto::auth::v1::{
    AuditEntry, CreateInviteResponse, CreateKeyResponse, ServerKey, Session, SessionInfo, User, UserRef,
};
use confab_proto::file::v1::File;
use confab_proto::message::v1::{
    Event, FoundMessage, Highlight, Kind, Level, ListPinsResponse, ListReactionsResponse, ListVersionsResponse, Marked,
    Marker, Notify, Reaction, ReactionEntry, Receipt, SearchResponse, State, Version,
};
use confab_proto::room::v1::{Member, Role, Room, Visibility};
use serde::Serialize;
use serde_json::{Value, json};

use crate::views::history::{self, Changes, Part, Pins, Position};
use crate::views::{
    Account, CreatedKey, Details, EntryJson, FileJson, FileUrl, FoundMessages, InviteJson, ItemJson, Keys, LinkJson,
    MarkerJson, MemberJson, MessageJson, Opened, Page, ProfileJson, ReactionList, Reactions, ReceiptJson, Receipts,
    RoomJson, Sessions, Time, UnreadJson, Versions, Viewer,
};

pub const ROOM: &str = "01a20525-1183-7c58-9e5d-6a3b0c9d8e7f";
pub const FILE: &str = "01a20525-118d-7e44-8f0a-2d4c6e8a0b1c";
pub const SESSION: &str = "01a20524-8a31-7b02-9c4d-5e6f708192a3";
pub const REFRESH_TOKEN: &str = "cfr_01a20524-8a31-7b02-9c4d-5e6f708192a3_\
    q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJCrze8SNFZ4kKvN7xI0VniQ";
pub const KEY: &str = "01a20523-77c1-7a65-b0d9-4c3b2a190807";
pub const REQUEST: &str = "01a20525-11a1-7a10-b2c3-d4e5f6a7b8c9";
pub const CLIENT_ID: &str = "phone-7-1042";
pub const CONTENT: &str = "hello\n";
pub const MODIFIED: &str = "Sun, 22 Nov 2026 21:24:05 GMT";
pub const USER: &str = "01a20524-8a2e-7d31-a1b2-c3d4e5f60718";
const MESSAGE: &str = "01a20525-1197-7f60-8a9b-0c1d2e3f4a5b";
const EPOCH: &str = "01a20520-3b5e-7d04-a6c8-e0f1a2b3c4d5";
const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
const CREATED: i64 = 1_795_382_645_123;

pub fn etag() -> String {
    format!("\"{SHA256}\"")
}

/// Adds an invalid field, as failed validation does.
pub fn with_fields(error: Error) -> Error {
    match error.code {
        Code::InvalidRequest => Error::field("content", "must not be empty"),
        _ => error,
    }
}

fn user() -> User {
    User {
        id: USER.into(),
        username: "ada".into(),
        created_at_ms: CREATED,
        display_name: "Ada Lovelace".into(),
        avatar_file_id: FILE.into(),
        data: r#"{"theme":"dark"}"#.into(),
        ..User::default()
    }
}

fn ada() -> Option<UserRef> {
    Some(UserRef { id: USER.into(), username: "ada".into() })
}

pub fn account() -> Value {
    json!(Account::from(&user()))
}

pub fn profile() -> Value {
    json!(ProfileJson::from(&user()))
}

pub fn profiles() -> Value {
    page(vec![ProfileJson::from(&user())])
}

fn opened() -> Session {
    let token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFZERTQSJ9.eyJuYW1lIjoiYWRhIn0.c2lnbmF0dXJl".into();
    Session { token, expires_at_ms: CREATED + 86_400_000, user: Some(user()), ..Session::default() }
}

pub fn session() -> Value {
    json!(Opened::try_from(&opened()).ok())
}

pub fn refreshed() -> Value {
    let session = Session {
        expires_at_ms: CREATED + 900_000,
        refresh_token: REFRESH_TOKEN.into(),
        refresh_expires_at_ms: CREATED + 2_592_000_000,
        ..opened()
    };
    json!(Opened::try_from(&session).ok())
}

pub fn sessions() -> Value {
    let session = SessionInfo {
        id: SESSION.into(),
        created_at_ms: CREATED,
        last_seen_at_ms: CREATED + 900_000,
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into(),
        address: "203.0.113.0/24".into(),
    };
    json!(Sessions::new(&[session], SESSION))
}

fn server_key() -> ServerKey {
    let scopes = vec!["tokens".to_owned(), "rooms".into()];
    ServerKey { id: KEY.into(), name: "web shop".into(), scopes, created_at_ms: CREATED, ..ServerKey::default() }
}

pub fn created_key() -> Value {
    let key = format!("cfk_{}_q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA", KEY.replace('-', ""));
    json!(CreatedKey::new(&CreateKeyResponse { key, details: Some(server_key()) }))
}

pub fn server_keys() -> Value {
    json!(Keys::new(&[server_key()]))
}

pub fn invite() -> Value {
    let (code, expires_at_ms) = ("7ZK2M9A-4Q0XTB8-1RW6HJC-5E3NV".into(), CREATED + 604_800_000);
    json!(InviteJson::from(&CreateInviteResponse { code, expires_at_ms }))
}

pub fn audit() -> Value {
    let entry = AuditEntry {
        id: MESSAGE.into(),
        at_ms: CREATED,
        key_id: KEY.into(),
        act: "room.change".into(),
        object: ROOM.into(),
        details: r#"{"name":"Coffee"}"#.into(),
        request_id: REQUEST.into(),
    };
    page(vec![EntryJson::from(&entry)])
}

/// The key of RFC 8037, appendix A.
pub fn keys() -> Value {
    let (x, kid) = ("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"}]})
}

fn tea() -> Room {
    Room {
        id: ROOM.into(),
        name: "Tea".into(),
        description: "Green and black".into(),
        visibility: Visibility::Public.into(),
        role: Role::Owner.into(),
        created_by: ada(),
        created_at_ms: CREATED,
    }
}

pub fn room(last_seq: u64) -> Value {
    json!(RoomJson::new(&tea(), last_seq, Viewer::User).with_marker(Some(&unread_room(last_seq))))
}

pub fn rooms() -> Value {
    page(vec![RoomJson::new(&tea(), 42, Viewer::User).with_marker(Some(&unread_room(42)))])
}

pub fn details() -> Value {
    let (room, part) = (tea(), part(vec![hello()], 42));
    json!(Details {
        room: RoomJson::new(&room, 42, Viewer::User).with_marker(Some(&unread_room(42))),
        messages: history::page(uuid::Uuid::nil(), Position::Latest, &part)
    })
}

fn owner() -> Member {
    Member { user: ada(), role: Role::Owner.into(), joined_at_ms: CREATED }
}

pub fn member(role: Role) -> Value {
    json!(MemberJson::try_from(&Member { role: role.into(), ..owner() }).ok())
}

pub fn members() -> Value {
    page(MemberJson::try_from(&owner()).into_iter().collect())
}

fn hello() -> Event {
    Event {
        ordinal: Some(40),
        id: MESSAGE.into(),
        room_id: ROOM.into(),
        seq: 42,
        kind: Kind::Message.into(),
        sender: ada(),
        content: "Milk first?".into(),
        client_message_id: Some(CLIENT_ID.into()),
        created_at_ms: CREATED,
        ..Event::default()
    }
}

/// The message after a change with this `seq`.
fn changed(revision: u64, state: State) -> Event {
    Event { state: Some(State { revision, ..state }), ..hello() }
}

fn edited_event() -> Event {
    let state = State { edited_at_ms: Some(CREATED + 60_000), ..State::default() };
    Event { content: "Milk last.".into(), ..changed(43, state) }
}

fn part(events: Vec<Event>, last_seq: u64) -> Part {
    Part { epoch: EPOCH.into(), last_seq, events, more: false }
}

pub fn message() -> Value {
    json!(MessageJson::from(&hello()))
}

pub fn found_messages() -> Value {
    let highlights = vec![Highlight { start: 0, end: 5 }];
    let items = vec![FoundMessage { message: Some(hello()), highlights }];
    let found = SearchResponse { items, up_to_ms: CREATED + 5000, ..SearchResponse::default() };
    json!(FoundMessages::try_from(&found).ok())
}

pub fn messages() -> Value {
    json!(history::page::<ItemJson<'_>>(uuid::Uuid::nil(), Position::Latest, &part(vec![hello()], 42)))
}

pub fn edited() -> Value {
    json!(MessageJson::from(&edited_event()))
}

pub fn deleted() -> Value {
    let state = State { deleted_by: ada(), ..State::default() };
    json!(MessageJson::from(&Event { content: String::new(), ..changed(44, state) }))
}

fn pinned_event() -> Event {
    changed(43, State { pinned: true, ..State::default() })
}

pub fn pinned() -> Value {
    json!(MessageJson::from(&pinned_event()))
}

pub fn pins() -> Value {
    let pins = ListPinsResponse { epoch: EPOCH.into(), last_seq: 43, messages: vec![pinned_event()] };
    json!(Pins::from(&pins))
}

fn reacted_event() -> Event {
    let reactions = vec![Reaction { name: "👍".into(), count: 2, mine: Some(true) }];
    changed(43, State { reactions, ..State::default() })
}

pub fn reactions() -> Value {
    json!(Reactions::from(&reacted_event()))
}

pub fn reaction_list() -> Value {
    let entry = ReactionEntry { user: ada(), name: "👍".into(), at_ms: CREATED + 60_000 };
    json!(ReactionList::from(&ListReactionsResponse { reactions: vec![entry], next_cursor: String::new() }))
}

pub fn changes() -> Value {
    let changes = Changes { after: 42, from: 1, up_to: 0 };
    json!(changes.page(uuid::Uuid::nil(), &part(vec![edited_event()], 43)))
}

pub fn versions() -> Value {
    let version = |revision, content: &str, at_ms| Version { revision, content: content.into(), at_ms, by: ada() };
    let versions = vec![version(42, "Milk first?", CREATED), version(43, "Milk last.", CREATED + 60_000)];
    json!(Versions::from(&ListVersionsResponse { versions }))
}

fn text() -> File {
    File {
        id: FILE.into(),
        name: "hello.txt".into(),
        size: CONTENT.len() as u64,
        content_type: "text/plain".into(),
        sha256: SHA256.into(),
        room_id: Some(ROOM.into()),
        uploaded_by: ada(),
        created_at_ms: CREATED,
        ..File::default()
    }
}

pub fn file() -> Value {
    json!(FileJson::from(&text()))
}

pub fn files() -> Value {
    page(vec![FileJson::from(&text())])
}

pub fn link() -> Value {
    let expires = CREATED + 300_000;
    json!(LinkJson {
        url: format!("{}?expires={expires}&signature=q83vEjRWeJA", FileUrl(FILE)),
        expires_at: Time(expires)
    })
}

fn page<T: Serialize>(items: Vec<T>) -> Value {
    json!(Page { items, next_cursor: None })
}

pub fn marker() -> impl Serialize {
    MarkerJson::from(Marked { seq: 42, ..Marked::default() })
}

fn unread_room(last_seq: u64) -> Marker {
    let notify = Notify { level: Level::All.into(), until_ms: None };
    Marker {
        room_id: ROOM.into(),
        read_seq: last_seq.saturating_sub(1),
        unread: last_seq.min(1),
        last_seq,
        last_message_at_ms: Some(CREATED),
        notify: Some(notify),
    }
}

pub fn unread() -> impl Serialize {
    UnreadJson::from(&[unread_room(42)][..])
}

pub fn receipts() -> Value {
    let receipt = Receipt { user_id: USER.into(), seq: 42, at_ms: Some(CREATED) };
    let ada = ada().unwrap_or_default();
    json!(Receipts { items: vec![ReceiptJson::new(&ada, &receipt)] })
}
