//! The quota of each user.

use confab_common::Code;

use super::*;

/// Runs each test on both databases.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(#[tokio::test] async fn $name() { super::$name(super::Location::sqlite()).await })* }
        mod postgres { $(#[tokio::test] async fn $name() { super::$name(super::Location::postgres().await).await })* }
    };
}

on_both_stores![
    uploads_above_the_quota_are_rejected_before_their_content,
    repeats_are_answered_at_the_quota,
    rejected_uploads_leave_nothing,
];

/// Starts a service with at most 2 files of 1000 bytes together for each user.
async fn start(location: &Location) -> (World, Service) {
    let location = location.clone().with(["--max-files-per-user=2", "--max-bytes-per-user=1000"]);
    let world = World::default();
    let service = Service::start(&location, &world).await;
    (world, service)
}

/// Sends these parts without an end, and returns the rejection.
async fn rejected(service: &Service, parts: Vec<Part>) -> Error {
    let parts = parts.into_iter().map(part).collect::<Vec<_>>();
    service.send(stream::iter(parts).chain(stream::pending()).boxed()).await.unwrap_err()
}

async fn uploads_above_the_quota_are_rejected_before_their_content(location: Location) {
    let (world, service) = start(&location).await;
    let (ada, bob, room) = (user("ada"), user("bob"), world.rooms.public());
    let first = service.uploaded(Sending::new(&ada, "x", vec![0; 600])).await;

    let good = Sending::new(&ada, "x", "").begin;
    let chunk = Part::Chunk(Bytes::from(vec![0; 250]));
    for begin in [good.clone(), Begin { room_id: Some(room.clone()), ..good.clone() }] {
        // As soon as the declared length shows it, or as soon as too many bytes have arrived.
        let declared = Part::Begin(Begin { at_least: 401, ..begin.clone() });
        let error = rejected(&service, vec![declared]).await;
        let detail = "the files of a user may have at most 1000 bytes together; delete some first";
        assert_eq!((error.code, &*error.detail), (Code::TooLarge, detail));
        let error = rejected(&service, vec![Part::Begin(begin), chunk.clone(), chunk.clone()]).await;
        assert_eq!((error.code, &*error.detail), (Code::TooLarge, detail));
    }
    service.uploaded(Sending::new(&ada, "x", vec![0; 400]).to(&room)).await;
    let error = rejected(&service, vec![Part::Begin(good.clone())]).await;
    assert_eq!((error.code, &*error.detail), (Code::TooLarge, "a user may store at most 2 files; delete some first"));

    // Another user has another quota, and a deleted file frees its place and its bytes.
    service.uploaded(Sending::new(&bob, "x", vec![0; 1000])).await;
    service.delete(&ada, &first.id).await.unwrap();
    service.uploaded(Sending::new(&ada, "x", vec![0; 600])).await;
    assert_eq!(rejected(&service, vec![Part::Begin(good)]).await.code, Code::TooLarge);
}

async fn repeats_are_answered_at_the_quota(location: Location) {
    let (world, service) = start(&location).await;
    let (ada, room) = (user("ada"), world.rooms.public());
    let shared = service.uploaded(Sending::new(&ada, "x", vec![0; 500]).to(&room).called("1")).await;
    let late = |client_message_id: &str| {
        let mut sending = Sending::new(&ada, "x", vec![0; 500]);
        sending.finish.client_message_id = Some(client_message_id.into());
        sending
    };
    let roomless = service.uploaded(late("2")).await;

    let repeat = service.upload(Sending::new(&ada, "x", vec![0; 500]).to(&room).called("1")).await.unwrap();
    assert_eq!((repeat.file.as_ref(), repeat.duplicate), (Some(&shared), true));
    let repeat = service.upload(late("2")).await.unwrap();
    assert_eq!((repeat.file.as_ref(), repeat.duplicate), (Some(&roomless), true));
    // A new upload is rejected: before its content if its room and its id are known by then, otherwise at its end.
    let new = Sending::new(&ada, "x", "").to(&room).called("3").begin;
    assert_eq!(rejected(&service, vec![Part::Begin(new)]).await.code, Code::TooLarge);
    assert_eq!(service.upload(late("3")).await.unwrap_err().code, Code::TooLarge);
    assert_eq!(service.uploads(&ada).await.len(), 2);
}

async fn rejected_uploads_leave_nothing(location: Location) {
    let (world, service) = start(&location).await;
    let (ada, room) = (user("ada"), world.rooms.public());
    service.uploaded(Sending::new(&ada, "x", vec![0; 10]).called("1")).await;
    let outcomes =
        futures::future::join_all((0..5).map(|_| service.upload(Sending::new(&ada, "x", vec![0; 10]).to(&room)))).await;
    // Those that were sent before the last place was taken are rejected at their end.
    let rejected = outcomes.iter().flat_map(|outcome| outcome.as_ref().err());
    assert!(rejected.clone().all(|error| error.code == Code::TooLarge), "{outcomes:?}");
    assert_eq!(rejected.count(), 4);
    eventually(async || (location.objects().len() == 2).then_some(())).await;
    assert_eq!(world.log.events().len(), 1);
    assert_eq!(service.uploads(&ada).await.len(), 2);
}
