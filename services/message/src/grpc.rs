//! Converts between gRPC and domain types.

use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::{MAX_MESSAGE, Peer, Role, caller};
use confab_common::{Code, Error, Result, text};
use confab_identity::{Claim, credential};
use confab_proto::message::v1 as pb;
use confab_proto::message::v1::message_service_server::{MessageService, MessageServiceServer};
use confab_proto::room::v1::Visibility;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::check::NewEvent;
use crate::convert;
use crate::credentials::{self, Readers};
use crate::service::{History, Sent, Service, check_count};
use crate::store::{LastTimes, Reopening, Window};

pub struct Grpc(Arc<Service>);

/// Creates a gRPC server of this service.
pub fn server(service: Arc<Service>) -> MessageServiceServer<Grpc> {
    MessageServiceServer::new(Grpc(service))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

#[tonic::async_trait]
impl MessageService for Grpc {
    async fn append(&self, request: Request<pb::AppendRequest>) -> Result<Response<pb::AppendResponse>, Status> {
        let (peer, claim) = (caller(&request), Claim::of(&request));
        let pb::AppendRequest { events, credentials } = request.into_inner();
        check_count(events.len())?;
        let admitted = credentials::admit(&claim, events, &credentials).await?;
        let is_known = admitted.iter().map(Option::is_some).collect::<Vec<_>>();
        let checked = admitted.into_iter().flatten().map(|event| event.and_then(|event| new_event(event, &peer)));
        let (epoch, sent) = self.0.append(checked.collect()).await?;
        let mut sent = sent.into_iter();
        let outcomes = is_known
            .into_iter()
            .map(|known| known.then(|| sent.next()).flatten().map_or_else(unknown, outcome))
            .collect();
        Ok(Response::new(pb::AppendResponse { epoch: epoch.to_string(), outcomes }))
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let claim = Claim::of(&request);
        let request = request.into_inner();
        let (admitted, refused) = match credentials::readers(&claim, &request).await? {
            Readers::Checked { admitted, refused } => (admitted, refused),
            Readers::Unknown { unverified: refused_readers } => {
                let answer =
                    pb::ListEventsResponse { credentials_unknown: true, refused_readers, ..Default::default() };
                return Ok(Response::new(answer));
            }
        };
        let pb::ListEventsRequest { room_id, before, after, limit, max_bytes, moderator, .. } = request;
        let window = match (before, after) {
            (None, None) => Window::Latest,
            (Some(seq), None) => Window::Before(seq),
            (None, Some(seq)) => Window::After(seq),
            (Some(_), Some(_)) => return Err(Error::field("before", "must not be combined with after").into()),
        };
        let listed = self.0.list(&room_id, window, (limit, max_bytes), &admitted, moderator).await?;
        let History { page, more, access } = listed;
        Ok(Response::new(pb::ListEventsResponse {
            epoch: page.epoch.to_string(),
            last_seq: page.head,
            events: page.events.iter().map(convert::event).collect(),
            more,
            private: access.private,
            readers: access.readers.iter().map(Uuid::to_string).collect(),
            refused_readers: refused,
            credentials_unknown: false,
        }))
    }

    async fn read_log(&self, request: Request<pb::ReadLogRequest>) -> Result<Response<pb::ReadLogResponse>, Status> {
        let pb::ReadLogRequest { partition, after, limit, max_bytes } = request.into_inner();
        let page = self.0.read_log(partition, after, limit, max_bytes).await?;
        let events = page.events.iter().map(convert::event).collect();
        Ok(Response::new(pb::ReadLogResponse { epoch: page.epoch.to_string(), head: page.head, events }))
    }

    async fn get_heads(&self, request: Request<pb::GetHeadsRequest>) -> Result<Response<pb::GetHeadsResponse>, Status> {
        let heads = self.0.heads(&request.into_inner().partitions).await?;
        Ok(Response::new(pb::GetHeadsResponse {
            epoch: heads.epoch.to_string(),
            partition_count: self.0.partitions(),
            heads: heads.heads.into_iter().map(|(partition, position)| pb::Head { partition, position }).collect(),
        }))
    }

    async fn get_room_heads(
        &self,
        request: Request<pb::GetRoomHeadsRequest>,
    ) -> Result<Response<pb::GetRoomHeadsResponse>, Status> {
        let pb::GetRoomHeadsRequest { room_ids, until_ms } = request.into_inner();
        let (heads, times) = self.0.room_heads(&room_ids, until_ms).await?;
        let times = times.into_iter().chain(std::iter::repeat(LastTimes::default()));
        Ok(Response::new(pb::GetRoomHeadsResponse {
            epoch: heads.epoch.to_string(),
            heads: heads.heads.into_iter().zip(times).map(convert::room_head).collect(),
            format: self.0.format(),
            has_times: until_ms.is_some(),
        }))
    }

    async fn forget_files(
        &self,
        request: Request<pb::ForgetFilesRequest>,
    ) -> Result<Response<pb::ForgetFilesResponse>, Status> {
        let pb::ForgetFilesRequest { room_id, ids } = request.into_inner();
        self.0.forget_files(&room_id, &ids).await?;
        Ok(Response::new(pb::ForgetFilesResponse {}))
    }

    async fn open_room(&self, request: Request<pb::OpenRoomRequest>) -> Result<Response<pb::OpenRoomResponse>, Status> {
        let request = request.into_inner();
        let private = request.visibility() == Visibility::Private;
        let members = convert::members("members", &request.members)?;
        if request.epoch.is_empty() {
            self.0.open_room(&request.room_id, private, members).await?;
        } else {
            let (epoch, partial) = (text::id("epoch", &request.epoch)?, request.partial);
            self.0.reopen_room(&request.room_id, Reopening { epoch, private, members, partial }).await?;
        }
        Ok(Response::new(pb::OpenRoomResponse {}))
    }

    async fn rooms_opened(
        &self,
        _: Request<pb::RoomsOpenedRequest>,
    ) -> Result<Response<pb::RoomsOpenedResponse>, Status> {
        self.0.rooms_opened().await?;
        Ok(Response::new(pb::RoomsOpenedResponse {}))
    }
}

/// Converts an event that this program sends. Each kind of event has one author among the programs.
fn new_event(event: pb::NewEvent, peer: &Peer) -> Result<NewEvent> {
    let author = match event.kind() {
        pb::Kind::File => Role::File,
        pb::Kind::System => Role::Room,
        pb::Kind::Message | pb::Kind::Unspecified => Role::Gateway,
    };
    if !peer.is(author) {
        return Err(Error::new(Code::Forbidden, "another program appends events of this kind"));
    }
    Ok(NewEvent {
        files: event.files.into_iter().map(|file| convert::new_file(file, &event.room_id)).collect::<Result<_>>()?,
        id: event.id,
        room_id: event.room_id,
        kind: convert::kind(event.kind),
        sender: event.sender.map(|sender| (sender.id, sender.username)),
        client_message_id: event.client_message_id,
        content: event.content,
        event: event.event,
        data: event.data,
        file_ids: event.file_ids,
        closes_room: event.closes_room,
        access: event.access.as_ref().map(convert::access_change).transpose()?,
        traceparent: event.traceparent,
        timeout: Duration::from_millis(event.timeout_ms.into()),
    })
}

/// The outcome of an event that the caller sends again with its credential.
fn unknown() -> pb::Outcome {
    let detail = "the service does not know the credential; send the event again with it".into();
    let refusal = pb::Refusal { code: credential::UNKNOWN.into(), detail };
    pb::Outcome { result: Some(pb::outcome::Result::Refusal(refusal)), duplicate: false }
}

fn outcome(sent: Sent) -> pb::Outcome {
    use pb::outcome::Result::{Event, Refusal};
    match sent {
        Ok((event, duplicate)) => pb::Outcome { result: Some(Event(convert::event(&event))), duplicate },
        Err(error) => {
            let refusal = pb::Refusal { code: error.code.as_str().into(), detail: error.detail };
            pb::Outcome { result: Some(Refusal(refusal)), duplicate: false }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_event_has_one_author() {
        for (kind, author) in
            [(pb::Kind::Message, Role::Gateway), (pb::Kind::File, Role::File), (pb::Kind::System, Role::Room)]
        {
            for role in Role::ALL {
                let event = pb::NewEvent { kind: kind.into(), ..pb::NewEvent::default() };
                let refusal = new_event(event, &Peer::with(role)).err().map(|error| error.code);
                assert_eq!(refusal, (role != author).then_some(Code::Forbidden), "{kind:?} from {role:?}");
            }
        }
    }
}
