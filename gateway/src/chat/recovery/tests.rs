use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

const USER: &str = "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01";
const ROOM: Uuid = Uuid::from_u128(7);
const OTHER: Uuid = Uuid::from_u128(8);
const EPOCH: Uuid = Uuid::from_u128(9);

/// The rooms that a client could be recovered to, if any.
type Back = Option<Vec<(Uuid, u64)>>;

/// A client and the frames that were queued for it.
struct Client {
    recovery: Recovery,
    pid: String,
    sent: Mutex<Vec<Frame>>,
}

impl Client {
    fn new() -> Self {
        let offset = Offset::new(USER);
        Self { pid: offset.pid(), recovery: Recovery::new(offset), sent: Mutex::default() }
    }

    fn queue(&self, frames: &[Frame]) {
        self.sent.lock().extend_from_slice(frames);
    }

    fn arrive(&self, room: Uuid, last_seq: u64, arrival: &Arrival<'_>, missed: &[Frame]) {
        self.recovery.arrive(room, last_seq, arrival, missed, |frames| self.queue(frames));
    }

    fn join(&self, room: Uuid, last_seq: u64, epoch: Uuid) {
        self.arrive(room, last_seq, &Arrival::Joined { answer: Some(Frame::ack(1, &"ok")), epoch }, &[]);
    }

    fn deliver(&self, room: Uuid, first: u64, events: &[u64]) {
        self.recovery.deliver(room, first, &frames(events), |frames| self.queue(frames));
    }

    /// The frames since the last call: each event's name or first argument, and the rooms of its offset, if a client
    /// can be recovered from it.
    fn sent(&self) -> Vec<(Value, Back)> {
        let frames = std::mem::take(&mut *self.sent.lock());
        let read = |frame: &Frame| {
            let text = std::str::from_utf8(frame.packet()).unwrap();
            let Some(event) = text.strip_prefix("42") else { return (json!("answer"), None) };
            let parts = serde_json::from_str::<Vec<Value>>(event).unwrap();
            let offset = Offset::decode(parts.last().unwrap().as_str().unwrap(), &self.pid, USER);
            let rooms = offset.map(|offset| offset.rooms.into_iter().map(|(room, seq)| (room, seq.unwrap())).collect());
            (if parts[0] == "session" { parts[0].clone() } else { parts[1].clone() }, rooms)
        };
        frames.iter().map(read).collect()
    }
}

fn frames(events: &[u64]) -> Vec<Frame> {
    events.iter().map(|event| Frame::event("message", event)).collect()
}

#[test]
fn every_event_contains_the_offset_after_it() {
    let client = Client::new();
    client.recovery.begin(|frames| client.queue(frames));
    client.arrive(ROOM, 4, &Arrival::Joined { answer: None, epoch: EPOCH }, &frames(&[5, 6]));
    client.deliver(ROOM, 7, &[7, 8]);
    client.join(OTHER, 0, EPOCH);
    client.recovery.queue_event(&Frame::event("error", &"e"), |frames| client.queue(frames));
    client.deliver(OTHER, 1, &[1]);
    client.recovery.left(ROOM, |frames| client.queue(frames));
    client.recovery.left(ROOM, |_| panic!("queued once"));
    let expected = [
        (json!("session"), Some(vec![])),
        (json!("session"), None),
        (json!("session"), Some(vec![(ROOM, 4)])),
        (json!(5), Some(vec![(ROOM, 5)])),
        (json!(6), Some(vec![(ROOM, 6)])),
        (json!(7), Some(vec![(ROOM, 7)])),
        (json!(8), Some(vec![(ROOM, 8)])),
        (json!("session"), None),
        (json!("answer"), None),
        (json!("session"), Some(vec![(ROOM, 8), (OTHER, 0)])),
        (json!("e"), Some(vec![(ROOM, 8), (OTHER, 0)])),
        (json!(1), Some(vec![(ROOM, 8), (OTHER, 1)])),
        (json!("session"), Some(vec![(OTHER, 1)])),
    ];
    assert_eq!(client.sent(), expected);
}

#[test]
fn a_recovered_client_continues_from_its_offset() {
    let before = Offset { epoch: EPOCH, rooms: [(ROOM, Some(2)), (OTHER, Some(9))].into(), ..Offset::new(USER) };
    let client = Client { pid: before.pid(), recovery: Recovery::new(before), sent: Mutex::default() };
    client.arrive(ROOM, 4, &Arrival::Restored(&frames(&[3, 4])), &frames(&[5]));
    client.arrive(OTHER, 9, &Arrival::Restored(&[]), &[]);
    let at = |seq| Some(vec![(ROOM, seq), (OTHER, 9)]);
    assert_eq!(client.sent(), [(json!(3), at(3)), (json!(4), at(4)), (json!(5), at(5))]);
    // A failed join does not change the rooms.
    client.arrive(ROOM, 5, &Arrival::Stayed, &frames(&[6]));
    assert_eq!(client.sent(), [(json!(6), at(6))]);
}

#[test]
fn too_many_rooms_and_two_epochs_prevent_recovery() {
    let client = Client::new();
    let rooms = (1..=17).map(Uuid::from_u128).collect::<Vec<_>>();
    rooms.iter().for_each(|room| client.join(*room, 1, EPOCH));
    assert_eq!(client.sent().pop().unwrap().1, None);
    client.recovery.left(rooms[3], |frames| client.queue(frames));
    assert_eq!(client.sent().pop().unwrap().1.unwrap().len(), 16);

    let client = Client::new();
    client.join(ROOM, 5, EPOCH);
    client.join(OTHER, 1, Uuid::from_u128(10));
    assert_eq!(client.sent().pop().unwrap().1, None);
    client.join(ROOM, 2, Uuid::from_u128(10));
    assert_eq!(client.sent().pop().unwrap().1.unwrap(), [(ROOM, 2), (OTHER, 1)]);
}
