//! The results of uploads.

use confab_common::Code;

use super::*;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

async fn started<const N: usize>(flags: [&str; N]) -> (Location, World, Service, UserRef) {
    let (location, world) = (Location::sqlite().with(flags), World::default());
    let service = Service::start(&location, &world).await;
    (location, world, service, user("ada"))
}

#[tokio::test]
async fn file_is_stored_unchanged() {
    let (_, world, service, ada) = started([]).await;
    let bytes = (0..1_000_000u32).map(|n| (n % 253) as u8).collect::<Vec<_>>();
    let mut sending = Sending::new(&ada, "C:\\tmp\\Чай\0\u{202e}.bin", bytes.clone());
    sending.begin.content_type = "Text/CSV; charset=utf-8".into();
    let UploadResponse { file, message, duplicate } = service.upload(sending).await.unwrap();
    let file = file.unwrap();
    assert_eq!((message, duplicate), (None, false));
    assert_eq!(
        (file.name.as_str(), file.size, file.content_type.as_str()),
        ("Чай.bin", 1_000_000, "text/csv; charset=utf-8")
    );
    assert_eq!(
        (file.room_id.clone(), file.uploaded_by.as_ref(), file.safe_inline, file.deleted),
        (None, Some(&ada), false, false)
    );
    assert_eq!(service.get(by(&ada), &file.id).await.unwrap(), file);
    assert_eq!(service.download(by(&ada), &file.id, 0, 0).await.unwrap(), bytes);
    assert_eq!(service.uploads(&ada).await, [file.id]);
    assert_eq!(world.log.attempts(), 0, "an upload without a room appends no event");

    let empty = service.uploaded(Sending::new(&ada, "", "")).await;
    assert_eq!((empty.name.as_str(), empty.size, empty.content_type.as_str()), ("file", 0, "application/octet-stream"));
    assert_eq!(empty.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(service.download(by(&ada), &empty.id, 0, 0).await.unwrap(), b"");
}

#[tokio::test]
async fn room_gets_the_event_after_the_file_is_stored() {
    let (_, world, service, ada) = started([]).await;
    let room = world.rooms.public();
    let UploadResponse { file, message, duplicate } =
        service.upload(Sending::new(&ada, "tea.png", PNG).to(&room).called("1")).await.unwrap();
    let (file, message) = (file.unwrap(), message.unwrap());
    assert_eq!(
        (file.room_id.as_ref(), file.content_type.as_str(), file.safe_inline, duplicate),
        (Some(&room), "image/png", true, false)
    );
    assert_eq!(message.files, [file]);
    let events = world.log.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, &events[0].room_id, &events[0].id), (2, &room, &message.id));
    assert_eq!((events[0].sender.as_ref(), events[0].client_message_id.as_deref()), (Some(&ada), Some("1")));

    // The last part may name the room as well.
    let mut late = Sending::new(&ada, "late.txt", "late");
    late.finish = Finish { room_id: Some(room.clone()), client_message_id: Some("2".into()), timeout_ms: 0 };
    assert_eq!(service.uploaded(late).await.room_id.as_ref(), Some(&room));
    assert_eq!(world.log.events()[1].client_message_id.as_deref(), Some("2"));
}

#[tokio::test]
async fn rejections_precede_the_content() {
    let (location, world, service, ada) = started(["--max-file-size=100"]).await;
    let read_only = world.rooms.make([], rooms::READ);
    let private = world.rooms.private([]);
    let good = Sending::new(&ada, "x", "").begin;
    for (begin, code) in [
        (Begin { room_id: Some(read_only.clone()), ..good.clone() }, Code::Forbidden),
        (Begin { room_id: Some(private.clone()), ..good.clone() }, Code::NotFound),
        (Begin { room_id: Some("tea".into()), ..good.clone() }, Code::InvalidRequest),
        (Begin { client_message_id: Some(String::new()), ..good.clone() }, Code::InvalidRequest),
        (Begin { client_message_id: Some("x".repeat(129)), ..good.clone() }, Code::InvalidRequest),
        (Begin { client_message_id: Some("a\0".into()), ..good.clone() }, Code::InvalidRequest),
        (Begin { at_least: 101, ..good.clone() }, Code::TooLarge),
        (Begin { caller: None, ..good.clone() }, Code::Unauthorized),
    ] {
        let text = format!("{begin:?}");
        let never_ends = stream::iter([part(Part::Begin(begin))]).chain(stream::pending()).boxed();
        assert_eq!(service.send(never_ends).await.unwrap_err().code, code, "{text}");
    }
    world.rooms.is_away(true);
    let unknown = world.rooms.public();
    let never_ends =
        stream::iter([part(Part::Begin(Begin { room_id: Some(unknown), ..good.clone() }))]).chain(stream::pending());
    assert_eq!(service.send(never_ends.boxed()).await.unwrap_err().code, Code::Unavailable);
    world.rooms.is_away(false);

    let too_much =
        [Part::Begin(good.clone()), Part::Chunk(Bytes::from(vec![0; 60])), Part::Chunk(Bytes::from(vec![0; 41]))];
    let never_ends = stream::iter(too_much.map(part)).chain(stream::pending()).boxed();
    assert_eq!(service.send(never_ends).await.unwrap_err().code, Code::TooLarge);
    for room in [read_only, private] {
        let mut late = Sending::new(&ada, "x", "x");
        late.finish.room_id = Some(room);
        assert!(matches!(service.upload(late).await.unwrap_err().code, Code::Forbidden | Code::NotFound));
    }
    eventually(async || location.objects().is_empty().then_some(())).await;
    assert_eq!(service.uploaded(Sending::new(&ada, "x", vec![0; 100])).await.size, 100);
    assert_eq!(service.uploads(&ada).await.len(), 1);
}

#[tokio::test]
async fn incomplete_upload_leaves_nothing() {
    let (location, world, service, ada) = started([]).await;
    let (room, other) = (world.rooms.public(), world.rooms.public());
    let begin = Part::Begin(Sending::new(&ada, "x", "").begin);
    let (chunk, finish) = (Part::Chunk(Bytes::from(vec![0; 1 << 20])), Part::Finish(Finish::default()));
    let to_other = Begin { room_id: Some(other), ..Sending::new(&ada, "x", "").begin };
    for parts in [
        vec![],
        vec![begin.clone()],
        vec![begin.clone(), chunk.clone()],
        vec![chunk.clone(), finish.clone()],
        vec![finish.clone()],
        vec![begin.clone(), chunk.clone(), begin.clone()],
        vec![
            Part::Begin(to_other),
            chunk.clone(),
            Part::Finish(Finish { room_id: Some(room.clone()), ..Finish::default() }),
        ],
    ] {
        let error =
            service.send(stream::iter(parts.into_iter().map(part).collect::<Vec<_>>()).boxed()).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidRequest);
    }
    // A caller that disconnects midway.
    let parts = stream::iter([begin, chunk].map(part)).chain(stream::pending()).boxed();
    let upload = service.send(parts);
    tokio::select! {
        _ = upload => unreachable!("the upload has no end"),
        () = eventually(async || (!location.objects().is_empty()).then_some(())) => {}
    }
    eventually(async || location.objects().is_empty().then_some(())).await;
    assert_eq!(service.uploads(&ada).await, [""; 0]);
    assert_eq!(world.log.events(), []);
}

#[tokio::test]
async fn uploads_above_the_limit_are_rejected_and_shared_fairly() {
    let (location, _, service, ada) = started(["--max-uploads=4"]).await;
    let [bob, carol, dave] = ["bob", "carol", "dave"].map(user);
    let under_way = |who: &UserRef| {
        let begin = part(Part::Begin(Sending::new(who, "x", "").begin));
        service.send(stream::iter([begin]).chain(stream::pending()).boxed())
    };
    let refused = async |who: &UserRef, code: Code| {
        let error = service.upload(Sending::new(who, "x", "x")).await.unwrap_err();
        assert_eq!((error.code, error.retry_after.is_some()), (code, true));
    };
    let begun = async |count: usize| eventually(async || (location.objects().len() == count).then_some(())).await;
    tokio::select! {
        _ = under_way(&ada) => unreachable!("the upload has no end"),
        _ = under_way(&ada) => unreachable!("the upload has no end"),
        () = async {
            begun(2).await;
            refused(&ada, Code::RateLimited).await;
            service.uploaded(Sending::new(&bob, "x", "x")).await;
            let kept = location.objects().len() - 2;
            tokio::select! {
                _ = under_way(&bob) => unreachable!("the upload has no end"),
                _ = under_way(&carol) => unreachable!("the upload has no end"),
                () = async {
                    begun(4 + kept).await;
                    refused(&dave, Code::Unavailable).await;
                    refused(&bob, Code::RateLimited).await;
                } => {}
            }
            service.uploaded(Sending::new(&dave, "x", "x")).await;
        } => {}
    }
    service.uploaded(Sending::new(&ada, "x", "x")).await;
}

#[tokio::test]
async fn unwritable_object_store_is_unavailable() {
    let location = Location::sqlite();
    std::fs::write(location.directory.join("objects"), "a file where a directory should be").unwrap();
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    for sending in [Sending::new(&ada, "x", "x"), Sending::new(&ada, "x", "x").to(&room)] {
        assert_eq!(service.upload(sending).await.unwrap_err().code, Code::Unavailable);
    }
    assert_eq!((service.uploads(&ada).await, world.log.events()), (vec![], vec![]));
}

/// Retries while the store is too slow, that is, takes longer than one second: the machine may stand still, but not in
/// every attempt.
async fn in_the_end<T>(ask: impl AsyncFn() -> Result<T, Error>) -> T {
    for _ in 0..4 {
        match ask().await {
            Err(error) if matches!(error.code, Code::Unavailable | Code::Timeout) => {}
            answer => return answer.unwrap(),
        }
    }
    ask().await.unwrap()
}

#[tokio::test]
async fn files_are_stored_in_s3() {
    let location = Location::sqlite().on_s3(None);
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    let bytes = (0..20_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>();
    let sending = Sending::new(&ada, "big", bytes.clone()).to(&room).called("1");
    let upload = async || in_the_end(async || service.upload(sending.clone()).await).await;
    let (first, second) = tokio::join!(upload(), upload());
    assert_eq!((&first.file, &first.message), (&second.file, &second.message));
    assert_ne!(first.duplicate, second.duplicate);
    let id = first.file.unwrap().id;
    for (offset, length, part) in [(0, 0, &bytes[..]), (7_999_999, 9_000_001, &bytes[7_999_999..17_000_000])] {
        assert!(in_the_end(async || service.download(anonymous(), &id, offset, length).await).await == part);
    }
    let small = in_the_end(async || service.upload(Sending::new(&ada, "small", "tea")).await).await.file.unwrap().id;
    assert_eq!(in_the_end(async || service.download(by(&ada), &small, 0, 0).await).await, b"tea");
    service.delete(&ada, &id).await.unwrap();
    assert_eq!(service.get(by(&ada), &id).await.unwrap_err().code, Code::NotFound);
    assert!(location.objects().is_empty());
}

#[tokio::test]
async fn unreachable_s3_is_unavailable_in_time() {
    let location = Location::sqlite().on_s3(Some("http://127.0.0.1:9"));
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let begun = tokio::time::Instant::now();
    assert_eq!(service.upload(Sending::new(&ada, "a", "a")).await.unwrap_err().code, Code::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(service.uploads(&ada).await, [""; 0]);
}

#[tokio::test]
async fn upload_to_a_claimed_store_is_not_acknowledged() {
    let (location, world, service, ada) = started([]).await;
    service.uploaded(Sending::new(&ada, "before", "x")).await;
    let (sender, parts) = tokio::sync::mpsc::channel(1);
    let parts = stream::unfold(parts, async |mut parts| parts.recv().await.map(|next| (next, parts))).boxed();
    let claim = async {
        let Sending { begin, finish, .. } = Sending::new(&ada, "x", "");
        for next in [Part::Begin(begin), Part::Chunk(Bytes::from_static(b"x"))] {
            sender.send(part(next)).await.unwrap();
        }
        eventually(async || (location.objects().len() == 2).then_some(())).await;
        let other =
            Location::sqlite().with([format!("--objects=file:{}", location.directory.join("objects").display())]);
        Service::start(&other, &world).await.stop();
        let config = Settings::parse_from([String::new()].iter().chain(&other.flags)).file;
        let storage = StorageConfig { data_dir: other.directory.clone(), postgres: PostgresConfig::default() };
        eventually(async || confab_file::claim_objects(&config, &storage).await.ok()).await;
        sender.send(part(Part::Finish(finish))).await.unwrap();
    };
    let (sent, ()) = tokio::join!(service.send(parts), claim);
    assert_eq!(sent.unwrap_err().code, Code::Unavailable);
    assert_eq!(service.uploads(&ada).await.len(), 1);
}
