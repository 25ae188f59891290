//! The scripted log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use confab_common::{Code, Error};
use confab_proto::message::v1::*;
use confab_proto::partition;
use confab_proto::room::v1::{Role, Visibility};
use parking_lot::Mutex;
use prost::Message;
use uuid::Uuid;

use crate::testing::services::ROOM;

pub const EPOCH: &str = "01930000-0000-7000-8000-000000000001";
const PARTITIONS: u32 = 64;

/// The log of one room, whose events have equal numbers in the room and in the partition.
pub struct Log {
    pub epoch: Mutex<&'static str>,
    pub head: AtomicU64,
    content: String,
    /// The changes of the room's visibility and members, with the names of their events, by `seq`.
    changes: Mutex<BTreeMap<u64, (&'static str, AccessChange)>>,
    /// The `seq`s of edited messages, by those of the edits.
    edits: Mutex<BTreeMap<u64, u64>>,
    /// Whether all calls fail with `unavailable`.
    pub away: AtomicBool,
    /// Whether the partition can be read.
    pub readable: AtomicBool,
    /// The number of polls of heads, of reads of the partition, and of reads of the room's history.
    pub heads: AtomicU64,
    pub reads: AtomicU64,
    pub lists: AtomicU64,
    /// The calls that append, each with its events.
    pub appends: Mutex<Vec<Vec<NewEvent>>>,
    /// Runs once, during the next read of the room's history.
    pub meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Log {
    /// A log of 7 events, whose contents have `content` bytes.
    pub fn new(content: usize) -> Self {
        Self {
            epoch: Mutex::new(EPOCH),
            head: AtomicU64::new(7),
            content: "x".repeat(content),
            changes: Mutex::default(),
            edits: Mutex::default(),
            away: AtomicBool::new(false),
            readable: AtomicBool::new(true),
            heads: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            lists: AtomicU64::new(0),
            appends: Mutex::default(),
            meanwhile: Mutex::default(),
        }
    }

    pub fn event(&self, seq: u64) -> Event {
        let event = Event { partition: partition(), position: seq, room_id: ROOM.into(), seq, ..Event::default() };
        let target = self.edits.lock().get(&seq).copied();
        if let Some(target) = target {
            let change = Change {
                target,
                op: Op::Edit.into(),
                message: Some(Box::new(self.event(target))),
                ..Change::default()
            };
            return Event { kind: Kind::Change.into(), change: Some(Box::new(change)), ..event };
        }
        let state = |revision| State { revision, ..State::default() };
        let state = self.edits.lock().iter().rfind(|(_, target)| **target == seq).map(|(edit, _)| state(*edit));
        let event = Event { state, ..event };
        match self.changes.lock().get(&seq) {
            None => Event { content: self.content.clone(), ..event },
            Some((name, access)) => {
                let (kind, name) = (Kind::System.into(), (*name).into());
                Event { kind, event: name, data: "{}".into(), access: Some(access.clone()), ..event }
            }
        }
    }

    /// Appends a change of the room's visibility or members, without a hint; returns its number.
    pub fn change(&self, name: &'static str, access: AccessChange) -> u64 {
        let seq = self.head.load(Ordering::SeqCst) + 1;
        self.changes.lock().insert(seq, (name, access));
        self.head.store(seq, Ordering::SeqCst);
        seq
    }

    /// Appends an edit of a message, without a hint; returns its number.
    pub fn edit(&self, target: u64) -> u64 {
        let seq = self.head.load(Ordering::SeqCst) + 1;
        self.edits.lock().insert(seq, target);
        self.head.store(seq, Ordering::SeqCst);
        seq
    }

    /// The members at this `seq`, if the room is private then.
    fn members(&self, seq: u64) -> Option<BTreeSet<String>> {
        let (mut private, mut members) = (false, BTreeSet::new());
        for (_, (_, change)) in self.changes.lock().range(..=seq) {
            private = change.visibility() == Visibility::Private;
            members.extend(change.members.iter().map(|member| member.user_id.clone()));
            members.retain(|user| !change.removed.contains(user));
        }
        private.then_some(members)
    }

    /// The events after `after` up to `head`, within `max_bytes`.
    fn events(&self, after: u64, head: u64, max_bytes: u32) -> Vec<Event> {
        let mut bytes = 0;
        let within = |event: &Event| {
            bytes += event.encoded_len();
            bytes <= max_bytes as usize
        };
        (after + 1..=head).map(|seq| self.event(seq)).take_while(within).collect()
    }

    /// The outcome of an event: a message is stored, an edit is the repeat of an earlier one, and other changes would
    /// change nothing.
    fn outcome(&self, new: NewEvent) -> Outcome {
        let Some(change) = new.change else {
            let event = Event { id: new.id, content: new.content, ..self.event(1) };
            return Outcome { result: Some(outcome::Result::Event(event)), duplicate: false };
        };
        let message = self.event(change.target);
        if change.op() == Op::React {
            let reactions = vec![Reaction { name: change.name, count: 2, mine: Some(change.on) }];
            let message = Event { state: Some(State { revision: 9, reactions, ..State::default() }), ..message };
            return Outcome { result: Some(outcome::Result::Unchanged(message)), duplicate: false };
        }
        if change.op() != Op::Edit {
            return Outcome { result: Some(outcome::Result::Unchanged(message)), duplicate: false };
        }
        let message = Some(Box::new(Event { content: new.content, ..message }));
        let change = Some(Box::new(Change { target: change.target, op: change.op, message, ..Change::default() }));
        let event = Event { kind: Kind::Change.into(), change, ..Event::default() };
        Outcome { result: Some(outcome::Result::Event(event)), duplicate: true }
    }

    /// Answers a call of the message service.
    pub fn answer(&self, method: &str, body: Bytes) -> Result<Vec<u8>, Error> {
        let (epoch, head) = (self.epoch.lock().to_string(), self.head.load(Ordering::SeqCst));
        match method {
            _ if self.away.load(Ordering::SeqCst) => Err(Error::new(Code::Unavailable, "not now")),
            "GetHeads" => {
                self.heads.fetch_add(1, Ordering::SeqCst);
                let partitions = GetHeadsRequest::decode(body).unwrap().partitions;
                let position = |wanted| if wanted == partition() { head } else { 0 };
                let heads =
                    partitions.into_iter().map(|partition| Head { partition, position: position(partition) }).collect();
                Ok(GetHeadsResponse { epoch, partition_count: PARTITIONS, heads }.encode_to_vec())
            }
            "Append" => {
                let events = AppendRequest::decode(body).unwrap().events;
                self.appends.lock().push(events.clone());
                let outcomes = events.into_iter().map(|event| self.outcome(event)).collect();
                Ok(AppendResponse { epoch, outcomes }.encode_to_vec())
            }
            "ReadLog" => {
                self.reads.fetch_add(1, Ordering::SeqCst);
                if !self.readable.load(Ordering::SeqCst) {
                    return Err(Error::new(Code::Unavailable, "not now"));
                }
                let request = ReadLogRequest::decode(body).unwrap();
                Ok(ReadLogResponse { epoch, head, events: self.events(request.after, head, request.max_bytes) }
                    .encode_to_vec())
            }
            "ListEvents" => {
                self.lists.fetch_add(1, Ordering::SeqCst);
                if let Some(meanwhile) = self.meanwhile.lock().take() {
                    meanwhile();
                }
                let request = ListEventsRequest::decode(body).unwrap();
                let mut events =
                    request.after.map_or_else(Vec::new, |after| self.events(after, head, request.max_bytes));
                let more = events.last().is_some_and(|last| last.seq < head);
                events.retain(|event| event.kind() != Kind::Change);
                let more = more || events.len() > request.limit as usize;
                events.truncate(request.limit as usize);
                let (mut readers, members) = (request.readers, self.members(head));
                readers.retain(|reader| members.as_ref().is_some_and(|members| members.contains(reader)));
                let private = members.is_some();
                if private && readers.is_empty() {
                    return Err(Error::new(Code::NotFound, "the room is not open to the readers"));
                }
                Ok(ListEventsResponse {
                    epoch,
                    last_seq: head,
                    events,
                    private,
                    readers,
                    more,
                    ..ListEventsResponse::default()
                }
                .encode_to_vec())
            }
            "ReadEvents" => {
                let after = ReadEventsRequest::decode(body).unwrap().after.unwrap();
                let mut events = self.events(after, head, u32::MAX);
                let changes = events.iter_mut().filter_map(|event| event.change.as_mut());
                changes.for_each(|change| change.message = None);
                Ok(ReadEventsResponse { epoch, last_seq: head, events, more: false }.encode_to_vec())
            }
            "ListChanges" => {
                let list = ListChangesRequest::decode(body).unwrap();
                let mut messages = (list.from..=list.up_to).map(|seq| self.event(seq)).collect::<Vec<_>>();
                messages.retain(|message| message.state.as_ref().is_some_and(|state| state.revision > list.after));
                Ok(ListChangesResponse { epoch, last_seq: head, messages, more: false }.encode_to_vec())
            }
            _ => Err(Error::internal("unexpected call")),
        }
    }
}

/// The partition of the room.
pub fn partition() -> u32 {
    partition::of_room(ROOM.parse().unwrap(), PARTITIONS)
}

/// A change of the members of a private room.
pub fn access(members: &[u128], removed: &[u128]) -> AccessChange {
    let id = |user: &u128| Uuid::from_u128(*user).to_string();
    let member = |user: &u128| RoomMember { user_id: id(user), role: Role::Member.into() };
    AccessChange {
        members: members.iter().map(member).collect(),
        removed: removed.iter().map(id).collect(),
        visibility: Visibility::Private.into(),
        changes_visibility: false,
    }
}

/// A change that makes the room private, with these members.
pub fn hide(members: &[u128]) -> AccessChange {
    AccessChange { changes_visibility: true, ..access(members, &[]) }
}
