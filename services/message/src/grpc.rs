//! Converts between gRPC and domain types.

use std::sync::Arc;
use std::time::Duration;

use confab_common::grpc::{MAX_MESSAGE, Peer, Role, caller};
use confab_common::{Code, Error, Result, text};
use confab_identity::{Claim, credential, verified};
use confab_proto::message::v1 as pb;
use confab_proto::message::v1::message_service_server::{MessageService, MessageServiceServer};
use confab_proto::room::v1::Visibility;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::check::NewEvent;
use crate::convert;
use crate::credentials::{self, Readers};
use crate::service::{Ask, Asked, Found, FoundMessages, History, Reading, Search, Sent, Service, check_count};
use crate::store::{ChangedBetween, LastTimes, Reopening, Window};

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
        let pb::ListEventsRequest { room_id, before, after, limit, max_bytes, moderator, changed_from, .. } = request;
        let (window, readers) = (window(before, after)?, &admitted);
        let ask = Ask { room: &room_id, window, limit, max_bytes, readers, moderator, changed_from };
        let History { page, more, changed, access } = self.0.list(ask).await?;
        Ok(Response::new(pb::ListEventsResponse {
            epoch: page.epoch.to_string(),
            last_seq: page.head,
            last_ordinal: page.messages,
            events: page.events.iter().map(convert::event).collect(),
            more,
            private: access.private,
            readers: access.readers.iter().map(Uuid::to_string).collect(),
            refused_readers: refused,
            credentials_unknown: false,
            changed: changed.messages.iter().map(convert::event).collect(),
            more_changed: changed.more,
        }))
    }

    async fn read_events(
        &self,
        request: Request<pb::ReadEventsRequest>,
    ) -> Result<Response<pb::ReadEventsResponse>, Status> {
        let pb::ReadEventsRequest { reading, before, after, limit, max_bytes } = verified(request)?;
        let asked = reading.unwrap_or_default();
        let History { page, more, .. } =
            self.0.read_events(self::reading(&asked), window(before, after)?, limit, max_bytes).await?;
        let events = page.events.iter().map(convert::event).collect();
        Ok(Response::new(pb::ReadEventsResponse { epoch: page.epoch.to_string(), last_seq: page.head, events, more }))
    }

    async fn list_changes(
        &self,
        request: Request<pb::ListChangesRequest>,
    ) -> Result<Response<pb::ListChangesResponse>, Status> {
        let pb::ListChangesRequest { reading, after, from, up_to, limit, max_bytes } = verified(request)?;
        let asked = reading.unwrap_or_default();
        let between = ChangedBetween { after, from, up_to: if up_to == 0 { u64::MAX } else { up_to } };
        let (page, changed) = self.0.changes(self::reading(&asked), between, limit, max_bytes).await?;
        Ok(Response::new(pb::ListChangesResponse {
            epoch: page.epoch.to_string(),
            last_seq: page.head,
            messages: changed.messages.iter().map(convert::event).collect(),
            more: changed.more,
        }))
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let pb::ListVersionsRequest { reading, seq } = verified(request)?;
        let versions = self.0.versions(self::reading(&reading.unwrap_or_default()), seq).await?;
        Ok(Response::new(pb::ListVersionsResponse { versions: versions.into_iter().map(convert::version).collect() }))
    }

    async fn list_pins(&self, request: Request<pb::ListPinsRequest>) -> Result<Response<pb::ListPinsResponse>, Status> {
        let asked = verified(request)?.reading.unwrap_or_default();
        let page = self.0.pins(reading(&asked)).await?;
        let messages = page.events.iter().map(convert::event).collect();
        Ok(Response::new(pb::ListPinsResponse { epoch: page.epoch.to_string(), last_seq: page.head, messages }))
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

    async fn mark_read(&self, request: Request<pb::MarkReadRequest>) -> Result<Response<pb::MarkReadResponse>, Status> {
        let claim = Claim::of(&request);
        let pb::MarkReadRequest { marks, credentials, receipts_max_members } = request.into_inner();
        let checked = credentials::markers(&claim, &marks, &credentials).await?;
        let admitted = marks.iter().zip(&checked).filter(|(_, checked)| matches!(checked, Some(Ok(()))));
        let asked = admitted.map(|(mark, _)| Asked {
            room: &mark.room_id,
            user: &mark.user_id,
            seq: mark.seq,
            age_ms: mark.age_ms,
            back: mark.back,
        });
        let mut marked = self.0.mark(&asked.collect::<Vec<_>>(), receipts_max_members).await?.into_iter();
        let outcomes = checked.into_iter().map(|checked| match checked {
            None => pb::mark_outcome::Result::Refusal(unknown_credential()),
            Some(Err(error)) => pb::mark_outcome::Result::Refusal(refusal(error)),
            Some(Ok(())) => match marked.next().unwrap_or_else(|| Err(Error::timeout())) {
                Ok(marked) => pb::mark_outcome::Result::Marked(convert::marked(marked)),
                Err(error) => pb::mark_outcome::Result::Refusal(refusal(error)),
            },
        });
        let outcomes = outcomes.map(|result| pb::MarkOutcome { result: Some(result) }).collect();
        Ok(Response::new(pb::MarkReadResponse { outcomes }))
    }

    async fn list_markers(
        &self,
        request: Request<pb::ListMarkersRequest>,
    ) -> Result<Response<pb::ListMarkersResponse>, Status> {
        let pb::ListMarkersRequest { user_id, room_ids } = verified(request)?;
        let markers = self.0.markers(&user_id, &room_ids).await?;
        Ok(Response::new(pb::ListMarkersResponse { markers: markers.into_iter().map(convert::marker).collect() }))
    }

    async fn list_receipts(
        &self,
        request: Request<pb::ListReceiptsRequest>,
    ) -> Result<Response<pb::ListReceiptsResponse>, Status> {
        let pb::ListReceiptsRequest { reading, most } = verified(request)?;
        let receipts = self.0.receipts(self::reading(&reading.unwrap_or_default()), most).await?;
        Ok(Response::new(pb::ListReceiptsResponse { receipts: receipts.into_iter().map(convert::receipt).collect() }))
    }

    async fn set_notify(
        &self,
        request: Request<pb::SetNotifyRequest>,
    ) -> Result<Response<pb::SetNotifyResponse>, Status> {
        let pb::SetNotifyRequest { room_id, user_id, notify } = verified(request)?;
        self.0.set_notify(&room_id, &user_id, convert::notify(notify.unwrap_or_default())?).await?;
        Ok(Response::new(pb::SetNotifyResponse {}))
    }

    async fn search(&self, request: Request<pb::SearchRequest>) -> Result<Response<pb::SearchResponse>, Status> {
        let asked = verified(request)?;
        let found = self.0.search(Search {
            reader: &asked.reader,
            moderator: asked.moderator,
            room: &asked.room_id,
            query: &asked.query,
            sender: &asked.sender_id,
            before_ms: asked.before_ms,
            limit: asked.limit,
            cursor: &asked.cursor,
        });
        Ok(Response::new(self::found(found.await?)))
    }

    async fn list_reactions(
        &self,
        request: Request<pb::ListReactionsRequest>,
    ) -> Result<Response<pb::ListReactionsResponse>, Status> {
        let pb::ListReactionsRequest { reading, seq, name, limit, cursor } = verified(request)?;
        let asked = reading.unwrap_or_default();
        let (reactions, next) = self.0.reactions(self::reading(&asked), seq, &name, limit, &cursor).await?;
        let reactions = reactions.into_iter().map(convert::reaction_entry).collect();
        Ok(Response::new(pb::ListReactionsResponse { reactions, next_cursor: next.unwrap_or_default() }))
    }

    async fn list_own_reactions(
        &self,
        request: Request<pb::ListOwnReactionsRequest>,
    ) -> Result<Response<pb::ListOwnReactionsResponse>, Status> {
        let pb::ListOwnReactionsRequest { reading, seqs } = verified(request)?;
        let own = self.0.own_reactions(self::reading(&reading.unwrap_or_default()), seqs).await?;
        let messages = own.into_iter().map(|(seq, names)| pb::OwnReactions { seq, names }).collect();
        Ok(Response::new(pb::ListOwnReactionsResponse { messages }))
    }
}

/// Converts the messages that a search has found.
fn found(found: FoundMessages) -> pb::SearchResponse {
    let items = found.items.into_iter().map(|(message, highlights)| pb::FoundMessage {
        message: Some(convert::event(&message)),
        highlights: highlights.into_iter().map(|(start, end)| pb::Highlight { start, end }).collect(),
    });
    let (epoch, items) = (found.epoch.to_string(), items.collect());
    pb::SearchResponse { epoch, items, next_cursor: found.next_cursor, up_to_ms: found.up_to_ms }
}

/// Returns the window of a page.
fn window(before: Option<u64>, after: Option<u64>) -> Result<Window> {
    match (before, after) {
        (None, None) => Ok(Window::Latest),
        (Some(seq), None) => Ok(Window::Before(seq)),
        (None, Some(seq)) => Ok(Window::After(seq)),
        (Some(_), Some(_)) => Err(Error::field("before", "must not be combined with after")),
    }
}

fn reading(reading: &pb::Reading) -> Reading<'_> {
    Reading { room: &reading.room_id, reader: &reading.reader, moderator: reading.moderator }
}

/// Converts an event that this program sends. Each kind of event has one author among the programs.
fn new_event(mut event: pb::NewEvent, peer: &Peer) -> Result<NewEvent> {
    let author = match event.kind() {
        pb::Kind::File => Role::File,
        pb::Kind::System => Role::Room,
        pb::Kind::Message | pb::Kind::Change | pb::Kind::Unspecified => Role::Gateway,
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
        change: event.change.as_ref().map(convert::new_change).transpose()?,
        message_data: event.message_data,
        new_data: event.change.as_mut().and_then(|change| change.data.take()),
        reaction: event.change.map(|change| (change.name, change.on)),
        traceparent: event.traceparent,
        timeout: Duration::from_millis(event.timeout_ms.into()),
    })
}

/// The refusal of an event or a mark that the caller sends again with its credential.
fn unknown_credential() -> pb::Refusal {
    let detail = "the service does not know the credential; send the event again with it".into();
    pb::Refusal { code: credential::UNKNOWN.into(), detail }
}

fn refusal(error: Error) -> pb::Refusal {
    pb::Refusal { code: error.code.as_str().into(), detail: error.detail }
}

fn unknown() -> pb::Outcome {
    pb::Outcome { result: Some(pb::outcome::Result::Refusal(unknown_credential())), duplicate: false }
}

fn outcome(sent: Sent) -> pb::Outcome {
    use pb::outcome::Result::{Event, Refusal, Unchanged};
    match sent {
        Ok((message, Found::Unchanged)) => {
            pb::Outcome { result: Some(Unchanged(convert::event(&message))), duplicate: false }
        }
        Ok((event, Found::Reacted)) => {
            let is_new = event.message.is_some();
            let event = convert::answered(&event);
            pb::Outcome { result: Some(if is_new { Event(event) } else { Unchanged(event) }), duplicate: false }
        }
        Ok((event, found)) => {
            pb::Outcome { result: Some(Event(convert::event(&event))), duplicate: found == Found::Duplicate }
        }
        Err(error) => pb::Outcome { result: Some(Refusal(refusal(error))), duplicate: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_event_has_one_author() {
        for (kind, author) in [
            (pb::Kind::Message, Role::Gateway),
            (pb::Kind::Change, Role::Gateway),
            (pb::Kind::File, Role::File),
            (pb::Kind::System, Role::Room),
        ] {
            for role in Role::ALL {
                let event = pb::NewEvent { kind: kind.into(), ..pb::NewEvent::default() };
                let refusal = new_event(event, &Peer::with(role)).err().map(|error| error.code);
                assert_eq!(refusal, (role != author).then_some(Code::Forbidden), "{kind:?} from {role:?}");
            }
        }
    }
}
