//! The log, which the message service keeps: the calls of the room service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use confab_common::grpc::{Call, MAX_MESSAGE, Transport, request};
use confab_common::outbox::{DELIVERY, TURN_LIMIT};
use confab_common::telemetry::trace::Span;
use confab_common::{Code, Error, Result};
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::{
    AccessChange, AppendRequest, GetRoomHeadsRequest, Kind, NewEvent, OpenRoomRequest, Outcome, RoomHead, RoomMember,
    RoomsOpenedRequest,
};
use confab_proto::room::v1::{Role as PbRole, Visibility};
use tonic::Status;
use uuid::Uuid;

use crate::event;
use crate::store::{Opening, Role, RoomEvent};

/// The first format of the log with private rooms and members.
const FORMAT_WITH_MEMBERS: u32 = 2;
const READ_CALL: Call = Call::within(Duration::from_millis(1500)).attempt(Duration::from_millis(700)).reading();
/// Maximum rooms in one request for heads.
const ROOMS_PER_CALL: usize = 1000;

pub struct Log {
    message: MessageServiceClient<Transport>,
    /// Whether the log is known to have members. It never returns to an earlier format.
    has_members: AtomicBool,
}

/// When the newest events of a room were appended, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastTimes {
    /// The newest event; `None` without events.
    pub newest: Option<i64>,
    /// The newest event up to the requested time; `None` without such an event.
    pub until: Option<i64>,
}

/// The outcome of opening a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    Now,
    /// The log is in an earlier format, in which it accepts events without an opening, and a replica of the release
    /// before has answered.
    Later,
}

impl Log {
    pub fn new(message: Transport) -> Self {
        let message = MessageServiceClient::new(message)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { message, has_members: AtomicBool::new(false) }
    }

    /// Returns whether the log has private rooms and members.
    ///
    /// # Errors
    /// `unavailable` when no replica answers.
    pub async fn has_members(&self) -> Result<bool> {
        if self.has_members.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let heads = self.message.clone().get_room_heads(request(GetRoomHeadsRequest::default(), READ_CALL)).await;
        let heads = heads.map_err(unread)?;
        let has_members = heads.into_inner().format >= FORMAT_WITH_MEMBERS;
        self.has_members.fetch_or(has_members, Ordering::Relaxed);
        Ok(has_members)
    }

    /// Returns when the newest events of rooms were appended; `None` when a replica of the release before has answered,
    /// which returns no times.
    ///
    /// # Errors
    /// `unavailable` when no replica answers.
    pub async fn last_times(&self, rooms: &[Uuid], until_ms: i64) -> Result<Option<HashMap<Uuid, LastTimes>>> {
        let mut times = HashMap::with_capacity(rooms.len());
        for rooms in rooms.chunks(ROOMS_PER_CALL) {
            let room_ids = rooms.iter().map(Uuid::to_string).collect();
            let ask = GetRoomHeadsRequest { room_ids, until_ms: Some(until_ms) };
            let answer =
                self.message.clone().get_room_heads(request(ask, READ_CALL)).await.map_err(unread)?.into_inner();
            if !answer.has_times {
                return Ok(None);
            }
            let last = |head: RoomHead| LastTimes { newest: head.last_event_at_ms, until: head.last_event_until_ms };
            // The heads are in the order of the request.
            times.extend(rooms.iter().copied().zip(answer.heads.into_iter().map(last)));
        }
        Ok(Some(times))
    }

    /// Returns the log's epoch. `None` while the log has no members, and so nothing to restore.
    ///
    /// # Errors
    /// When the log is unreachable.
    pub async fn epoch(&self) -> Result<Option<Uuid>> {
        let heads = self.message.clone().get_room_heads(request(GetRoomHeadsRequest::default(), READ_CALL)).await?;
        let heads = heads.into_inner();
        Ok(Uuid::try_parse(&heads.epoch).ok().filter(|_| heads.format >= FORMAT_WITH_MEMBERS))
    }

    /// Opens a room, so that its events can be appended. Of a room with an epoch, the log expects all members, in one
    /// call after another; the last one has no `more`.
    ///
    /// # Errors
    /// When the log is unreachable or rejects the opening.
    pub async fn open(&self, room: Uuid, opening: Opening) -> Result<Opened> {
        let private = match opening.private {
            Some(private) => private,
            // A deleted room is opened only to be closed. Without members, a private room is hidden from all users.
            None => self.has_members().await?,
        };
        let members = opening.members.into_iter().map(|(user, role)| member(user, role)).collect::<Vec<_>>();
        let open = OpenRoomRequest {
            room_id: room.to_string(),
            visibility: visibility(private).into(),
            // The log then keeps the members that it has besides these.
            partial: opening.more,
            members,
            epoch: opening.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
        };
        match self.message.clone().open_room(request(open, DELIVERY)).await {
            Ok(_) => Ok(Opened::Now),
            Err(status) if status.code() == tonic::Code::Unimplemented && !self.has_members().await? => {
                Ok(Opened::Later)
            }
            Err(status) => Err(status.into()),
        }
    }

    /// Reports that all rooms are open, while the log has no members yet: the upgrade waits for this.
    ///
    /// # Errors
    /// When the log is unreachable.
    pub async fn all_opened(&self) -> Result<()> {
        if self.has_members().await? {
            return Ok(());
        }
        match self.message.clone().rooms_opened(request(RoomsOpenedRequest {}, DELIVERY)).await {
            Err(status) if status.code() != tonic::Code::Unimplemented => Err(status.into()),
            _ => Ok(()),
        }
    }

    /// Appends events of different rooms. Returns an outcome for each.
    ///
    /// # Errors
    /// When the log is unreachable.
    pub async fn append(&self, events: Vec<NewEvent>) -> Result<Vec<Outcome>> {
        Ok(self
            .message
            .clone()
            .append(request(AppendRequest { events, credentials: Vec::new() }, DELIVERY))
            .await?
            .into_inner()
            .outcomes)
    }
}

/// Returns the error of a call that only reads: nothing was done.
fn unread(status: Status) -> Error {
    match Error::from(status) {
        error if error.code == Code::Timeout => Error::unavailable("the log"),
        error => error,
    }
}

/// Converts an event of the outbox.
///
/// # Errors
/// When this program cannot read the event's change of members. The log must not have the event without it.
pub fn new_event(event: &RoomEvent) -> Result<NewEvent> {
    let access = event.access.as_deref().map(serde_json::from_str).transpose().map_err(Error::internal)?;
    Ok(NewEvent {
        id: event.id.to_string(),
        room_id: event.room_id.to_string(),
        kind: Kind::System.into(),
        sender: Some(UserRef { id: event.sender.id.to_string(), username: event.sender.username.clone() }),
        event: event.event.clone(),
        data: event.data.clone(),
        closes_room: event.closes_room,
        timeout_ms: TURN_LIMIT.as_millis() as u32,
        traceparent: Span::current().traceparent(),
        access: access.map(change),
        ..NewEvent::default()
    })
}

fn change(change: event::AccessChange) -> AccessChange {
    let event::AccessChange { members, removed, private, changes_visibility } = change;
    AccessChange {
        members: members.into_iter().map(|of| member(of.user_id, of.role)).collect(),
        removed: removed.iter().map(Uuid::to_string).collect(),
        visibility: visibility(private).into(),
        changes_visibility,
    }
}

fn member(user: Uuid, role: Role) -> RoomMember {
    let role = match role {
        Role::Member => PbRole::Member,
        Role::Admin => PbRole::Admin,
        Role::Owner => PbRole::Owner,
    };
    RoomMember { user_id: user.to_string(), role: role.into() }
}

fn visibility(private: bool) -> Visibility {
    if private { Visibility::Private } else { Visibility::Public }
}
