//! A file and its room's message are atomic.

use confab_common::Code;
use confab_proto::message::v1::NewEvent;
use tokio::time::Instant;

use super::log::Mood;
use super::*;

/// Runs each test on both stores.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::Location::sqlite()).await })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::Location::postgres().await).await })* }
    };
}

on_both_stores![
    repeat_returns_the_first_upload,
    concurrent_uploads_with_one_client_id_return_one_file,
    file_is_hidden_until_the_log_has_its_event,
    outbox_survives_a_restart,
    lost_answer_does_not_duplicate_the_message,
    readers_of_the_message_can_read_the_file,
    permanently_rejected_upload_leaves_nothing,
    upload_waits_until_the_log_opens_its_room,
    pending_upload_of_a_removed_member_is_deleted,
    repeat_by_a_removed_member_returns_the_first_upload,
    client_id_used_for_another_event_is_a_conflict,
];

async fn repeat_returns_the_first_upload(location: Location) {
    let (world, ada, bob) = (World::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &world).await;
    let (room, other) = (world.rooms.public(), world.rooms.public());
    let sending = Sending::new(&ada, "a.txt", "first").called("1");
    for sending in [sending.clone(), sending.clone().to(&room), sending.clone().to(&other)] {
        let first = service.upload(sending.clone()).await.unwrap();
        assert!(!first.duplicate);
        let repeat = Sending { bytes: "second, and longer".into(), ..sending };
        let answer = service.upload(repeat).await.unwrap();
        assert!(answer.duplicate);
        assert_eq!((answer.file, answer.message), (first.file, first.message));
    }
    service.uploaded(Sending::new(&bob, "b.txt", "Bob's").called("1").to(&room)).await;
    assert_eq!((service.uploads(&ada).await.len(), world.log.events().len()), (3, 3));
    eventually(async || (location.objects().len() == 4).then_some(())).await;
}

async fn concurrent_uploads_with_one_client_id_return_one_file(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    // A second replica, if the store can be shared.
    let other = match location.url {
        Some(_) => Some(Service::start(&location, &world).await),
        None => None,
    };
    let room = world.rooms.public();
    let uploads = (0..6).map(|turn| {
        let service = other.as_ref().filter(|_| turn % 2 == 1).unwrap_or(&service);
        service.upload(Sending::new(&ada, "a.txt", format!("attempt {turn}")).to(&room).called("1"))
    });
    let answers = futures::future::join_all(uploads).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
    assert!(answers.iter().all(|answer| answer.file == answers[0].file && answer.message == answers[0].message));
    assert_eq!((service.uploads(&ada).await.len(), world.log.events().len()), (1, 1));
    eventually(async || (location.objects().len() == 1).then_some(())).await;
    let file = answers[0].file.clone().unwrap();
    assert_eq!(service.download(by(&ada), &file.id, 0, 0).await.unwrap().len() as u64, file.size);
}

async fn file_is_hidden_until_the_log_has_its_event(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    world.log.is(Mood::Away);
    let sending = Sending::new(&ada, "a.txt", "tea").to(&room);
    let mut took = Vec::new();
    for hasty in [sending.clone(), sending.clone().called("1")] {
        let begun = Instant::now();
        assert_eq!(service.upload(hasty.within(300)).await.unwrap_err().code, Code::Timeout);
        took.push(begun.elapsed());
    }
    // A caller without a timeout waits longer. If the machine stands still during one call, the other call is quick.
    assert!(took.iter().min() < Some(&Duration::from_secs(2)), "the caller's timeout must be used: {took:?}");
    eventually(async || (world.log.asked() == 2).then_some(())).await;
    assert_eq!(service.uploads(&ada).await, [""; 0]);
    assert_eq!(service.list(anonymous(), Some(&room), 50, "").await.unwrap(), ListFilesResponse::default());
    assert_eq!(location.objects().len(), 2);

    world.log.is(Mood::Well);
    let answer = service.upload(sending.called("1")).await.unwrap();
    assert!(answer.duplicate);
    assert_eq!(answer.message.unwrap().files, [answer.file.unwrap()]);
    // The upload without a `clientMessageId` is announced as well.
    eventually(async || (service.uploads(&ada).await.len() == 2).then_some(())).await;
    assert_eq!(world.log.events().len(), 2);
    eventually(async || (location.objects().len() == 2).then_some(())).await;
}

async fn outbox_survives_a_restart(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    world.log.is(Mood::Away);
    let sending = Sending::new(&ada, "a.txt", "tea").to(&room).within(100);
    assert_eq!(service.upload(sending).await.unwrap_err().code, Code::Timeout);
    service.stop();

    let service = Service::start(&location, &world).await;
    world.log.is(Mood::Well);
    let id = eventually(async || service.uploads(&ada).await.pop()).await;
    assert_eq!(world.log.events()[0].files[0].id, id);
    assert_eq!(service.download(anonymous(), &id, 0, 0).await.unwrap(), b"tea");
}

async fn lost_answer_does_not_duplicate_the_message(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    world.log.is(Mood::Mute);
    let (answer, ()) = tokio::join!(service.upload(Sending::new(&ada, "a.txt", "tea").to(&room)), async {
        eventually(async || (world.log.attempts() > 1).then_some(())).await;
        world.log.is(Mood::Well);
    });
    assert!(!answer.unwrap().duplicate);
    assert_eq!((service.uploads(&ada).await.len(), world.log.events().len()), (1, 1));
}

async fn readers_of_the_message_can_read_the_file(location: Location) {
    let (world, ada, bob) = (World::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &world).await;
    let (room, private) = (world.rooms.public(), world.rooms.private([(ada.id.as_str(), rooms::POST)]));
    // The log has the events, but the service has no answer.
    world.log.is(Mood::Mute);
    for room in [&room, &private] {
        let sending = Sending::new(&ada, "a.txt", "tea").to(room).within(100);
        assert_eq!(service.upload(sending).await.unwrap_err().code, Code::Timeout);
    }
    let events = eventually(async || Some(world.log.events()).filter(|events| events.len() == 2)).await;
    let seen =
        [&room, &private].map(|room| events.iter().find(|event| event.room_id == *room).unwrap().files[0].id.clone());
    assert_eq!(service.get(by(&bob), &seen[0]).await.unwrap_err().code, Code::Unavailable);
    world.log.is(Mood::Well);
    assert_eq!(marked_ready(async || service.download(by(&bob), &seen[0], 0, 0).await).await, b"tea");
    assert_eq!(service.get(by(&bob), &seen[1]).await.unwrap_err().code, Code::NotFound);
    assert_eq!(marked_ready(async || service.attach(&ada, &private, &[&seen[1]]).await).await[0].id, seen[1]);
    assert_eq!(world.log.events().len(), 2);
}

/// Reads a file whose event is in the log. Retries only after the second for which the service waits: then the whole
/// machine stood still.
async fn marked_ready<T>(ask: impl AsyncFn() -> Result<T, Error>) -> T {
    let asking = async || {
        let begun = Instant::now();
        let answer = ask().await;
        let late = begun.elapsed() >= Duration::from_secs(1)
            && answer.as_ref().is_err_and(|error| error.code == Code::Unavailable);
        (!late).then_some(answer)
    };
    eventually(asking).await.unwrap()
}

async fn permanently_rejected_upload_leaves_nothing(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    let sending = Sending::new(&ada, "a.txt", "tea").to(&room).called("1");
    for (name, code) in [("forbidden", Code::Forbidden), ("conflict", Code::Conflict)] {
        world.log.is(Mood::Refusing(name));
        assert_eq!(service.upload(sending.clone()).await.unwrap_err().code, code);
    }
    // Also after the caller has stopped waiting.
    world.log.is(Mood::Refusing("unavailable"));
    assert_eq!(service.upload(sending.clone().within(100)).await.unwrap_err().code, Code::Timeout);
    world.log.is(Mood::Refusing("forbidden"));
    eventually(async || location.objects().is_empty().then_some(())).await;
    assert_eq!((service.uploads(&ada).await, world.log.events()), (vec![], vec![]));
    // The deletion is reported to the log: its rejection may have followed a lost answer.
    eventually(async || (world.log.forgotten().len() == 3).then_some(())).await;
    world.log.is(Mood::Well);
    assert!(!service.upload(sending).await.unwrap().duplicate);
}

async fn upload_waits_until_the_log_opens_its_room(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    // The room service has the room and the member; the log has neither of them.
    let (room, private) = (world.rooms.public(), world.rooms.private([(ada.id.as_str(), rooms::POST)]));
    world.log.is(Mood::Refusing("not_found"));
    for room in [&room, &private] {
        let sending = Sending::new(&ada, "a.txt", "tea").to(room).within(100);
        assert_eq!(service.upload(sending).await.unwrap_err().code, Code::Timeout);
    }
    // The sweep tries again, too, and the room service may be away meanwhile.
    world.rooms.is_away(true);
    let tried = world.log.attempts();
    eventually(async || (world.log.attempts() > tried + 1).then_some(())).await;
    assert_eq!(location.objects().len(), 2);
    world.rooms.is_away(false);
    world.log.is(Mood::Well);
    eventually(async || (service.uploads(&ada).await.len() == 2).then_some(())).await;
    assert_eq!((world.log.events().len(), world.log.forgotten()), (2, vec![]));
}

async fn pending_upload_of_a_removed_member_is_deleted(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let private = world.rooms.private([(ada.id.as_str(), rooms::POST)]);
    let sending = Sending::new(&ada, "a.txt", "tea").to(&private).called("1");
    world.log.is(Mood::Refusing("not_found"));
    assert_eq!(service.upload(sending.clone().within(100)).await.unwrap_err().code, Code::Timeout);
    world.rooms.remove(&private, &ada.id);
    eventually(async || location.objects().is_empty().then_some(())).await;
    // An upload that no member has seen is not repeated either.
    assert_eq!(service.upload(sending).await.unwrap_err().code, Code::NotFound);
    assert_eq!((service.uploads(&ada).await, world.log.events()), (vec![], vec![]));
}

async fn repeat_by_a_removed_member_returns_the_first_upload(location: Location) {
    let (world, ada, bob) = (World::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &world).await;
    let private = world.rooms.private([(ada.id.as_str(), rooms::POST), (bob.id.as_str(), rooms::POST)]);
    let sending = Sending::new(&ada, "a.txt", "tea").called("1");
    let mut late = sending.clone();
    late.finish.room_id = Some(private.clone());
    let first = service.upload(sending.clone().to(&private)).await.unwrap();
    world.rooms.remove(&private, &ada.id);
    world.rooms.remove(&private, &bob.id);
    for repeat in [sending.clone().to(&private), late] {
        let answer = service.upload(repeat).await.unwrap();
        assert!(answer.duplicate);
        assert_eq!((answer.file, answer.message), (first.file.clone(), first.message.clone()));
    }
    let other = |from: &UserRef, id: &str| Sending::new(from, "a.txt", "tea").called(id).to(&private);
    for refused in [other(&ada, "2"), other(&bob, "1"), Sending::new(&ada, "a.txt", "tea").to(&private)] {
        assert_eq!(service.upload(refused).await.unwrap_err().code, Code::NotFound);
    }
    eventually(async || (location.objects().len() == 1).then_some(())).await;
    assert_eq!(world.log.events().len(), 1);
}

async fn client_id_used_for_another_event_is_a_conflict(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    let text = NewEvent {
        id: Uuid::now_v7().to_string(),
        room_id: room.clone(),
        kind: 1,
        sender: Some(ada.clone()),
        client_message_id: Some("1".into()),
        content: "tea?".into(),
        ..NewEvent::default()
    };
    world.log.has(text.clone());
    let error = service.upload(Sending::new(&ada, "a.txt", "tea").to(&room).called("1")).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert_eq!((service.uploads(&ada).await, world.log.events()), (vec![], vec![text]));
    eventually(async || location.objects().is_empty().then_some(())).await;
}
