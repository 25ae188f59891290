//! Marks of clients, and the events that show moved markers: `unread` to the clients of the marker's user, and `read` to
//! the clients in a small room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use confab_common::{Code, Error, Result, grpc};
use confab_proto::message::v1::{ListMarkersRequest, Marked, Marker, MovedMarker};
use confab_proto::room::v1::GetRoomRequest;
use confab_socketio::Frame;
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::answer::{answer, refuse};
use super::client::Socket;
use super::context::Chat;
use super::lanes::EVENT_OVERHEAD;
use crate::metrics::METRICS;
use crate::rooms::hub::Listener;
use crate::views::Time;

/// The interval between two `read` events of a room.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most receipts that wait for their event, of all rooms.
const MAX_RECEIPTS: usize = 100_000;

/// Queues a mark, and answers it when the marker has moved. Later events of the room do not wait for it.
pub fn mark(chat: &Arc<Chat>, socket: &Arc<Socket>, room: Uuid, seq: u64, ack: Option<u64>, deadline: Instant) {
    let (chat, socket) = (chat.clone(), socket.clone());
    // The client's other events wait when too many of its marks do.
    socket.client.count(&socket.outbox, EVENT_OVERHEAD);
    tokio::spawn(async move {
        let outcome = marked(&chat, &socket, room, seq).await;
        let took = (Instant::now() + chat.clients.call.deadline).saturating_duration_since(deadline);
        METRICS.reads.record(&outcome, took);
        match outcome {
            Ok(marked) => {
                answer(&socket, ack, &json!({ "ok": true, "readSeq": marked.seq, "unread": marked.unread }));
            }
            Err(error) => refuse(&socket, ack, &error),
        }
        socket.client.done(&socket.outbox, EVENT_OVERHEAD);
    });
}

async fn marked(chat: &Chat, socket: &Socket, room: Uuid, seq: u64) -> Result<Marked> {
    let identity = socket.client.identity().ok_or_else(|| Error::new(Code::Unauthorized, "not connected"))?;
    let credential = socket.client.credential.present();
    match chat.marks.begin(room, identity.user_id, seq, credential.clone())?.outcome().await {
        Err(error) if error.code == Code::Forbidden => {
            // A room that is hidden from the user does not exist for the user.
            let get = GetRoomRequest { caller: Some(identity.user.clone()), id: room.to_string(), moderator: false };
            let get = credential.attach(grpc::request(get, chat.clients.read));
            chat.clients.room.clone().get_room(get).await?;
            Err(error)
        }
        outcome => outcome,
    }
}

/// The marker of the client's user in a room; `None` for a user who is not a member, and while the message service does
/// not answer.
pub async fn of(chat: &Chat, socket: &Socket, room: Uuid) -> Option<Marker> {
    let user_id = socket.client.identity()?.user_id.to_string();
    let list = ListMarkersRequest { user_id, room_ids: vec![room.to_string()] };
    let list = socket.client.credential.present().attach(grpc::request(list, chat.clients.read));
    chat.clients.message.clone().list_markers(list).await.ok()?.into_inner().markers.pop()
}

/// Marks a message as read by its author.
pub fn authored(chat: &Chat, socket: &Socket, room: Uuid, seq: u64) {
    if let Some(identity) = socket.client.identity() {
        chat.marks.authored(room, identity.user_id, seq, &socket.client.credential.present());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unread {
    room_id: Uuid,
    unread: u64,
    mentions: u64,
    read_seq: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    room_id: Uuid,
    reads: Vec<Receipt>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    user_id: Uuid,
    seq: u64,
    at: Time,
}

/// Shows moved markers to the clients of this gateway.
pub async fn show(chat: Arc<Chat>, mut moved: Receiver<Arc<[MovedMarker]>>) {
    let mut receipts = Receipts::default();
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            markers = moved.recv() => match markers {
                Ok(markers) => markers.iter().for_each(|marker| show_one(&chat, marker, &mut receipts)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            _ = ticks.tick(), if !receipts.0.is_empty() => receipts.take().for_each(|read| {
                chat.hub.notify(read.room_id, &Frame::event("read", &read));
            }),
        }
    }
}

fn show_one(chat: &Chat, marker: &MovedMarker, receipts: &mut Receipts) {
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).unwrap_or_default();
    let (room_id, user) = (id(&marker.room_id), id(&marker.user_id));
    let sockets = chat.sign_ins.of_user(user);
    if !sockets.is_empty() {
        let unread = Unread { room_id, unread: marker.unread, mentions: 0, read_seq: marker.seq };
        let event = Frame::event("unread", &unread);
        sockets.iter().for_each(|socket| socket.notify(&event));
    }
    if marker.has_receipts && chat.hub.has(room_id) {
        receipts.add(room_id, Receipt { user_id: user, seq: marker.seq, at: Time(marker.at_ms) });
    }
}

/// The receipts that wait for the next `read` event of their room: the newest one of each user.
#[derive(Default)]
struct Receipts(HashMap<Uuid, HashMap<Uuid, Receipt>>, usize);

impl Receipts {
    fn add(&mut self, room: Uuid, receipt: Receipt) {
        let Self(rooms, count) = self;
        if *count >= MAX_RECEIPTS {
            return;
        }
        let earlier = rooms.entry(room).or_default().insert(receipt.user_id, receipt);
        *count += usize::from(earlier.is_none());
    }

    fn take(&mut self) -> impl Iterator<Item = Read> {
        let Self(rooms, _) = std::mem::take(self);
        rooms.into_iter().map(|(room_id, reads)| Read { room_id, reads: reads.into_values().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(user: u128, seq: u64) -> Receipt {
        Receipt { user_id: Uuid::from_u128(user), seq, at: Time(0) }
    }

    #[test]
    fn an_event_has_the_newest_receipt_of_each_user() {
        let (mut receipts, rooms) = (Receipts::default(), [Uuid::from_u128(1), Uuid::from_u128(2)]);
        for (room, receipt) in [(0, receipt(7, 1)), (0, receipt(7, 3)), (0, receipt(8, 2)), (1, receipt(7, 9))] {
            receipts.add(rooms[room], receipt);
        }
        let mut reads: Vec<_> = receipts.take().collect();
        reads.sort_by_key(|read| read.room_id);
        let seqs = |read: &Read| {
            let mut seqs: Vec<_> = read.reads.iter().map(|receipt| receipt.seq).collect();
            seqs.sort_unstable();
            seqs
        };
        assert_eq!(reads.iter().map(seqs).collect::<Vec<_>>(), [vec![2, 3], vec![9]]);
        assert!(receipts.take().next().is_none());
    }

    #[test]
    fn receipts_that_wait_are_bounded() {
        let (mut receipts, room) = (Receipts::default(), Uuid::from_u128(1));
        for user in 0..MAX_RECEIPTS as u128 + 10 {
            receipts.add(room, receipt(user, 1));
        }
        assert_eq!(receipts.take().next().unwrap().reads.len(), MAX_RECEIPTS);
    }
}
