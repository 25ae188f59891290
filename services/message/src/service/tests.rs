//! The service from its callers' view: over gRPC, with a scripted room service.

use std::sync::atomic::Ordering;

use confab_common::bus::Notice;
use confab_proto::auth::v1::UserRef;
use confab_proto::channel;
use confab_proto::message::v1 as pb;
use confab_proto::room::v1::{Role, Visibility};
use prost::Message;

use super::*;
use crate::store::FORMAT;
use crate::testing::{Fixture, PARTITIONS, message, outcome};

#[tokio::test]
async fn event_is_answered_stored_and_published() {
    let fixture = Fixture::new().await;
    let room = Uuid::now_v7();
    let partition = partition::of_room(room, PARTITIONS);
    let (subscriptions, mut notices) = fixture.bus.listen();
    subscriptions.subscribe(channel::log(partition)).await;
    let sent = pb::NewEvent { client_message_id: Some("mine".into()), ..message(room, "hello \u{1F375}") };
    let system = pb::NewEvent {
        kind: pb::Kind::System.into(),
        content: String::new(),
        event: "roomUpdated".into(),
        data: r#"{"name":"Tea"}"#.into(),
        ..message(room, "")
    };
    let response = fixture.append(vec![sent.clone(), system]).await;
    let events: Vec<_> = response.outcomes.into_iter().map(|it| outcome(it).unwrap().0).collect();
    let first = &events[0];
    assert_eq!((first.seq, first.position, first.partition), (1, 1, partition));
    assert_eq!(
        (&first.id, &first.room_id, &first.sender, &first.content),
        (&sent.id, &sent.room_id, &sent.sender, &sent.content)
    );
    assert_eq!(first.client_message_id.as_deref(), Some("mine"));
    assert!(first.created_at_ms > 1_700_000_000_000);
    assert_eq!(
        (events[1].seq, events[1].event.as_str(), events[1].data.as_str()),
        (2, "roomUpdated", r#"{"name":"Tea"}"#)
    );

    let page = fixture
        .list(pb::ListEventsRequest { room_id: room.to_string(), limit: 50, ..Default::default() })
        .await
        .unwrap();
    assert_eq!((&page.epoch, page.last_seq, page.more, &page.events), (&response.epoch, 2, false, &events));
    let log = fixture
        .client
        .clone()
        .read_log(pb::ReadLogRequest { partition, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((&log.epoch, log.head, &log.events), (&response.epoch, 2, &events));
    let heads = fixture
        .client
        .clone()
        .get_heads(pb::GetHeadsRequest { partitions: vec![partition] })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((heads.partition_count, heads.heads), (PARTITIONS, vec![pb::Head { partition, position: 2 }]));
    let rooms = pb::GetRoomHeadsRequest { room_ids: vec![room.to_string()], until_ms: None };
    let heads = fixture.client.clone().get_room_heads(rooms).await.unwrap().into_inner();
    assert_eq!(heads.heads, [pb::RoomHead { room_id: room.to_string(), seq: 2, messages: 1, ..Default::default() }]);
    let hint = loop {
        if let Some(Notice::Message { payload, .. }) = notices.next().await {
            break pb::Hint::decode(payload).unwrap();
        }
    };
    assert_eq!(hint, pb::Hint { epoch: response.epoch, partition, first_position: 1, events });
}

#[tokio::test]
async fn second_send_differs_from_a_repeated_call() {
    let fixture = Fixture::new().await;
    let first = pb::NewEvent { client_message_id: Some("x".into()), ..message(Uuid::now_v7(), "once") };
    let (event, duplicate) = fixture.send(first.clone()).await.unwrap();
    assert!(!duplicate);
    assert_eq!(fixture.send(first.clone()).await.unwrap(), (event.clone(), false));
    let again = pb::NewEvent { id: Uuid::now_v7().to_string(), content: "changed".into(), ..first };
    assert_eq!(fixture.send(again).await.unwrap(), (event, true));
}

#[tokio::test]
async fn each_invalid_event_is_rejected_alone() {
    let fixture = Fixture::new().await;
    let room = Uuid::now_v7();
    let good = message(room, &"x".repeat(16_384));
    let with = |change: &dyn Fn(&mut pb::NewEvent)| {
        let mut event = pb::NewEvent { id: Uuid::now_v7().to_string(), ..good.clone() };
        change(&mut event);
        event
    };
    let cases: Vec<(pb::NewEvent, &str, &str)> = vec![
        (with(&|it| it.content.clear()), "invalid_request", "content must not be empty"),
        (with(&|it| it.content.push('x')), "too_large", "content"),
        (with(&|it| it.content = "a\0b".into()), "invalid_request", "content must not contain NUL"),
        (with(&|it| it.client_message_id = Some(String::new())), "invalid_request", "clientMessageId"),
        (with(&|it| it.client_message_id = Some("x".repeat(129))), "invalid_request", "clientMessageId"),
        (with(&|it| it.client_message_id = Some("\0".into())), "invalid_request", "clientMessageId"),
        (with(&|it| it.id = "1".into()), "invalid_request", "id"),
        (with(&|it| it.room_id = "lobby".into()), "invalid_request", "roomId"),
        (with(&|it| it.sender = None), "invalid_request", "sender"),
        (with(&|it| it.kind = 0), "invalid_request", "kind"),
        (with(&|it| it.kind = 99), "invalid_request", "kind"),
        (with(&|it| it.event = "roomUpdated".into()), "invalid_request", "event"),
        (with(&|it| it.closes_room = true), "invalid_request", "closesRoom"),
        (with(&|it| it.room_id = fixture.rooms.unknown.to_string()), "not_found", "room"),
    ];
    let mut events: Vec<_> = cases.iter().map(|case| case.0.clone()).collect();
    events.push(good);
    let mut outcomes = fixture.append(events).await.outcomes.into_iter().map(outcome);
    for (event, code, detail) in &cases {
        let refusal = outcomes.next().unwrap().unwrap_err();
        assert!(refusal.0 == *code && refusal.1.contains(detail), "{refusal:?} for {event:?}");
    }
    assert_eq!(outcomes.next().unwrap().unwrap().0.seq, 1);
    let too_many = vec![message(room, "x"); MAX_EVENTS + 1];
    let request = pb::AppendRequest { events: too_many, ..Default::default() };
    let error: Error = fixture.client.clone().append(request).await.unwrap_err().into();
    assert_eq!(error.code, Code::TooLarge);
}

#[tokio::test]
async fn room_event_names_are_checked_and_only_deletion_closes() {
    let fixture = Fixture::new().await;
    let room = Uuid::now_v7();
    let event = |name: &str, closes_room| pb::NewEvent {
        kind: pb::Kind::System.into(),
        event: name.into(),
        data: "{}".into(),
        closes_room,
        ..message(room, "")
    };
    for name in [
        "",
        "message",
        "fileUpload",
        "session",
        "roomupdated",
        "roomUpdated ",
        "RoomDeleted",
        "roomCreated",
        "__proto__",
    ] {
        for closes_room in [false, true] {
            let refusal = fixture.send(event(name, closes_room)).await.unwrap_err();
            assert!(refusal.0 == "invalid_request" && refusal.1.contains("event"), "{name:?}: {refusal:?}");
        }
    }
    for name in ["memberJoined", "memberLeft", "roomUpdated"] {
        let refusal = fixture.send(event(name, true)).await.unwrap_err();
        assert!(refusal.0 == "invalid_request" && refusal.1.contains("closesRoom"), "{name}: {refusal:?}");
    }
    for (seq, name) in (1..).zip(["memberJoined", "memberLeft", "roomUpdated"]) {
        assert_eq!(fixture.send(event(name, false)).await.unwrap().0.seq, seq);
    }
    // No rejected event has closed the room.
    assert_eq!(fixture.send(message(room, "still open")).await.unwrap().0.seq, 4);
}

#[tokio::test]
async fn closed_room_is_not_found() {
    let fixture = Fixture::new().await;
    let room = Uuid::now_v7();
    let closing = pb::NewEvent {
        kind: pb::Kind::System.into(),
        event: "roomDeleted".into(),
        closes_room: true,
        ..message(room, "")
    };
    assert_eq!(fixture.send(closing).await.unwrap().0.seq, 1);
    assert_eq!(fixture.send(message(room, "too late")).await.unwrap_err().0, "not_found");
    let rooms = pb::GetRoomHeadsRequest { room_ids: vec![room.to_string()], until_ms: None };
    let heads = fixture.client.clone().get_room_heads(rooms).await.unwrap().into_inner();
    assert_eq!(heads.heads, [pb::RoomHead { room_id: room.to_string(), seq: 1, closed: true, ..Default::default() }]);
}

#[tokio::test]
async fn in_a_former_log_the_room_service_has_the_rights() {
    let fixture = Fixture::former().await;
    let (room, muted) = (Uuid::now_v7(), fixture.rooms.muted);
    let muted = Some(UserRef { id: muted.to_string(), username: "eve".into() });
    assert_eq!(fixture.send(pb::NewEvent { sender: muted, ..message(room, "x") }).await.unwrap_err().0, "forbidden");
    let unknown = message(fixture.rooms.unknown, "x");
    assert_eq!(fixture.send(unknown).await.unwrap_err().0, "not_found");
    let change = pb::AccessChange { visibility: Visibility::Public.into(), ..Default::default() };
    let system = || pb::NewEvent { kind: pb::Kind::System.into(), event: "memberLeft".into(), ..message(room, "") };
    let refused = fixture.send(pb::NewEvent { access: Some(change.clone()), ..system() }).await.unwrap_err();
    assert!(refused.0 == "unavailable" && refused.1.contains("finish-upgrade"), "{refused:?}");
    let private = pb::OpenRoomRequest {
        room_id: Uuid::now_v7().to_string(),
        visibility: Visibility::Private.into(),
        ..Default::default()
    };
    let error = fixture.client.clone().open_room(private.clone()).await.unwrap_err();
    assert_eq!(Error::from(error).code, Code::Unavailable);
    // A process that is alone on its database finishes the upgrade by itself.
    fixture.client.clone().rooms_opened(pb::RoomsOpenedRequest {}).await.unwrap();
    fixture.send(pb::NewEvent { access: Some(change), ..system() }).await.unwrap();
    fixture.client.clone().open_room(private).await.unwrap();
    let heads = fixture.client.clone().get_room_heads(pb::GetRoomHeadsRequest::default()).await.unwrap();
    assert_eq!(heads.into_inner().format, FORMAT);
}

#[tokio::test]
async fn private_room_is_hidden_from_strangers() {
    let fixture = Fixture::new().await;
    let (room, owner) = (Uuid::now_v7(), UserRef { id: Uuid::now_v7().to_string(), username: "ada".into() });
    let opening = pb::OpenRoomRequest {
        room_id: room.to_string(),
        visibility: Visibility::Private.into(),
        members: vec![pb::RoomMember { user_id: owner.id.clone(), role: Role::Owner.into() }],
        ..Default::default()
    };
    fixture.client.clone().open_room(opening).await.unwrap();
    fixture.send(pb::NewEvent { sender: Some(owner.clone()), ..message(room, "mine") }).await.unwrap();
    let refused = fixture.send(message(room, "not mine")).await.unwrap_err();
    let unknown = fixture.send(message(fixture.rooms.unknown, "nowhere")).await.unwrap_err();
    assert_eq!((refused.0.as_str(), &refused), ("not_found", &unknown));
    let list = async |room: Uuid, readers: &[&str]| {
        let readers = readers.iter().map(|reader| (*reader).to_owned()).collect();
        fixture.list(pb::ListEventsRequest { room_id: room.to_string(), limit: 5, readers, ..Default::default() }).await
    };
    let stranger = Uuid::now_v7().to_string();
    let page = list(room, &[&stranger, &owner.id]).await.unwrap();
    assert_eq!((page.private, page.events.len(), page.readers), (true, 1, vec![owner.id.clone()]));
    let hidden = list(room, &[&stranger]).await.unwrap_err();
    let missing = list(fixture.rooms.unknown, &[&stranger]).await.unwrap_err();
    assert_eq!((hidden.code, &hidden.detail), (Code::NotFound, &missing.detail));
    assert_eq!(list(room, &[]).await.unwrap_err().code, Code::NotFound);
    let moderated = |room: Uuid| pb::ListEventsRequest {
        room_id: room.to_string(),
        limit: 5,
        moderator: true,
        ..Default::default()
    };
    let page = fixture.list(moderated(room)).await.unwrap();
    assert_eq!((page.private, page.events.len(), page.readers.len()), (true, 1, 0));
    assert_eq!(fixture.list(moderated(fixture.rooms.unknown)).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn permission_is_cached_while_the_room_service_is_unreachable() {
    let fixture = Fixture::former().await;
    let room = Uuid::now_v7();
    let first = message(room, "x");
    let again = || pb::NewEvent { id: Uuid::now_v7().to_string(), ..first.clone() };
    let sends = (0..20).map(|_| fixture.append(vec![again(), again()]));
    for response in join_all(sends).await {
        response.outcomes.into_iter().for_each(|it| assert!(outcome(it).is_ok()));
    }
    assert_eq!(fixture.rooms.asked.load(Ordering::SeqCst), 1);

    fixture.rooms.down.store(true, Ordering::SeqCst);
    // Until the cached answer has expired and the room service was called again without an answer.
    while fixture.rooms.asked.load(Ordering::SeqCst) < 2 {
        fixture.send(again()).await.unwrap();
        tokio::task::yield_now().await;
    }
    fixture.send(again()).await.unwrap();
    assert_eq!(fixture.send(message(room, "by a stranger")).await.unwrap_err().0, "unavailable");
    fixture.rooms.down.store(false, Ordering::SeqCst);
    fixture.send(message(room, "by another")).await.unwrap();
}

#[tokio::test]
async fn history_reports_whether_there_are_more_events() {
    let fixture = Fixture::new().await;
    let room = Uuid::now_v7();
    fixture.append((0..10).map(|n| message(room, &n.to_string())).collect()).await;
    let list = async |before, after, limit| {
        let request = pb::ListEventsRequest { room_id: room.to_string(), before, after, limit, ..Default::default() };
        let page = fixture.list(request).await.unwrap();
        assert_eq!(page.last_seq, 10);
        (page.events.iter().map(|event| event.seq).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(list(None, None, 4).await, (vec![7, 8, 9, 10], true));
    assert_eq!(list(None, None, 10).await, ((1..=10).collect(), false));
    assert_eq!(list(Some(5), None, 4).await, (vec![1, 2, 3, 4], false));
    assert_eq!(list(Some(6), None, 4).await, (vec![2, 3, 4, 5], true));
    assert_eq!(list(Some(1), None, 4).await, (vec![], false));
    assert_eq!(list(None, Some(0), 9).await, ((1..=9).collect(), true));
    assert_eq!(list(None, Some(8), 2).await, (vec![9, 10], false));
    assert_eq!(list(None, Some(99), 2).await, (vec![], false));
    assert_eq!(list(None, Some(3), 0).await, (vec![], true));
    let room_id = Uuid::now_v7().to_string();
    fixture
        .client
        .clone()
        .open_room(pb::OpenRoomRequest { room_id: room_id.clone(), ..Default::default() })
        .await
        .unwrap();
    let empty = fixture.list(pb::ListEventsRequest { room_id, limit: 5, ..Default::default() }).await.unwrap();
    assert_eq!((empty.last_seq, empty.events.len(), empty.more), (0, 0, false));
}

#[tokio::test]
async fn invalid_reads_are_rejected() {
    let fixture = Fixture::new().await;
    let room_id = Uuid::now_v7().to_string();
    for request in [
        pb::ListEventsRequest { room_id: room_id.clone(), before: Some(1), after: Some(1), ..Default::default() },
        pb::ListEventsRequest { room_id: room_id.clone(), limit: 201, ..Default::default() },
        pb::ListEventsRequest { room_id: "lobby".into(), ..Default::default() },
    ] {
        assert_eq!(fixture.list(request).await.unwrap_err().code, Code::InvalidRequest);
    }
    let mut client = fixture.client.clone();
    let log = client.read_log(pb::ReadLogRequest { partition: PARTITIONS, ..Default::default() }).await.unwrap_err();
    let heads = client.get_heads(pb::GetHeadsRequest { partitions: vec![PARTITIONS] }).await.unwrap_err();
    let rooms = client
        .get_room_heads(pb::GetRoomHeadsRequest { room_ids: vec!["lobby".into()], until_ms: None })
        .await
        .unwrap_err();
    let forgotten = client
        .forget_files(pb::ForgetFilesRequest { room_id: room_id.clone(), ids: vec!["f".into()] })
        .await
        .unwrap_err();
    let too_many = pb::ForgetFilesRequest { room_id, ids: vec![Uuid::now_v7().to_string(); MAX_FORGOTTEN + 1] };
    let too_many = client.forget_files(too_many).await.unwrap_err();
    for status in [log, heads, rooms, forgotten, too_many] {
        assert_eq!(Error::from(status).code, Code::InvalidRequest);
    }
}
