//! A fake message service that records the events and can be made unreachable.

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
    /// Appends, but the answer is lost.
    Mute,
    /// Rejects events with this error code.
    Refusing(&'static str),
}

#[derive(Default)]
struct State {
    mood: Mood,
    events: Vec<NewEvent>,
    attempts: usize,
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

    pub fn events(&self) -> Vec<NewEvent> {
        self.state().events.clone()
    }

    /// Returns the names and data of a room's events.
    pub fn of_room(&self, room: &str) -> Vec<(String, String)> {
        self.events().into_iter().filter(|event| event.room_id == room).map(|event| (event.event, event.data)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

fn outcome(state: &mut State, new: NewEvent) -> Outcome {
    if let Mood::Refusing(code) = state.mood {
        let refusal = Refusal { code: code.into(), detail: "rejected by the test".into() };
        return Outcome { result: Some(outcome::Result::Refusal(refusal)), duplicate: false };
    }
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
        let outcomes = events.into_iter().map(|event| outcome(&mut state, event)).collect();
        match state.mood {
            Mood::Mute => Err(Status::unknown("connection reset")),
            _ => Ok(Response::new(AppendResponse { epoch: String::new(), outcomes })),
        }
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

    async fn get_room_heads(&self, _: Request<GetRoomHeadsRequest>) -> Result<Response<GetRoomHeadsResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }
    async fn forget_files(&self, _: Request<ForgetFilesRequest>) -> Result<Response<ForgetFilesResponse>, Status> {
        Err(Status::unimplemented("not used by this test"))
    }
}
