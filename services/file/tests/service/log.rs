//! A fake message service that records its calls and can be made unreachable.

use std::collections::BTreeSet;
use std::sync::Arc;

use confab_common::grpc::{Transport, in_process};
use confab_proto::message::v1::message_service_server::{MessageService, MessageServiceServer};
use confab_proto::message::v1::*;
use parking_lot::{Mutex, MutexGuard};
use tonic::{Request, Response, Status};

/// The behaviour of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Mood {
    #[default]
    Well,
    /// Answers `unavailable`.
    Away,
    /// Executes the call, but the answer is lost.
    Mute,
    /// Rejects events with this code.
    Refusing(&'static str),
}

#[derive(Default)]
struct State {
    mood: Mood,
    events: Vec<NewEvent>,
    forgotten: Vec<(String, String)>,
    closed: Vec<String>,
    attempts: usize,
    asked: BTreeSet<String>,
}

#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<State>>);

impl Log {
    pub fn transport(&self) -> Transport {
        in_process(MessageServiceServer::new(self.clone()))
    }

    pub fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Returns the number of calls of `Append`.
    pub fn attempts(&self) -> usize {
        self.state().attempts
    }

    /// Returns how many events calls of `Append` contained, including rejected ones.
    pub fn asked(&self) -> usize {
        self.state().asked.len()
    }

    pub fn events(&self) -> Vec<NewEvent> {
        self.state().events.clone()
    }

    /// Adds an event from another source.
    pub fn has(&self, event: NewEvent) {
        self.state().events.push(event);
    }

    /// Returns the rooms and files of deletions, without duplicates.
    pub fn forgotten(&self) -> Vec<(String, String)> {
        let mut forgotten = self.state().forgotten.clone();
        forgotten.sort();
        forgotten.dedup();
        forgotten
    }

    pub fn close(&self, room: &str) {
        self.state().closed.push(room.into());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Returns the state, unless the log is away, and whether the answer will be lost.
    fn called(&self) -> Result<(MutexGuard<'_, State>, bool), Status> {
        let state = self.state();
        match state.mood {
            Mood::Away => Err(Status::unavailable("away")),
            mood => Ok((state, mood == Mood::Mute)),
        }
    }
}

/// Returns whether both have the same identity, so that one is a repeat.
fn same(one: &NewEvent, other: &NewEvent) -> bool {
    let client = |event: &NewEvent| event.client_message_id.clone().ok_or(event.id.clone());
    let sender = |event: &NewEvent| event.sender.as_ref().map(|sender| sender.id.clone());
    one.room_id == other.room_id && sender(one) == sender(other) && client(one) == client(other)
}

fn event(new: &NewEvent, index: usize) -> Event {
    Event {
        id: new.id.clone(),
        room_id: new.room_id.clone(),
        seq: index as u64 + 1,
        kind: new.kind,
        sender: new.sender.clone(),
        client_message_id: new.client_message_id.clone(),
        content: new.content.clone(),
        files: new.files.clone(),
        ..Event::default()
    }
}

fn outcome(state: &mut State, new: NewEvent) -> Outcome {
    let closed = state.closed.contains(&new.room_id).then_some("not_found");
    let refusing = if let Mood::Refusing(code) = state.mood { Some(code) } else { closed };
    if let Some(code) = refusing {
        let refusal = Refusal { code: code.into(), detail: "rejected by the test".into() };
        return Outcome { result: Some(outcome::Result::Refusal(refusal)), duplicate: false };
    }
    let first = state.events.iter().position(|event| same(event, &new));
    let duplicate = first.is_some_and(|index| state.events[index].id != new.id);
    let index = first.unwrap_or_else(|| {
        state.events.push(new);
        state.events.len() - 1
    });
    Outcome { result: Some(outcome::Result::Event(event(&state.events[index], index))), duplicate }
}

#[tonic::async_trait]
impl MessageService for Log {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let events = request.into_inner().events;
        self.state().attempts += 1;
        self.state().asked.extend(events.iter().map(|event| event.id.clone()));
        let (mut state, lost) = self.called()?;
        let outcomes = events.into_iter().map(|event| outcome(&mut state, event)).collect();
        if lost {
            Err(Status::unknown("connection reset"))
        } else {
            Ok(Response::new(AppendResponse { epoch: String::new(), outcomes }))
        }
    }

    async fn get_room_heads(
        &self,
        request: Request<GetRoomHeadsRequest>,
    ) -> Result<Response<GetRoomHeadsResponse>, Status> {
        let (state, _) = self.called()?;
        let rooms = request.into_inner().room_ids.into_iter();
        let heads = rooms
            .map(|room_id| RoomHead { closed: state.closed.contains(&room_id), room_id, ..RoomHead::default() })
            .collect();
        Ok(Response::new(GetRoomHeadsResponse { heads, ..GetRoomHeadsResponse::default() }))
    }

    async fn forget_files(
        &self,
        request: Request<ForgetFilesRequest>,
    ) -> Result<Response<ForgetFilesResponse>, Status> {
        let (mut state, lost) = self.called()?;
        let ForgetFilesRequest { room_id, ids } = request.into_inner();
        state.forgotten.extend(ids.into_iter().map(|id| (room_id.clone(), id)));
        if lost { Err(Status::unknown("connection reset")) } else { Ok(Response::new(ForgetFilesResponse {})) }
    }

    async fn open_room(&self, _: Request<OpenRoomRequest>) -> Result<Response<OpenRoomResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }

    async fn rooms_opened(&self, _: Request<RoomsOpenedRequest>) -> Result<Response<RoomsOpenedResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
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
}
