//! The shutdown of the program.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use confab_common::bus::{Bus, Notice};
use confab_common::grpc::{Call, connect, request};
use confab_common::testing;
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::{AppendRequest, Hint, Kind, NewEvent, OpenRoomRequest};
use confab_proto::{channel, partition};
use prost::Message;
use uuid::Uuid;

#[tokio::test]
async fn last_hint_is_published_before_exit() {
    let room = Uuid::now_v7();
    let event = NewEvent {
        id: Uuid::now_v7().to_string(),
        room_id: room.to_string(),
        kind: Kind::System.into(),
        sender: Some(UserRef { id: Uuid::now_v7().to_string(), username: "ada".into() }),
        event: "roomUpdated".into(),
        data: "{}".into(),
        ..NewEvent::default()
    };
    let (subscriptions, mut notices) = Bus::open(&testing::redis(), None).unwrap().listen();
    subscriptions.subscribe(channel::log(partition::of_room(room, partition::DEFAULT_COUNT))).await;

    let appended = AppendRequest { events: vec![event.clone()], ..AppendRequest::default() };
    let opening = OpenRoomRequest { room_id: room.to_string(), ..OpenRoomRequest::default() };
    let act = async |url: &str| {
        let mut client = MessageServiceClient::new(connect(url).unwrap());
        let _ = client.open_room(request(opening.clone(), Call::within(Duration::from_secs(5)))).await;
        client.append(request(appended.clone(), Call::within(Duration::from_secs(5)))).await.is_ok()
    };
    let received = async || {
        loop {
            if let Notice::Message { payload, .. } = notices.next().await.unwrap() {
                let hint = Hint::decode(payload).unwrap();
                if hint.events.iter().any(|received| received.id == event.id) {
                    return;
                }
            }
        }
    };
    testing::leave_in_silence(confab_message::run, act, received).await;
}
