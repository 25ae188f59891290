//! Files in messages, over gRPC, with a scripted file service.

use std::sync::atomic::Ordering;

use confab_common::bus::Notice;
use confab_proto::auth::v1::UserRef;
use confab_proto::file::v1 as file;
use confab_proto::limits::MAX_FILES;
use confab_proto::message::v1 as pb;
use confab_proto::room::v1::Visibility;
use confab_proto::{channel, partition};
use prost::Message;

use super::*;
use crate::testing::{Fixture, PARTITIONS, message, outcome};

/// Creates a message from this user with files.
fn with_files<'a>(room: Uuid, sender: &UserRef, files: impl IntoIterator<Item = &'a file::File>) -> pb::NewEvent {
    let file_ids = files.into_iter().map(|file| file.id.clone()).collect();
    pb::NewEvent { sender: Some(sender.clone()), file_ids, ..message(room, "look") }
}

/// Creates an event for files shared by this user, as the file service sends it.
fn shared(room: Uuid, sender: &UserRef, files: Vec<file::File>) -> pb::NewEvent {
    pb::NewEvent { kind: pb::Kind::File.into(), sender: Some(sender.clone()), files, ..message(room, "") }
}

fn user(name: &str) -> UserRef {
    UserRef { id: Uuid::now_v7().to_string(), username: name.into() }
}

fn deleted(file: &file::File) -> file::File {
    file::File { id: file.id.clone(), name: file.name.clone(), deleted: true, ..Default::default() }
}

async fn forget(fixture: &Fixture, room: Uuid, files: &[&file::File]) {
    let ids = files.iter().map(|file| file.id.clone()).collect();
    fixture.client.clone().forget_files(pb::ForgetFilesRequest { room_id: room.to_string(), ids }).await.unwrap();
}

#[tokio::test]
async fn files_are_returned_with_their_message() {
    let fixture = Fixture::new().await;
    let (room, ada) = (Uuid::now_v7(), user("ada"));
    let partition = partition::of_room(room, PARTITIONS);
    let (subscriptions, mut notices) = fixture.bus.listen();
    subscriptions.subscribe(channel::log(partition)).await;
    let mine = fixture.files.upload(&ada, None);
    let roomed = fixture.files.upload(&user("bob"), Some(room));
    let shown = [roomed.clone(), file::File { room_id: Some(room.to_string()), ..mine.clone() }];
    // In the order of the request; a message with files needs no text.
    let attached = pb::NewEvent { content: String::new(), ..with_files(room, &ada, [&roomed, &mine]) };
    let response = fixture.append(vec![attached, shared(room, &ada, vec![roomed.clone()])]).await;
    let events: Vec<_> = response.outcomes.into_iter().map(|it| outcome(it).unwrap().0).collect();
    assert_eq!(
        (events[0].kind(), events[0].content.as_str(), &events[0].files[..]),
        (pb::Kind::Message, "", &shown[..])
    );
    assert_eq!((events[1].kind(), &events[1].files[..]), (pb::Kind::File, &shown[..1]));
    assert_eq!(fixture.history(room).await, events);
    let log = fixture
        .client
        .clone()
        .read_log(pb::ReadLogRequest { partition, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(log.events, events);
    let mut hinted = Vec::new();
    while hinted.len() < 2 {
        if let Some(Notice::Message { payload, .. }) = notices.next().await {
            hinted.extend(pb::Hint::decode(payload).unwrap().events);
        }
    }
    assert_eq!(hinted, events);
}

#[tokio::test]
async fn each_invalid_event_is_rejected_alone() {
    let fixture = Fixture::new().await;
    let (room, ada) = (Uuid::now_v7(), user("ada"));
    let elsewhere = fixture.files.upload(&ada, Some(Uuid::now_v7()));
    let (mine, others) = (fixture.files.upload(&ada, None), fixture.files.upload(&user("bob"), None));
    let here = fixture.files.upload(&ada, Some(room));
    let many: Vec<_> = (0..=MAX_FILES).map(|_| fixture.files.upload(&ada, Some(room))).collect();
    let gone = file::File { id: Uuid::now_v7().to_string(), ..mine.clone() };
    let with = |change: &dyn Fn(&mut file::File)| {
        let mut file = here.clone();
        change(&mut file);
        shared(room, &ada, vec![here.clone(), file::File { id: Uuid::now_v7().to_string(), ..file }])
    };
    let system = pb::NewEvent { kind: pb::Kind::System.into(), event: "roomUpdated".into(), ..message(room, "") };
    let mut bad_id = with(&|_| {});
    bad_id.files[1].id = "f".into();
    let cases: Vec<(pb::NewEvent, &str, &str)> = vec![
        (with_files(room, &ada, [&gone]), "not_found", "fileIds"),
        (with_files(room, &ada, [&mine, &others]), "not_found", "fileIds"),
        (with_files(room, &ada, [&mine, &elsewhere]), "conflict", "fileIds"),
        (with_files(room, &ada, &many), "invalid_request", "fileIds"),
        (with_files(room, &ada, [&mine, &mine]), "invalid_request", "fileIds"),
        (pb::NewEvent { file_ids: vec!["f".into()], ..message(room, "x") }, "invalid_request", "fileIds"),
        (pb::NewEvent { file_ids: vec![here.id.clone()], ..system.clone() }, "invalid_request", "fileIds"),
        (pb::NewEvent { file_ids: vec![here.id.clone()], ..with(&|_| {}) }, "invalid_request", "fileIds"),
        (shared(room, &ada, vec![]), "invalid_request", "files"),
        (shared(room, &ada, many.clone()), "invalid_request", "files"),
        (shared(room, &ada, vec![here.clone(), here.clone()]), "invalid_request", "files"),
        (pb::NewEvent { files: vec![here.clone()], ..message(room, "x") }, "invalid_request", "files"),
        (pb::NewEvent { files: vec![here.clone()], ..system }, "invalid_request", "files"),
        (bad_id, "invalid_request", "files"),
        (with(&|it| it.room_id = None), "invalid_request", "files"),
        (with(&|it| it.room_id = Some(Uuid::now_v7().to_string())), "invalid_request", "files"),
        (with(&|it| it.uploaded_by = None), "invalid_request", "files"),
        (with(&|it| it.name.clear()), "invalid_request", "files"),
        (with(&|it| it.name = "a\0".into()), "invalid_request", "files"),
        (with(&|it| it.name = "x".repeat(257)), "invalid_request", "files"),
        (with(&|it| it.content_type = "x".repeat(257)), "invalid_request", "files"),
        (with(&|it| it.sha256 = "0F".repeat(32)), "invalid_request", "files"),
        (with(&|it| it.sha256.truncate(63)), "invalid_request", "files"),
        (with_files(fixture.rooms.unknown, &ada, [&mine]), "not_found", "room"),
    ];
    let mut events: Vec<_> = cases.iter().map(|case| case.0.clone()).collect();
    events.extend([
        message(room, "first"),
        with_files(room, &ada, &many[1..]),
        shared(room, &ada, many[1..].to_vec()),
        message(room, "last"),
    ]);
    let mut outcomes = fixture.append(events).await.outcomes.into_iter().map(outcome);
    for (event, code, detail) in &cases {
        let refusal = outcomes.next().unwrap().unwrap_err();
        assert!(refusal.0 == *code && refusal.1.contains(detail), "{refusal:?} for {event:?}");
    }
    let kept: Vec<_> = outcomes.map(|it| it.unwrap().0).collect();
    assert_eq!(kept.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(fixture.history(room).await, kept);
    // A rejected event has not moved its file into the room.
    let private = with_files(Uuid::now_v7(), &ada, [&mine]);
    assert_eq!(fixture.send(private).await.unwrap().0.files.len(), 1);
}

#[tokio::test]
async fn user_without_permission_attaches_no_files() {
    for fixture in [Fixture::new().await, Fixture::former().await] {
        let eve = UserRef { id: fixture.rooms.muted.to_string(), username: "eve".into() };
        let private = Uuid::now_v7();
        let visibility = Visibility::Private.into();
        let opening = pb::OpenRoomRequest { room_id: private.to_string(), visibility, ..Default::default() };
        // In the log of the former format, the room service has the rights.
        let hidden = if fixture.client.clone().open_room(opening).await.is_ok() { "not_found" } else { "forbidden" };
        for (room, code) in [(private, hidden), (fixture.rooms.unknown, "not_found")] {
            let mine = fixture.files.upload(&eve, None);
            assert_eq!(fixture.send(with_files(room, &eve, [&mine])).await.unwrap_err().0, code);
            let here = fixture.files.upload(&eve, Some(room));
            assert_eq!(fixture.send(shared(room, &eve, vec![here])).await.unwrap_err().0, code);
        }
        assert_eq!(fixture.files.asked.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn deleted_file_is_marked_in_every_answer() {
    let fixture = Fixture::new().await;
    let (room, ada) = (Uuid::now_v7(), user("ada"));
    let (kept, lost) = (fixture.files.upload(&ada, Some(room)), fixture.files.upload(&ada, Some(room)));
    let attached = with_files(room, &ada, [&kept, &lost]);
    fixture.append(vec![attached.clone(), shared(room, &ada, vec![lost.clone()])]).await;
    forget(&fixture, room, &[&lost]).await;
    forget(&fixture, room, &[&lost, &lost]).await;
    let partition = partition::of_room(room, PARTITIONS);
    let (subscriptions, mut notices) = fixture.bus.listen();
    subscriptions.subscribe(channel::log(partition)).await;
    // A message that was in flight when the file was deleted.
    let late = fixture.send(with_files(room, &ada, [&lost])).await.unwrap().0;
    let again = fixture.send(attached).await.unwrap().0;
    let shown = [vec![kept, deleted(&lost)], vec![deleted(&lost)], vec![deleted(&lost)]];
    let history = fixture.history(room).await;
    assert_eq!(history.iter().map(|event| event.files.clone()).collect::<Vec<_>>(), shown);
    assert_eq!([&again, &late], [&history[0], &history[2]]);
    let log = fixture
        .client
        .clone()
        .read_log(pb::ReadLogRequest { partition, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(log.events, history);
    let hint = loop {
        if let Some(Notice::Message { payload, .. }) = notices.next().await {
            break pb::Hint::decode(payload).unwrap();
        }
    };
    assert_eq!(hint.events, history[2..]);
}

#[tokio::test]
async fn repeat_is_answered_after_its_files_were_deleted() {
    let fixture = Fixture::new().await;
    let (room, ada) = (Uuid::now_v7(), user("ada"));
    let mine = fixture.files.upload(&ada, None);
    let first = pb::NewEvent { client_message_id: Some("once".into()), ..with_files(room, &ada, [&mine]) };
    let (event, _) = fixture.send(first.clone()).await.unwrap();
    fixture.files.delete(&mine.id);
    forget(&fixture, room, &[&mine]).await;
    let stored = pb::Event { files: vec![deleted(&mine)], ..event };
    let again = pb::NewEvent { id: Uuid::now_v7().to_string(), ..first.clone() };
    let other = pb::NewEvent { client_message_id: Some("twice".into()), ..again.clone() };
    assert_eq!(fixture.send(again.clone()).await.unwrap(), (stored.clone(), true));
    // The same id is the same send, repeated by a gateway.
    assert_eq!(fixture.send(first).await.unwrap(), (stored.clone(), false));
    assert_eq!(fixture.send(other).await.unwrap_err().0, "not_found");
    fixture.files.down.store(true, Ordering::SeqCst);
    assert_eq!(fixture.send(again).await.unwrap(), (stored, true));
}

#[tokio::test]
async fn messages_with_files_keep_the_order() {
    let fixture = Fixture::new().await;
    let rooms: [Uuid; 3] = std::array::from_fn(|_| Uuid::now_v7());
    let ada = user("ada");
    let event = |n: usize| {
        let room = rooms[n % 3];
        // In two of three rooms every second message has a file.
        let files = matches!(n % 6, 2 | 4).then(|| fixture.files.upload(&ada, None));
        pb::NewEvent { content: n.to_string(), ..with_files(room, &ada, &files) }
    };
    let response = fixture.append((0..60).map(event).collect()).await;
    for (n, it) in response.outcomes.into_iter().enumerate() {
        let event = outcome(it).unwrap().0;
        assert_eq!((event.content, event.seq), (n.to_string(), n as u64 / 3 + 1));
    }
}

#[tokio::test]
async fn without_the_file_service_only_events_with_files_fail() {
    let fixture = Fixture::new().await;
    let (room, ada) = (Uuid::now_v7(), user("ada"));
    let mine = fixture.files.upload(&ada, None);
    let here = fixture.files.upload(&ada, Some(room));
    fixture.files.down.store(true, Ordering::SeqCst);
    let events =
        vec![message(room, "a"), with_files(room, &ada, [&mine]), shared(room, &ada, vec![here]), message(room, "b")];
    let mut outcomes: Vec<_> = fixture.append(events.clone()).await.outcomes.into_iter().map(outcome).collect();
    assert_eq!(outcomes.remove(1).unwrap_err().0, "unavailable");
    assert_eq!(outcomes.into_iter().map(|it| it.unwrap().0.seq).collect::<Vec<_>>(), [1, 2, 3]);
    fixture.files.down.store(false, Ordering::SeqCst);
    assert_eq!(fixture.send(events[1].clone()).await.unwrap().0.seq, 4);
}

#[tokio::test]
async fn events_do_not_wait_for_a_silent_file_service() {
    let fixture = Fixture::new().await;
    // Rooms of one partition, so that their positions show which event came first.
    let mut rooms = std::iter::repeat_with(Uuid::now_v7).filter(|room| partition::of_room(*room, PARTITIONS) == 3);
    let (room, neighbour, ada) = (rooms.next().unwrap(), rooms.next().unwrap(), user("ada"));
    let mine = fixture.files.upload(&ada, None);
    let silence = fixture.files.gate.write().await;
    let events = [with_files(room, &ada, [&mine]), message(room, "behind it"), message(neighbour, "beside it")];
    // With the default timeout.
    let events = events.map(|event| pb::NewEvent { timeout_ms: 0, ..event }).to_vec();
    let mut outcomes = fixture.append(events).await.outcomes.into_iter().map(outcome);
    assert_eq!(outcomes.next().unwrap().unwrap_err().0, "unavailable");
    assert_eq!(outcomes.map(|it| it.unwrap().0.position).collect::<Vec<_>>(), [2, 1]);
    // The file service is not called for a while: every message that arrives together with a message with files would
    // wait as long.
    assert_eq!(fixture.send(with_files(room, &ada, [&mine])).await.unwrap_err().0, "unavailable");
    assert_eq!(fixture.files.asked.load(Ordering::SeqCst), 1);
    drop(silence);
    while let Err((code, _)) = fixture.send(with_files(room, &ada, [&mine])).await {
        assert_eq!(code, "unavailable");
        tokio::task::yield_now().await;
    }
}
