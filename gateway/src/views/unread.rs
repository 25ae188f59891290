//! Read markers.

use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1::{Level, Marked, Marker, Notify, Receipt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::page::Time;
use super::user::UserJson;

/// A user's read marker in a room.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Marker)]
pub struct MarkerJson {
    /// The `seq` up to which the user has read.
    #[schema(minimum = 0)]
    read_seq: u64,
    /// The messages above the marker that are not deleted.
    unread: u64,
}

impl From<Marked> for MarkerJson {
    fn from(marked: Marked) -> Self {
        Self { read_seq: marked.seq, unread: marked.unread }
    }
}

/// The unread messages of a user.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Unread)]
pub struct UnreadJson {
    /// The unread messages of the rooms with the level `all`, and the unread mentions of those with the level
    /// `mentions`.
    total: u64,
    /// All rooms of which the user is a member, at most 1,000.
    rooms: Vec<UnreadRoomJson>,
}

/// The unread messages of a user in a room.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UnreadRoom)]
struct UnreadRoomJson {
    #[schema(format = "uuid")]
    room_id: String,
    /// The messages above the marker that are not deleted.
    unread: u64,
    /// The messages above the marker that mention the user. Messages have no mentions yet: always 0.
    mentions: u64,
    /// The `seq` up to which the user has read.
    #[schema(minimum = 0)]
    read_seq: u64,
    /// The `seq` of the room's newest event.
    last_seq: u64,
    /// When the newest message was sent. Null without one, and in a room without a message since an upgrade from a
    /// version without ordinals.
    #[schema(required)]
    last_message_at: Option<Time>,
    notify: NotifyJson,
}

/// What a user wants to be notified of in a room.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = Notify)]
pub struct NotifyJson {
    level: LevelJson,
    /// Until when the level holds; `all` holds after that. Null: without end.
    #[schema(required)]
    until: Option<Time>,
}

/// `all`: all messages. `mentions`: only messages that mention the user. `none`: no messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Level)]
pub enum LevelJson {
    All,
    Mentions,
    None,
}

impl LevelJson {
    /// The level with this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "all" => Some(Self::All),
            "mentions" => Some(Self::Mentions),
            "none" => Some(Self::None),
            _ => None,
        }
    }

    pub fn to_level(self) -> Level {
        match self {
            Self::All => Level::All,
            Self::Mentions => Level::Mentions,
            Self::None => Level::None,
        }
    }
}

impl From<&Marker> for NotifyJson {
    fn from(marker: &Marker) -> Self {
        let Notify { until_ms, .. } = marker.notify.unwrap_or_default();
        let level = match marker.notify.unwrap_or_default().level() {
            Level::Mentions => LevelJson::Mentions,
            Level::None => LevelJson::None,
            Level::All | Level::Unspecified => LevelJson::All,
        };
        Self { level, until: until_ms.map(Time) }
    }
}

impl From<&Marker> for UnreadRoomJson {
    fn from(marker: &Marker) -> Self {
        Self {
            room_id: marker.room_id.clone(),
            unread: marker.unread,
            mentions: 0,
            read_seq: marker.read_seq,
            last_seq: marker.last_seq,
            last_message_at: marker.last_message_at_ms.map(Time),
            notify: marker.into(),
        }
    }
}

impl From<&[Marker]> for UnreadJson {
    fn from(markers: &[Marker]) -> Self {
        let rooms: Vec<_> = markers.iter().map(UnreadRoomJson::from).collect();
        let counted = |room: &UnreadRoomJson| match room.notify.level {
            LevelJson::All => room.unread,
            LevelJson::Mentions => room.mentions,
            LevelJson::None => 0,
        };
        Self { total: rooms.iter().map(counted).sum(), rooms }
    }
}

/// How far members have read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipts)]
pub struct Receipts<'a> {
    pub items: Vec<ReceiptJson<'a>>,
}

/// How far a member has read.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub struct ReceiptJson<'a> {
    user: UserJson<'a>,
    /// The `seq` up to which the member has read.
    #[schema(minimum = 0)]
    seq: u64,
    /// When the member's marker last moved; null if it never did.
    #[schema(required)]
    at: Option<Time>,
}

impl<'a> ReceiptJson<'a> {
    pub fn new(user: &'a UserRef, receipt: &Receipt) -> Self {
        Self { user: user.into(), seq: receipt.seq, at: receipt.at_ms.map(Time) }
    }
}
