//! Changes of messages from the callers' view.

mod data;

use confab_common::bus::Notice;
use confab_common::testing;
use confab_identity::credential::{Credential, message_credential};
use confab_identity::testing::{auth, callers, token_of};
use confab_proto::auth::v1::UserRef;
use confab_proto::message::v1 as pb;
use confab_proto::room::v1::{Role, Visibility};
use confab_proto::{channel, partition};
use prost::Message;
use uuid::Uuid;

use super::*;
use crate::testing::{Fixture, PARTITIONS, message, outcome};

/// A change of a message by its author.
fn change(message: &pb::Event, op: pb::Op, content: &str) -> pb::NewEvent {
    pb::NewEvent {
        id: Uuid::now_v7().to_string(),
        room_id: message.room_id.clone(),
        kind: pb::Kind::Change.into(),
        sender: message.sender.clone(),
        content: content.into(),
        change: Some(pb::NewChange { target: message.seq, op: op.into(), ..Default::default() }),
        timeout_ms: 60_000,
        ..Default::default()
    }
}

/// Sends a message of the owner of a new room; returns both.
async fn posted(fixture: &Fixture, visibility: Visibility) -> (pb::Event, UserRef) {
    let (room, owner) = (Uuid::now_v7(), UserRef { id: Uuid::now_v7().to_string(), username: "ada".into() });
    let opening = pb::OpenRoomRequest {
        room_id: room.to_string(),
        visibility: visibility.into(),
        members: vec![pb::RoomMember { user_id: owner.id.clone(), role: Role::Owner.into() }],
        ..Default::default()
    };
    fixture.client.clone().open_room(opening).await.unwrap();
    let event = pb::NewEvent { sender: Some(owner.clone()), ..message(room, "first") };
    (fixture.send(event).await.unwrap().0, owner)
}

fn reading(message: &pb::Event, reader: &str) -> Option<pb::Reading> {
    Some(pb::Reading { room_id: message.room_id.clone(), reader: reader.into(), moderator: false })
}

#[tokio::test]
async fn a_change_is_answered_published_and_read() {
    let fixture = Fixture::new().await;
    let (first, owner) = posted(&fixture, Visibility::Public).await;
    let partition = partition::of_room(first.room_id.parse().unwrap(), PARTITIONS);
    let (subscriptions, mut notices) = fixture.bus.listen();
    subscriptions.subscribe(channel::log(partition)).await;
    let edit = pb::NewEvent { client_message_id: Some("once".into()), ..change(&first, pb::Op::Edit, "better") };
    let (edited, duplicate) = fixture.send(edit.clone()).await.unwrap();
    assert!(!duplicate && edited.state.is_none());
    assert_eq!((edited.seq, edited.position, edited.kind(), edited.content.as_str()), (2, 2, pb::Kind::Change, ""));
    let made = edited.change.as_deref().unwrap();
    assert_eq!((made.target, made.op()), (1, pb::Op::Edit));
    let present = made.message.as_deref().unwrap();
    let state = present.state.as_ref().unwrap();
    assert_eq!((present.seq, present.content.as_str(), state.revision, state.pinned), (1, "better", 2, false));
    assert!(state.edited_at_ms == Some(edited.created_at_ms) && state.deleted_by.is_none());
    let hint = loop {
        if let Some(Notice::Message { payload, .. }) = notices.next().await {
            break pb::Hint::decode(payload).unwrap();
        }
    };
    assert_eq!((hint.first_position, &hint.events), (2, &vec![edited.clone()]));

    let again = pb::NewEvent { id: Uuid::now_v7().to_string(), content: "best".into(), ..edit };
    assert_eq!(fixture.send(again).await.unwrap(), (edited.clone(), true));
    // The identity of an edit names no message, not even one whose files cannot be attached.
    let other = pb::NewEvent {
        client_message_id: Some("once".into()),
        sender: Some(owner.clone()),
        file_ids: vec![Uuid::now_v7().to_string()],
        ..message(first.room_id.parse().unwrap(), "text")
    };
    for other in [pb::NewEvent { file_ids: Vec::new(), ..other.clone() }, other] {
        assert_eq!(fixture.send(other).await.unwrap_err().0, "conflict");
    }
    let mut client = fixture.client.clone();
    let request = pb::AppendRequest { events: vec![change(&first, pb::Op::Edit, "better")], ..Default::default() };
    let unchanged = client.append(request).await.unwrap().into_inner().outcomes.remove(0);
    assert_eq!(unchanged.result, Some(pb::outcome::Result::Unchanged(present.clone())));

    assert_eq!(fixture.history(first.room_id.parse().unwrap()).await, std::slice::from_ref(present));
    let log = client.read_log(pb::ReadLogRequest { partition, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(log.events, [present.clone(), edited.clone()]);
    let reading = || reading(&first, &owner.id);
    let events = pb::ReadEventsRequest { reading: reading(), after: Some(0), limit: 10, ..Default::default() };
    let events = client.read_events(events).await.unwrap().into_inner();
    let bare = pb::Change { message: None, ..made.clone() };
    let bare = pb::Event { change: Some(Box::new(bare)), ..edited.clone() };
    assert_eq!((events.last_seq, events.more, events.events), (2, false, vec![present.clone(), bare]));
    let changes = pb::ListChangesRequest { reading: reading(), limit: 10, ..Default::default() };
    let changes = client.list_changes(changes).await.unwrap().into_inner();
    assert_eq!((changes.last_seq, changes.more, changes.messages), (2, false, vec![present.clone()]));
    let list = pb::ListEventsRequest {
        room_id: first.room_id.clone(),
        after: Some(1),
        limit: 10,
        changed_from: Some(1),
        ..Default::default()
    };
    let caught_up = fixture.list(list).await.unwrap();
    assert_eq!((caught_up.events.len(), caught_up.more), (0, false));
    assert_eq!((caught_up.changed, caught_up.more_changed), (vec![present.clone()], false));
    let versions = client.list_versions(pb::ListVersionsRequest { reading: reading(), seq: 1 }).await.unwrap();
    let version = |revision, content: &str, at_ms| pb::Version {
        revision,
        content: content.into(),
        at_ms,
        by: Some(owner.clone()),
    };
    let written = [version(1, "first", first.created_at_ms), version(2, "better", edited.created_at_ms)];
    assert_eq!(versions.into_inner().versions, written);

    fixture.send(change(&first, pb::Op::Pin, "")).await.unwrap();
    let pins = client.list_pins(pb::ListPinsRequest { reading: reading() }).await.unwrap().into_inner();
    assert_eq!((pins.last_seq, pins.messages.len()), (3, 1));
    assert!(pins.messages[0].state.as_ref().unwrap().pinned);
    fixture.send(change(&first, pb::Op::Unpin, "")).await.unwrap();
    let deleted = fixture.send(change(&first, pb::Op::Delete, "")).await.unwrap().0;
    let deleted = *deleted.change.unwrap().message.unwrap();
    assert_eq!((deleted.content.as_str(), deleted.state.unwrap().deleted_by), ("", Some(owner.clone())));
    let versions = client.list_versions(pb::ListVersionsRequest { reading: reading(), seq: 1 }).await.unwrap();
    assert_eq!(versions.into_inner().versions, []);
    let pins = client.list_pins(pb::ListPinsRequest { reading: reading() }).await.unwrap().into_inner();
    assert_eq!((pins.last_seq, pins.messages), (5, vec![]));
}

#[tokio::test]
async fn each_refusal_has_its_code() {
    let fixture = Fixture::new().await;
    let (first, owner) = posted(&fixture, Visibility::Public).await;
    let system = pb::NewEvent {
        kind: pb::Kind::System.into(),
        event: "roomUpdated".into(),
        content: String::new(),
        ..message(first.room_id.parse().unwrap(), "")
    };
    let system = pb::Event { sender: Some(owner), ..fixture.send(system).await.unwrap().0 };
    fixture.send(change(&first, pb::Op::Edit, "better")).await.unwrap();
    let with = |new: pb::NewEvent, change: &dyn Fn(&mut pb::NewChange)| {
        let mut new = new;
        change(new.change.as_mut().unwrap());
        new
    };
    let edit = || change(&first, pb::Op::Edit, "best");
    let other_author = Some(UserRef { id: Uuid::now_v7().to_string(), username: "eve".into() });
    let cases = [
        (pb::NewEvent { change: None, ..edit() }, "invalid_request", "change"),
        (pb::NewEvent { kind: pb::Kind::Message.into(), ..edit() }, "invalid_request", "change"),
        (with(edit(), &|it| it.op = 0), "invalid_request", "op"),
        (with(edit(), &|it| it.target = 0), "invalid_request", "target"),
        (with(edit(), &|it| it.target_id = "1".into()), "invalid_request", "id"),
        (change(&first, pb::Op::Pin, "text"), "invalid_request", "content"),
        (change(&first, pb::Op::Edit, ""), "invalid_request", "content must not be empty"),
        (change(&first, pb::Op::Edit, &"x".repeat(16_385)), "too_large", "content"),
        (pb::NewEvent { file_ids: vec![Uuid::now_v7().to_string()], ..edit() }, "invalid_request", "fileIds"),
        (with(edit(), &|it| it.target = 3), "not_found", "message"),
        (with(edit(), &|it| it.target = u64::MAX), "not_found", "message"),
        (pb::NewEvent { room_id: fixture.rooms.unknown.to_string(), ..edit() }, "not_found", "room"),
        (pb::NewEvent { sender: other_author, ..edit() }, "forbidden", "message"),
        (change(&system, pb::Op::Delete, ""), "forbidden", "room events"),
        (with(edit(), &|it| it.target_id = Uuid::now_v7().to_string()), "conflict", "restored"),
        (with(edit(), &|it| it.unchanged_since = Some(2)), "precondition_failed", "since"),
    ];
    for (new, code, detail) in cases {
        let refusal = fixture.send(new.clone()).await.unwrap_err();
        assert!(refusal.0 == code && refusal.1.contains(detail), "{refusal:?} for {new:?}");
    }
    fixture.send(change(&first, pb::Op::Delete, "")).await.unwrap();
    let refusal = fixture.send(edit()).await.unwrap_err();
    assert!(refusal.0 == "conflict" && refusal.1.contains("deleted"), "{refusal:?}");
}

#[tokio::test]
async fn readers_have_their_rights() {
    let fixture = Fixture::new().await;
    let (first, owner) = posted(&fixture, Visibility::Private).await;
    let mut client = fixture.client.clone();
    let mut codes = async |reading: Option<pb::Reading>, limit| {
        let events = pb::ReadEventsRequest { reading: reading.clone(), limit, ..Default::default() };
        let changes = pb::ListChangesRequest { reading: reading.clone(), limit, ..Default::default() };
        let results = [
            client.read_events(events).await.map(drop),
            client.list_changes(changes).await.map(drop),
            client.list_versions(pb::ListVersionsRequest { reading: reading.clone(), seq: 1 }).await.map(drop),
            client.list_pins(pb::ListPinsRequest { reading }).await.map(drop),
        ];
        results.map(|result| result.err().map(|status| Error::from(status).code))
    };
    let moderated = pb::Reading { moderator: true, ..reading(&first, "").unwrap() };
    assert_eq!(codes(reading(&first, &owner.id), 1).await, [None; 4]);
    assert_eq!(codes(Some(moderated), 1).await, [None; 4]);
    assert_eq!(codes(reading(&first, &Uuid::now_v7().to_string()), 1).await, [Some(Code::NotFound); 4]);
    assert_eq!(codes(reading(&first, ""), 1).await, [Some(Code::NotFound); 4]);
    let unknown = pb::Reading { room_id: Uuid::now_v7().to_string(), ..reading(&first, &owner.id).unwrap() };
    assert_eq!(codes(Some(unknown), 1).await, [Some(Code::NotFound); 4]);
    assert_eq!(codes(None, 1).await, [Some(Code::InvalidRequest); 4]);
    assert_eq!(codes(reading(&first, "ada"), 1).await, [Some(Code::InvalidRequest); 4]);
    for limit in [0, 201] {
        let invalid = Some(Code::InvalidRequest);
        assert_eq!(codes(reading(&first, &owner.id), limit).await, [invalid, invalid, None, None]);
    }
    let not_after = pb::ListEventsRequest {
        room_id: first.room_id.clone(),
        readers: vec![owner.id.clone()],
        changed_from: Some(1),
        ..Default::default()
    };
    assert_eq!(fixture.list(not_after).await.unwrap_err().code, Code::InvalidRequest);

    // Former texts are for the author and the admins.
    let (public, author) = posted(&fixture, Visibility::Public).await;
    let versions = async |reader: &str, seq| {
        let request = pb::ListVersionsRequest { reading: reading(&public, reader), seq };
        fixture.client.clone().list_versions(request).await.map(|it| it.into_inner().versions.len())
    };
    assert_eq!(versions(&author.id, 1).await.unwrap(), 1);
    for reader in ["", owner.id.as_str()] {
        assert_eq!(Error::from(versions(reader, 1).await.unwrap_err()).code, Code::Forbidden);
        assert_eq!(Error::from(versions(reader, 2).await.unwrap_err()).code, Code::NotFound);
    }
}

#[tokio::test]
async fn changes_come_with_their_format() {
    let fixture = Fixture::of_format(1).await;
    let first = fixture.send(message(Uuid::now_v7(), "first")).await.unwrap().0;
    let refused = fixture.send(change(&first, pb::Op::Edit, "better")).await.unwrap_err();
    assert!(refused.0 == "unavailable" && refused.1.contains("finish-upgrade"), "{refused:?}");
    fixture.client.clone().rooms_opened(pb::RoomsOpenedRequest {}).await.unwrap();
    assert_eq!(fixture.send(change(&first, pb::Op::Edit, "better")).await.unwrap().0.seq, 2);
    // A process that is alone on its database finishes the upgrade when it starts, if the rooms are open.
    let fixture = Fixture::of_format(2).await;
    let heads = fixture.client.clone().get_room_heads(pb::GetRoomHeadsRequest::default()).await.unwrap();
    assert_eq!(heads.into_inner().format, crate::store::FORMAT);
    let first = fixture.send(message(Uuid::now_v7(), "first")).await.unwrap().0;
    fixture.send(change(&first, pb::Op::Edit, "better")).await.unwrap();
}

#[tokio::test]
async fn the_author_of_a_change_is_the_user_of_its_credential() {
    let fixture = Fixture::guarded(callers(auth())).await;
    let [ada, eve] = [1, 2].map(Uuid::from_u128);
    let of = |user: Uuid| Some(UserRef { id: user.to_string(), username: "made up".into() });
    let credential = |user: Uuid| Credential::of_token(&token_of(user));
    let signed =
        |new: pb::NewEvent, user: Uuid| pb::NewEvent { credential: credential(user).digest().unwrap().to_vec(), ..new };
    let room = Uuid::now_v7();
    fixture
        .client
        .clone()
        .open_room(pb::OpenRoomRequest { room_id: room.to_string(), ..Default::default() })
        .await
        .unwrap();
    let send = async |event: pb::NewEvent| {
        let credentials = [ada, eve].map(|user| message_credential(&credential(user))).to_vec();
        // There are at least as many events as credentials.
        let events = vec![event.clone(), pb::NewEvent { id: Uuid::now_v7().to_string(), ..event }];
        let request = pb::AppendRequest { events, credentials };
        outcome(fixture.client.clone().append(request).await.unwrap().into_inner().outcomes.remove(0))
    };
    let first = send(signed(pb::NewEvent { sender: of(ada), ..message(room, "first") }, ada)).await.unwrap().0;
    let edit = |user: Uuid| pb::NewEvent {
        sender: of(ada),
        client_message_id: Some(user.to_string()),
        ..signed(change(&first, pb::Op::Edit, "better"), user)
    };
    assert_eq!(send(edit(eve)).await.unwrap_err().0, "forbidden");
    let edited = send(edit(ada)).await.unwrap().0;
    assert_eq!(edited.sender.unwrap().username, "user-1", "the name is that of the token");
    // A user is no server key.
    let mut moderated = signed(change(&first, pb::Op::Delete, ""), ada);
    moderated.change.as_mut().unwrap().moderator = true;
    assert_eq!(send(moderated).await.unwrap_err().0, "unauthorized");
}

#[tokio::test]
async fn deleted_messages_are_erased_within_a_minute() {
    let fixture = Fixture::new().await;
    let (first, _) = posted(&fixture, Visibility::Public).await;
    fixture.send(change(&first, pb::Op::Edit, "a first mistake")).await.unwrap();
    fixture.send(change(&first, pb::Op::Delete, "")).await.unwrap();
    let database = rusqlite::Connection::open(&fixture.database).unwrap();
    let remaining = "SELECT count(*) FROM events WHERE body LIKE '%first%'";
    let remaining = || database.query_row(remaining, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(remaining(), 2);
    testing::eventually(|| remaining() == 0).await;
}
