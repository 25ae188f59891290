//! A fake message service that records the openings and events, and can be made unreachable.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use confab_common::grpc::{Transport, in_process};
use confab_proto::message::v1::message_service_server::{MessageService, MessageServiceServer};
use confab_proto::message::v1::*;
use confab_proto::room::v1::{Role, Visibility};
use parking_lot::{Mutex, MutexGuard};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// The behaviour of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Mood {
    #[default]
    Well,
    /// Answers `unavailable`.
    Away,
    /// Works, but the answer is lost.
    Mute,
    /// Rejects events with this error code.
    Refusing(&'static str),
}

struct State {
    mood: Mood,
    /// From format 2 on, the log has members, and only rooms that are open accept events.
    format: u32,
    /// Renewed when the log's database is restored.
    epoch: Uuid,
    /// The number of calls of `GetRoomHeads`.
    heads: usize,
    /// Whether the replica is of the release before, which opens no rooms.
    is_old: bool,
    openings: BTreeMap<String, OpenRoomRequest>,
    /// Whether the room service has reported that all rooms are open.
    all_opened: bool,
    events: Vec<NewEvent>,
    attempts: usize,
    /// When events of a room were appended, in milliseconds since the Unix epoch.
    times: BTreeMap<String, Vec<i64>>,
    /// The number of events in each append that was answered.
    batches: Vec<usize>,
}

#[derive(Clone)]
pub struct Log(Arc<Mutex<State>>);

impl Default for Log {
    fn default() -> Self {
        let (openings, events, times) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let (mood, format, is_old, all_opened) = (Mood::Well, 2, false, false);
        let (epoch, heads, attempts, batches) = (Uuid::now_v7(), 0, 0, Vec::new());
        let state =
            State { mood, format, epoch, heads, is_old, openings, all_opened, events, attempts, batches, times };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Log {
    pub fn transport(&self) -> Transport {
        in_process(MessageServiceServer::new(self.clone()))
    }

    pub fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Sets the format, and whether the replica is of the release before.
    pub fn has_format(&self, format: u32, is_old: bool) {
        let mut state = self.state();
        (state.format, state.is_old) = (format, is_old);
    }

    /// Adds the time of an event to a room.
    pub fn active(&self, room: &str, at_ms: i64) {
        self.state().times.entry(room.into()).or_default().push(at_ms);
    }

    /// Forgets everything, as a log whose database is restored to an older state.
    pub fn restore(&self) {
        let mut state = self.state();
        state.openings.clear();
        state.events.clear();
        state.epoch = Uuid::now_v7();
    }

    /// Returns the number of calls of `GetRoomHeads`.
    pub fn heads(&self) -> usize {
        self.state().heads
    }

    /// Returns the number of calls of `Append`.
    pub fn attempts(&self) -> usize {
        self.state().attempts
    }

    /// Returns the number of events in each append that the log did.
    pub fn batches(&self) -> Vec<usize> {
        self.state().batches.clone()
    }

    pub fn events(&self) -> Vec<NewEvent> {
        self.state().events.clone()
    }

    /// Returns the names and data of a room's events.
    pub fn of_room(&self, room: &str) -> Vec<(String, String)> {
        self.room_events(room).into_iter().map(|event| (event.event, event.data)).collect()
    }

    /// Returns the last event of a room.
    pub fn last(&self, room: &str) -> NewEvent {
        self.room_events(room).pop().expect("an event of the room")
    }

    fn room_events(&self, room: &str) -> Vec<NewEvent> {
        self.events().into_iter().filter(|event| event.room_id == room).collect()
    }

    /// Returns how the log opened a room.
    pub fn opening(&self, room: &str) -> Option<OpenRoomRequest> {
        self.state().openings.get(room).cloned()
    }

    /// Returns whether the room service has reported that all rooms are open.
    pub fn all_opened(&self) -> bool {
        self.state().all_opened
    }

    /// Returns what the log knows of a room: its visibility, and the roles of its members.
    pub fn room(&self, room: &str) -> (Visibility, BTreeMap<String, Role>) {
        let opening = self.opening(room).expect("the room is open");
        let mut roles = opening.members.iter().map(|member| (member.user_id.clone(), member.role())).collect();
        let mut visibility = opening.visibility();
        for access in self.room_events(room).into_iter().filter_map(|event| event.access) {
            visibility = access.visibility();
            apply(&mut roles, &access);
        }
        (visibility, roles)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

fn apply(roles: &mut BTreeMap<String, Role>, access: &AccessChange) {
    assert_ne!(access.visibility(), Visibility::Unspecified);
    let named = access.members.iter().map(|member| &member.user_id).chain(&access.removed);
    assert_eq!(named.clone().collect::<BTreeSet<_>>().len(), named.count(), "a user is named once");
    for user in &access.removed {
        roles.remove(user);
    }
    for member in &access.members {
        assert_ne!(member.role(), Role::Unspecified);
        roles.insert(member.user_id.clone(), member.role());
    }
}

/// Opens a room, or adds a page of members to a room that is being opened.
fn continue_opening(openings: &mut BTreeMap<String, OpenRoomRequest>, open: OpenRoomRequest) {
    match openings.entry(open.room_id.clone()) {
        Entry::Vacant(entry) => {
            entry.insert(open);
        }
        Entry::Occupied(mut entry) if entry.get().partial => {
            let opening = entry.get_mut();
            opening.members.extend(open.members);
            opening.partial = open.partial;
        }
        Entry::Occupied(_) => {}
    }
}

fn has_events(state: &State, room: &str) -> bool {
    state.events.iter().any(|event| event.room_id == room)
}

fn refused(code: &str) -> Outcome {
    let refusal = Refusal { code: code.into(), detail: "rejected by the test".into() };
    Outcome { result: Some(outcome::Result::Refusal(refusal)), duplicate: false }
}

fn outcome(state: &mut State, new: NewEvent) -> Outcome {
    if let Mood::Refusing(code) = state.mood {
        return refused(code);
    }
    let is_open = state.openings.contains_key(&new.room_id) || has_events(state, &new.room_id);
    if state.format >= 2 && !is_open {
        return refused("not_found");
    }
    assert!(state.format >= 2 || new.access.is_none(), "an earlier format has no members");
    let duplicate = state.events.iter().any(|event| event.id == new.id);
    let event = Event { id: new.id.clone(), room_id: new.room_id.clone(), ..Event::default() };
    if !duplicate {
        let closed = state.events.iter().any(|event| event.room_id == new.room_id && event.closes_room);
        assert!(!closed, "no event follows the closing event");
        state.events.push(new);
    }
    Outcome { result: Some(outcome::Result::Event(event)), duplicate }
}

#[tonic::async_trait]
impl MessageService for Log {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let mut state = self.state();
        state.attempts += 1;
        if state.mood == Mood::Away {
            return Err(Status::unavailable("away"));
        }
        let events = request.into_inner().events;
        state.batches.push(events.len());
        let outcomes = events.into_iter().map(|event| outcome(&mut state, event)).collect();
        match state.mood {
            Mood::Mute => Err(Status::unknown("connection reset")),
            _ => Ok(Response::new(AppendResponse { epoch: String::new(), outcomes })),
        }
    }

    async fn open_room(&self, request: Request<OpenRoomRequest>) -> Result<Response<OpenRoomResponse>, Status> {
        let (mut state, open) = (self.state(), request.into_inner());
        match state.mood {
            Mood::Away => return Err(Status::unavailable("away")),
            _ if state.is_old => return Err(Status::unimplemented("OpenRoom")),
            _ if state.format < 2 && open.visibility() == Visibility::Private => {
                return Err(Status::unavailable("an earlier format"));
            }
            _ => {}
        }
        let is_late = !open.epoch.is_empty() && open.epoch != state.epoch.to_string();
        assert!(open.members.len() <= 1000, "the log rejects more members in one call");
        if !has_events(&state, &open.room_id) && !is_late {
            continue_opening(&mut state.openings, open);
        }
        match state.mood {
            Mood::Mute => Err(Status::unknown("connection reset")),
            _ => Ok(Response::new(OpenRoomResponse {})),
        }
    }

    async fn get_room_heads(
        &self,
        request: Request<GetRoomHeadsRequest>,
    ) -> Result<Response<GetRoomHeadsResponse>, Status> {
        let mut state = self.state();
        state.heads += 1;
        if state.mood == Mood::Away {
            return Err(Status::unavailable("away"));
        }
        let GetRoomHeadsRequest { room_ids, until_ms } = request.into_inner();
        let until_ms = until_ms.filter(|_| !state.is_old);
        let head = |room_id: String| {
            let times = state.times.get(&room_id).filter(|_| until_ms.is_some()).cloned().unwrap_or_default();
            let last_event_at_ms = times.iter().copied().max();
            let last_event_until_ms = times.into_iter().filter(|at| Some(*at) <= until_ms).max();
            RoomHead { room_id, last_event_at_ms, last_event_until_ms, ..RoomHead::default() }
        };
        let heads = room_ids.into_iter().map(head).collect();
        let (format, has_times, epoch) = (state.format, until_ms.is_some(), state.epoch.to_string());
        Ok(Response::new(GetRoomHeadsResponse { heads, format, has_times, epoch }))
    }

    async fn rooms_opened(&self, _: Request<RoomsOpenedRequest>) -> Result<Response<RoomsOpenedResponse>, Status> {
        let mut state = self.state();
        if state.is_old {
            return Err(Status::unimplemented("RoomsOpened"));
        }
        state.all_opened = true;
        Ok(Response::new(RoomsOpenedResponse {}))
    }

    async fn read_events(&self, _: Request<ReadEventsRequest>) -> Result<Response<ReadEventsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_changes(&self, _: Request<ListChangesRequest>) -> Result<Response<ListChangesResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_versions(&self, _: Request<ListVersionsRequest>) -> Result<Response<ListVersionsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_pins(&self, _: Request<ListPinsRequest>) -> Result<Response<ListPinsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn mark_read(&self, _: Request<MarkReadRequest>) -> Result<Response<MarkReadResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_markers(&self, _: Request<ListMarkersRequest>) -> Result<Response<ListMarkersResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_receipts(&self, _: Request<ListReceiptsRequest>) -> Result<Response<ListReceiptsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn set_notify(&self, _: Request<SetNotifyRequest>) -> Result<Response<SetNotifyResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_reactions(
        &self,
        _: Request<ListReactionsRequest>,
    ) -> Result<Response<ListReactionsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_own_reactions(
        &self,
        _: Request<ListOwnReactionsRequest>,
    ) -> Result<Response<ListOwnReactionsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn search(&self, _: Request<SearchRequest>) -> Result<Response<SearchResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn list_events(&self, _: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn read_log(&self, _: Request<ReadLogRequest>) -> Result<Response<ReadLogResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn get_heads(&self, _: Request<GetHeadsRequest>) -> Result<Response<GetHeadsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn forget_files(&self, _: Request<ForgetFilesRequest>) -> Result<Response<ForgetFilesResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }
}
