//! Joins a room without losing or repeating events: the client is registered first, then the partition is followed,
//! then the right to read is checked, then history is read; events fanned out meanwhile follow the answer.

use std::sync::Arc;
use std::time::Duration;

use confab_common::{Code, Error, Result, grpc, text};
use confab_proto::room::v1::{GetRoomRequest, Room};
use confab_socketio::Frame;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::session::Session;
use crate::payload::{RoomOr, read_room};
use crate::rooms::history::{MAX_BYTES, MAX_MESSAGES, Page, Wanted};
use crate::rooms::hub::{Arrival, Joining, Listener, NotLive};
use crate::views::RoomJson;

/// Pause before history is read again.
pub(super) const BEHIND: Duration = Duration::from_millis(20);

/// A valid `joinRoom`.
#[derive(Debug, PartialEq, Eq)]
pub struct Join {
    /// The room.
    pub room: Uuid,
    history: Wanted,
    epoch: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    room_id: String,
    after: Option<u64>,
    last: Option<u32>,
    epoch: Option<String>,
}

impl Join {
    /// Reads the payload.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn parse(argument: &str) -> Result<Self> {
        let (room, after, last, epoch) = match read_room(argument, "a room id or { roomId, after?, epoch? } or { roomId, last? }")? {
            RoomOr::Id(room) => (room, None, None, None),
            RoomOr::Object(Argument { room_id, after, last, epoch }) => (room_id, after, last, epoch),
        };
        let history = match (after, last) {
            (None, None) => Wanted::End,
            (Some(after), None) => Wanted::After(after),
            (None, Some(last @ 1..=MAX_MESSAGES)) => Wanted::Last(last),
            (None, Some(_)) => return Err(Error::field("last", "must be from 1 to 200")),
            (Some(_), Some(_)) => return Err(Error::field("last", "cannot go together with after")),
        };
        Ok(Self { room: text::id("roomId", &room)?, history, epoch })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    ok: bool,
    room: RoomJson<'a>,
    last_seq: u64,
    epoch: &'a str,
    messages: Vec<&'a RawValue>,
    complete: bool,
    reset: bool,
}

/// Joins the client to a room and answers it.
///
/// # Errors
/// `not_found` for a room whose existence is hidden from the client. When a service does not answer, or the log cannot
/// be followed from where the client was, the client stays where it was.
pub async fn join(session: &Arc<Session>, ack: Option<u64>, join: Join, deadline: Instant) -> Result<()> {
    let edge = &session.edge;
    let prepared = timeout_at(deadline, async { (session.socket.join_turn(session).await, edge.follower.partition_of(join.room).await) });
    let (_turn, partition) = prepared.await.map_err(|_| Error::unavailable("the room's history"))?;
    let joining = begin(session, join.room, partition)?;
    // Boxed: thousands may wait for their turn, few are past it.
    let live = Box::pin(go_live(session, ack, &join, &joining, partition));
    let joined = timeout_at(deadline, live).await.unwrap_or_else(|_| Err(Error::timeout()));
    if let Err(error) = &joined {
        // A client that was in the room stays in it or reconnects to it, unless it lost the right to be there.
        let may_stay = matches!(error.code, Code::Unavailable | Code::Timeout | Code::Internal);
        if !(may_stay && (edge.hub.cancel_join(&joining, session) || session.is_returning())) {
            edge.hub.leave(join.room, session.id());
            session.left(join.room);
        }
    }
    joined
}

/// Registers the client as joining.
///
/// # Errors
/// When the client is in too many rooms or has disconnected.
pub(super) fn begin(session: &Arc<Session>, room: Uuid, partition: u32) -> Result<Joining> {
    let edge = &session.edge;
    if !session.socket.remember_room(room, edge.config.max_rooms_per_socket) {
        return Err(Error::new(Code::RateLimited, "in too many rooms; leave some first"));
    }
    let joining = edge.hub.begin_join(room, partition, session);
    if !session.socket.is_in(room) {
        // The client disconnected between the two.
        edge.hub.leave(room, session.id());
        return Err(Error::not_found("socket"));
    }
    Ok(joining)
}

async fn go_live(session: &Arc<Session>, ack: Option<u64>, join: &Join, joining: &Joining, partition: u32) -> Result<()> {
    let edge = &session.edge;
    let mut rooms = edge.clients.room.clone();
    edge.follower.follow(partition).await;
    let caller = session.socket.identity().map(|identity| identity.user.clone());
    let room = rooms.get_room(grpc::request(GetRoomRequest { caller, id: join.room.to_string() }, edge.clients.read)).await?.into_inner();
    loop {
        let page = edge.history.read(join.room, join.history).await?;
        let answer = ack.map(|id| Frame::ack(id, &answer(join, &room, &page)));
        let arrival = Arrival::Joined { answer, epoch: page.epoch().parse().unwrap_or_default() };
        match edge.hub.go_live(joining, session, page.last_seq(), &arrival) {
            Ok(()) => return Ok(()),
            Err(NotLive::Behind) => sleep(BEHIND).await,
            // The room itself is unchanged; this gateway's knowledge of it is stale.
            Err(NotLive::Cancelled) if session.is_returning() => return Err(Error::unavailable("the room's history")),
            Err(NotLive::Cancelled) => return Err(Error::not_found("room")),
        }
    }
}

fn answer<'a>(join: &Join, room: &'a Room, page: &'a Page) -> Answer<'a> {
    let (epoch, last_seq) = (page.epoch(), page.last_seq());
    let reset = match join.history {
        Wanted::After(after) if after > last_seq => true,
        _ => join.epoch.as_ref().is_some_and(|named| named != epoch),
    };
    let mut bytes = 0;
    let mut within = |json: &RawValue| {
        bytes += json.get().len() + 1;
        bytes <= MAX_BYTES
    };
    let events = page.events();
    let (messages, complete) = match join.history {
        _ if reset => (Vec::new(), last_seq == 0),
        Wanted::End => (Vec::new(), true),
        Wanted::After(after) => {
            let taken = events.iter().map(|event| &*event.json).take_while(|json| within(json)).collect::<Vec<_>>();
            let read_to = taken.len().checked_sub(1).map_or(after, |last| events[last].seq);
            (taken, read_to == last_seq)
        }
        Wanted::Last(_) => {
            let mut taken = events.iter().rev().map(|event| &*event.json).take_while(|json| within(json)).collect::<Vec<_>>();
            taken.reverse();
            (taken, true)
        }
    };
    Answer { ok: true, room: RoomJson::new(room, last_seq), last_seq, epoch, messages, complete, reset }
}

#[cfg(test)]
mod tests {
    use confab_proto::message::v1::{Event, ListEventsResponse};

    use super::*;
    use crate::realtime::testing::{World, connect, partition};
    use crate::testing::{bus, eventually};

    const ROOM: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";

    fn parse(rest: &str) -> Result<Join> {
        Join::parse(&format!(r#"{{"roomId":"{ROOM}"{rest}}}"#))
    }

    #[test]
    fn payloads() {
        assert_eq!(Join::parse(&format!("{ROOM:?}")).unwrap().history, Wanted::End);
        assert_eq!(parse(r#","after":0,"epoch":"e""#).unwrap().history, Wanted::After(0));
        assert_eq!(parse(r#","last":200,"unknown":1"#).unwrap().history, Wanted::Last(200));
        for bad in [
            r#","last":0"#,
            r#","last":201"#,
            r#","last":-1"#,
            r#","after":-1"#,
            r#","after":1.5"#,
            r#","after":1,"last":1"#,
            r#","epoch":7"#,
        ] {
            assert_eq!(parse(bad).unwrap_err().code, Code::InvalidRequest, "{bad}");
        }
    }

    fn page(last_seq: u64, events: std::ops::Range<u64>, content: &str) -> Page {
        let events = events.map(|seq| Event { seq, content: content.into(), ..Event::default() }).collect();
        ListEventsResponse { epoch: "e1".into(), last_seq, events, more: false }.into()
    }

    #[test]
    fn an_answer_reports_its_extent() {
        let room = Room::default();
        let say = |rest: &str, page: &Page| {
            let answer = answer(&parse(rest).unwrap(), &room, page);
            (answer.messages.len(), answer.complete, answer.reset)
        };
        assert_eq!(say("", &page(9, 10..10, "")), (0, true, false));
        assert_eq!(say(r#","after":7"#, &page(9, 8..10, "x")), (2, true, false));
        assert_eq!(say(r#","after":9"#, &page(9, 10..10, "")), (0, true, false));
        assert_eq!(say(r#","after":0"#, &page(900, 1..201, "x")), (200, false, false));
        assert_eq!(say(r#","after":0,"epoch":"e1""#, &page(2, 1..3, "x")), (2, true, false));
        assert_eq!(say(r#","after":0,"epoch":"e0""#, &page(2, 1..3, "x")), (0, false, true));
        assert_eq!(say(r#","after":10"#, &page(9, 10..10, "")), (0, false, true));
        // Escapes make the encoded form larger than the form in the log.
        let (count, complete, _) = say(r#","after":0"#, &page(40, 1..41, &"\u{1}".repeat(16_000)));
        assert_eq!((count, complete), (2, false));
        assert_eq!(say(r#","last":3"#, &page(40, 38..41, &"\u{1}".repeat(16_000))), (2, true, false));
    }

    #[tokio::test]
    async fn a_client_that_must_reconnect_gets_no_room_gone_error() {
        let world = World::new(bus()).await;
        let mut client = world.client();
        client.emit(&connect(serde_json::json!({ "recovery": true })));
        client.hears("42[\"session\"").await;
        let session = &client.session;
        let again = async |meanwhile: Option<Box<dyn FnOnce() + Send>>| {
            *world.log.meanwhile.lock() = meanwhile;
            join(session, None, parse("").unwrap(), Instant::now() + Duration::from_secs(5)).await.map_err(|error| error.code)
        };
        assert_eq!(again(None).await, Ok(()));
        session.outbox.take_some(9, usize::MAX);
        let hub = world.edge.hub.clone();
        assert_eq!(again(Some(Box::new(move || hub.resync(partition())))).await, Err(Code::Unavailable));
        eventually(|| session.outbox.closing().is_some()).await;
        assert!(session.outbox.is_empty(), "it can be brought back to the room");
    }

    #[tokio::test]
    async fn a_client_removed_meanwhile_gets_not_found() {
        let world = World::new(bus()).await;
        let client = world.member().await;
        let (hub, id) = (world.edge.hub.clone(), client.session.id());
        *world.log.meanwhile.lock() = Some(Box::new(move || _ = hub.leave(ROOM.parse().unwrap(), id)));
        let joined = join(&client.session, None, parse("").unwrap(), Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(joined.unwrap_err().code, Code::NotFound);
    }
}
