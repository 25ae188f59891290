//! Reactions from the callers' view.

use confab_common::Code;
use confab_common::bus::Notice;
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1 as pb;
use confab_proto::{channel, partition};
use prost::Message;
use uuid::Uuid;

use super::*;
use crate::testing::{Fixture, PARTITIONS, message};

/// A reaction of a user.
fn react(message: &pb::Event, user: u128, name: &str, on: bool) -> pb::NewEvent {
    let change =
        pb::NewChange { target: message.seq, op: pb::Op::React.into(), name: name.into(), on, ..<_>::default() };
    pb::NewEvent {
        id: Uuid::now_v7().to_string(),
        room_id: message.room_id.clone(),
        kind: pb::Kind::Change.into(),
        sender: Some(UserRef { id: Uuid::from_u128(user).to_string(), username: format!("user-{user}") }),
        change: Some(change),
        timeout_ms: 60_000,
        ..Default::default()
    }
}

async fn posted(fixture: &Fixture) -> pb::Event {
    let room = Uuid::now_v7();
    let opening = pb::OpenRoomRequest { room_id: room.to_string(), ..Default::default() };
    fixture.client.clone().open_room(opening).await.unwrap();
    fixture.send(message(room, "text")).await.unwrap().0
}

fn named(message: &pb::Event) -> Vec<(&str, u64, Option<bool>)> {
    let reactions = message.state.iter().flat_map(|state| &state.reactions);
    reactions.map(|reaction| (&*reaction.name, reaction.count, reaction.mine)).collect()
}

#[tokio::test]
async fn a_reaction_is_answered_published_and_read() {
    let fixture = Fixture::new().await;
    let first = posted(&fixture).await;
    let (subscriptions, mut notices) = fixture.bus.listen();
    subscriptions.subscribe(channel::log(partition::of_room(first.room_id.parse().unwrap(), PARTITIONS))).await;
    fixture.send(react(&first, 1, "a", true)).await.unwrap();
    let answered = fixture.send(react(&first, 2, "b", true)).await.unwrap().0;
    let change = answered.change.as_deref().unwrap();
    let present = change.message.as_deref().unwrap();
    assert_eq!(named(present), [("a", 1, Some(false)), ("b", 1, Some(true))]);
    assert_eq!((change.op(), change.target, change.reactions.len(), answered.seq), (pb::Op::React, 1, 0, 3));
    assert_eq!((&present.id, &*present.content, present.state.as_ref().unwrap().revision), (&first.id, "", 3));
    // What changes nothing.
    let again = fixture.send(react(&first, 1, "a", true)).await.unwrap().0;
    assert_eq!((again.seq, named(&again)), (1, vec![("a", 1, Some(true)), ("b", 1, Some(false))]));

    let mut published = Vec::new();
    while published.len() < 2 {
        if let Some(Notice::Message { payload, .. }) = notices.next().await {
            published.extend(pb::Hint::decode(payload).unwrap().events);
        }
    }
    let change = published[1].change.as_deref().unwrap();
    let reacted = &change.reactions[0];
    assert_eq!((&*reacted.user.as_ref().unwrap().username, &*reacted.name, reacted.on), ("user-2", "b", true));
    assert_eq!(named(change.message.as_deref().unwrap()), [("a", 1, None), ("b", 1, None)]);
    assert_eq!((&published[1].sender, &*published[1].content), (&reacted.user, ""));
}

#[tokio::test]
async fn reactions_are_listed_with_a_cursor() {
    let fixture = Fixture::new().await;
    let first = posted(&fixture).await;
    for user in 1..=3 {
        fixture.send(react(&first, user, "a", true)).await.unwrap();
    }
    fixture.send(react(&first, 1, "b", true)).await.unwrap();
    let reading = pb::Reading { room_id: first.room_id.clone(), ..Default::default() };
    let list = async |request: pb::ListReactionsRequest| {
        let reading = Some(reading.clone());
        let list = fixture.client.clone().list_reactions(pb::ListReactionsRequest { reading, ..request }).await;
        list.map(tonic::Response::into_inner).map_err(|status| Error::from(status).code)
    };
    let page =
        |cursor: &str| pb::ListReactionsRequest { seq: 1, limit: 3, cursor: cursor.into(), ..Default::default() };
    let one = list(page("")).await.unwrap();
    let two = list(page(&one.next_cursor)).await.unwrap();
    let users = one.reactions.iter().chain(&two.reactions).map(|it| it.user.as_ref().unwrap().username.as_str());
    assert_eq!(users.collect::<Vec<_>>(), ["user-1", "user-2", "user-3", "user-1"]);
    assert_eq!((&*two.next_cursor, &*two.reactions[0].name), ("", "b"));
    let named = list(pb::ListReactionsRequest { name: "b".into(), ..page("") }).await.unwrap();
    assert_eq!((named.reactions.len(), &*named.next_cursor), (1, ""));
    for (request, code) in [
        (pb::ListReactionsRequest { seq: 2, ..page("") }, Code::NotFound),
        (pb::ListReactionsRequest { limit: 0, ..page("") }, Code::InvalidRequest),
        (pb::ListReactionsRequest { limit: 201, ..page("") }, Code::InvalidRequest),
        (page("x"), Code::InvalidRequest),
    ] {
        assert_eq!(list(request).await.unwrap_err(), code);
    }
    let own = pb::Reading { reader: Uuid::from_u128(1).to_string(), ..reading.clone() };
    let own = pb::ListOwnReactionsRequest { reading: Some(own), seqs: vec![1, 9] };
    let own = fixture.client.clone().list_own_reactions(own).await.unwrap().into_inner().messages;
    assert_eq!(own, [pb::OwnReactions { seq: 1, names: vec!["a".into(), "b".into()] }]);
}

#[tokio::test]
async fn invalid_reactions_are_rejected() {
    let fixture = Fixture::new().await;
    let first = posted(&fixture).await;
    for name in ["", ".", "..", "a\n", "e\u{301}", &"x".repeat(65)] {
        let refused = fixture.send(react(&first, 1, name, true)).await.unwrap_err();
        assert!(refused.0 == "invalid_request" && refused.1.starts_with("name must"), "{refused:?}");
    }
    let named = pb::NewEvent { client_message_id: Some("c".into()), ..react(&first, 1, "x", true) };
    assert_eq!(fixture.send(named).await.unwrap_err().0, "invalid_request");
    let mut moderated = react(&first, 1, "x", true);
    moderated.change.as_mut().unwrap().moderator = true;
    assert_eq!(fixture.send(moderated).await.unwrap_err().0, "forbidden");
    let mut pin = react(&first, 1, "x", true);
    pin.change.as_mut().unwrap().op = pb::Op::Pin.into();
    assert_eq!(fixture.send(pin).await.unwrap_err().0, "invalid_request");
}

#[tokio::test]
async fn reactions_come_with_their_format() {
    let fixture = Fixture::of_format(1).await;
    let first = fixture.send(message(Uuid::now_v7(), "first")).await.unwrap().0;
    let refused = fixture.send(react(&first, 1, "x", true)).await.unwrap_err();
    assert!(refused.0 == "unavailable" && refused.1.contains("finish-upgrade"), "{refused:?}");
    fixture.client.clone().rooms_opened(pb::RoomsOpenedRequest {}).await.unwrap();
    fixture.send(react(&first, 1, "x", true)).await.unwrap();
}
