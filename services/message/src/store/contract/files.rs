//! Files in events, their deletion, and look-up of events by identity.

use super::*;

on_both!(files_are_stored_with_their_event, deleted_files_are_marked_in_every_answer, event_is_found_by_its_identity);

pub fn file(name: &str) -> File {
    File {
        id: Uuid::now_v7(),
        name: name.into(),
        size: u64::MAX,
        content_type: "image/png".into(),
        sha256: "0f".repeat(32),
        uploader: Uuid::now_v7(),
        uploader_username: "ada".into(),
        created_at_ms: 1_700_000_000_000,
        safe_inline: true,
        deleted: false,
    }
}

pub fn shared(room: Uuid, files: &[File]) -> EventData {
    let body = Body { sender_username: "ada".into(), files: files.to_vec(), ..Body::default() };
    EventData { kind: Kind::File, body, ..new_message(room, None, "") }
}

async fn files_are_stored_with_their_event(fixture: Fixture) {
    let store = fixture.open().await;
    let room = rooms_in(1).next().unwrap();
    let files = [file("日本 \"\\\n.png"), File { safe_inline: false, ..file("b") }];
    let events = append_new(&*store, &[shared(room, &files)]).await;
    assert_eq!(events[0].data.body.files, files);
    assert_eq!(history(&*store, room).await, events);
    assert_eq!(store.read_log(1, 0, ALL).await.unwrap().events, events);
    let again = EventData { body: Body::default(), ..(*events[0].data).clone() };
    assert_eq!(append(&*store, &[again]).await[0].as_ref().unwrap(), &Outcome::Repeated(events[0].clone()));
}

async fn deleted_files_are_marked_in_every_answer(fixture: Fixture) {
    let store = fixture.open().await;
    let mut rooms = rooms_in(1);
    let (room, neighbour) = (rooms.next().unwrap(), rooms.next().unwrap());
    let afar = rooms_in(2).next().unwrap();
    let (lost, kept) = (file("lost"), file("kept"));
    let batch = [
        shared(room, &[kept.clone(), lost.clone()]),
        new_message(room, None, "not a file"),
        shared(room, std::slice::from_ref(&lost)),
        // Deleting a file in one room does not affect other rooms.
        shared(neighbour, std::slice::from_ref(&lost)),
        shared(afar, std::slice::from_ref(&lost)),
    ];
    append_new(&*store, &batch).await;
    store.forget_files((1, room), vec![lost.id, lost.id]).await.unwrap();
    store.forget_files((1, room), vec![lost.id]).await.unwrap();
    store.forget_files((1, room), Vec::new()).await.unwrap();
    let gone = File { deleted: true, ..lost.clone() };
    let shown = [vec![kept.clone(), gone.clone()], vec![], vec![gone.clone()], vec![lost.clone()], vec![lost.clone()]];
    let files = |event: &Event| event.data.body.files.clone();

    // A new event and a repeat, in one batch of two partitions.
    let late = shared(room, &[lost.clone(), kept.clone()]);
    let mut batch = batch.to_vec();
    batch.push(late);
    let outcomes = append(&*store, &batch).await.into_iter().map(|outcome| match outcome.unwrap() {
        Outcome::Appended(event) | Outcome::Repeated(event) => event,
        outcome => panic!("{outcome:?}"),
    });
    let events: Vec<_> = outcomes.collect();
    assert_eq!(events[..5].iter().map(files).collect::<Vec<_>>(), shown);
    assert_eq!(files(&events[5]), [gone, kept]);

    for (event, data) in events.iter().zip(&batch) {
        assert_eq!(store.find(data).await.unwrap().1.as_ref(), Some(event));
    }
    assert_eq!(store.read_log(1, 0, ALL).await.unwrap().events, [&events[..4], &events[5..]].concat());
    assert_eq!(store.read_log(2, 0, ALL).await.unwrap().events, events[4..5]);
    let of_room = [&events[..3], &events[5..]].concat();
    for window in [Window::Latest, Window::After(0), Window::Before(9)] {
        assert_eq!(list(&*store, (1, room), window, ALL).await.events, of_room);
    }
    assert_eq!(history(&*store, neighbour).await, events[3..4]);
}

async fn event_is_found_by_its_identity(fixture: Fixture) {
    let store = fixture.open().await;
    let room = rooms_in(1).next().unwrap();
    let first = new_message(room, Some("x"), "hello");
    let (epoch, nothing) = store.find(&first).await.unwrap();
    assert_eq!((epoch, nothing), (store.heads().await.unwrap().epoch, None));
    let event = append_new(&*store, std::slice::from_ref(&first)).await.remove(0);
    let again = EventData { id: Uuid::now_v7(), body: Body::default(), ..first.clone() };
    assert_eq!(store.find(&again).await.unwrap(), (epoch, Some(event)));
    let others = [
        EventData { sender: Uuid::now_v7(), ..first.clone() },
        EventData { client_id: client_id(Some("y"), first.id), ..first.clone() },
        EventData { room: rooms_in(1).nth(1).unwrap(), ..first },
    ];
    for other in others {
        assert_eq!(store.find(&other).await.unwrap().1, None);
    }
}
