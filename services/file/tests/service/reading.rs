//! Which readers may read which files.

use confab_common::Code;

use super::*;

async fn started() -> (World, Service, UserRef, UserRef) {
    let world = World::default();
    let service = Service::start(&Location::sqlite(), &world).await;
    (world, service, user("ada"), user("bob"))
}

/// Returns the error of each way to read a file.
async fn refusals(service: &Service, reader: Reader, id: &str) -> [Code; 3] {
    [
        service.get(reader.clone(), id).await.unwrap_err().code,
        service.download(reader.clone(), id, 0, 0).await.unwrap_err().code,
        service.sign(reader, id).await.unwrap_err().code,
    ]
}

#[tokio::test]
async fn readers_of_the_room_can_read_its_files() {
    let (world, service, ada, bob) = started().await;
    let (public, private) = (world.rooms.public(), world.rooms.private([(ada.id.as_str(), rooms::POST)]));
    let roomless = service.uploaded(Sending::new(&ada, "a", "own")).await.id;
    let shown = service.uploaded(Sending::new(&ada, "b", "public").to(&public)).await.id;
    let hidden = service.uploaded(Sending::new(&ada, "c", "private").to(&private)).await.id;
    for id in [&roomless, &shown, &hidden] {
        assert_eq!(service.get(by(&ada), id).await.unwrap().id, *id);
    }
    for reader in [by(&bob), anonymous()] {
        assert_eq!(service.download(reader.clone(), &shown, 0, 0).await.unwrap(), b"public");
        for unknown in [roomless.as_str(), &hidden, &Uuid::now_v7().to_string(), "tea", ""] {
            assert_eq!(refusals(&service, reader.clone(), unknown).await, [Code::NotFound; 3], "{unknown}");
        }
        assert_eq!(service.list(reader.clone(), Some(&private), 50, "").await.unwrap_err().code, Code::NotFound);
        assert_eq!(service.list(reader, Some(&public), 50, "").await.unwrap().files[0].id, shown);
    }
    assert_eq!(service.list(anonymous(), None, 50, "").await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(service.uploads(&bob).await, [""; 0]);

    // In a deleted room, and while the room service is unreachable.
    world.rooms.delete(&public);
    eventually(async || service.get(by(&ada), &shown).await.err().filter(|error| error.code == Code::NotFound)).await;
    world.rooms.is_away(true);
    let stranger = user("eve");
    assert_eq!(refusals(&service, by(&stranger), &hidden).await, [Code::Unavailable; 3]);
    assert_eq!(service.download(by(&ada), &roomless, 0, 0).await.unwrap(), b"own");
}

#[tokio::test]
async fn ranges_are_cut_from_the_file() {
    let (_, service, ada, _) = started().await;
    let bytes = (0..700_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>();
    let id = service.uploaded(Sending::new(&ada, "a", bytes.clone())).await.id;
    for (offset, length, expected) in [
        (0, 0, &bytes[..]),
        (0, 1, &bytes[..1]),
        (300_000, 0, &bytes[300_000..]),
        (300_000, 300_000, &bytes[300_000..600_000]),
        (699_999, 0, &bytes[699_999..]),
        (699_999, u64::MAX, &bytes[699_999..]),
    ] {
        assert_eq!(service.download(by(&ada), &id, offset, length).await.unwrap(), expected, "{offset} {length}");
    }
    for offset in [700_000, 700_001, u64::MAX] {
        assert_eq!(service.download(by(&ada), &id, offset, 1).await.unwrap_err().code, Code::RangeNotSatisfiable);
    }
}

#[tokio::test]
async fn lost_content_is_an_error_not_a_shorter_file() {
    let location = Location::sqlite();
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let id = service.uploaded(Sending::new(&ada, "a", vec![7; 700_000])).await.id;
    let object = location.objects().pop().unwrap();
    std::fs::OpenOptions::new().write(true).open(&object).unwrap().set_len(400_000).unwrap();
    assert_eq!(service.download(by(&ada), &id, 0, 0).await.unwrap_err().code, Code::Internal);
    assert_eq!(service.download(by(&ada), &id, 0, 400_000).await.unwrap().len(), 400_000);
    std::fs::remove_file(object).unwrap();
    assert_eq!(service.download(by(&ada), &id, 0, 1).await.unwrap_err().code, Code::Internal);
}

#[tokio::test]
async fn link_is_valid_only_for_its_file() {
    let (world, service, ada, _) = started().await;
    let private = world.rooms.private([(ada.id.as_str(), rooms::POST)]);
    let file = service.uploaded(Sending::new(&ada, "a", "private").to(&private)).await.id;
    let other = service.uploaded(Sending::new(&ada, "b", "other").to(&private)).await.id;
    let link = service.sign(by(&ada), &file).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!((now + 290_000..=now + 300_000).contains(&link.expires_at_ms));
    assert_eq!(service.get(bearer(&link), &file).await.unwrap().id, file);
    assert_eq!(service.download(bearer(&link), &file, 0, 0).await.unwrap(), b"private");

    assert_eq!(service.get(bearer(&link), &other).await.unwrap_err().code, Code::NotFound);
    let later = Link { expires_at_ms: link.expires_at_ms + 1, ..link.clone() };
    let over = Link { expires_at_ms: now - 1, ..link.clone() };
    let forged = Link { signature: service.sign(by(&ada), &other).await.unwrap().signature, ..link.clone() };
    for bad in [later, over, forged, Link::default()] {
        assert_eq!(service.get(bearer(&bad), &file).await.unwrap_err().code, Code::NotFound);
    }
    assert_eq!(service.sign(bearer(&link), &file).await.unwrap_err().code, Code::Unauthorized);
    for room in [None, Some(private.as_str())] {
        assert_eq!(service.list(bearer(&link), room, 50, "").await.unwrap_err().code, Code::Unauthorized);
    }
    service.delete(&ada, &file).await.unwrap();
    assert_eq!(service.get(bearer(&link), &file).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn removal_from_a_private_room_ends_reads_and_links_at_once() {
    let (world, service, ada, bob) = started().await;
    let private = world.rooms.private([(ada.id.as_str(), rooms::POST), (bob.id.as_str(), rooms::POST)]);
    let file = service.uploaded(Sending::new(&bob, "a", "private").to(&private)).await.id;
    let links = [service.sign(by(&ada), &file).await.unwrap(), service.sign(by(&bob), &file).await.unwrap()];
    for link in &links {
        assert_eq!(service.download(bearer(link), &file, 0, 0).await.unwrap(), b"private");
    }
    service.get(by(&bob), &file).await.unwrap();
    world.rooms.remove(&private, &bob.id);
    assert_eq!(refusals(&service, by(&bob), &file).await, [Code::NotFound; 3], "also for the uploader");
    assert_eq!(service.get(bearer(&links[1]), &file).await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.delete(&bob, &file).await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.list(by(&bob), Some(&private), 50, "").await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.download(bearer(&links[0]), &file, 0, 0).await.unwrap(), b"private");
    // Nothing is answered from memory while the room service is unreachable.
    world.rooms.is_away(true);
    assert_eq!(service.get(bearer(&links[0]), &file).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(service.get(by(&ada), &file).await.unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn lists_are_paged_and_cursors_belong_to_their_list() {
    let (world, service, ada, bob) = started().await;
    let room = world.rooms.public();
    let mut shared = Vec::new();
    for number in 0..5 {
        shared.push(service.uploaded(Sending::new(&ada, "a", format!("{number}")).to(&room)).await.id);
        service.uploaded(Sending::new(&bob, "b", "roomless")).await;
    }
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = service.list(anonymous(), Some(&room), 2, &cursor).await.unwrap();
        seen.extend(page.files.into_iter().map(|file| file.id));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
        let error = service.list(by(&ada), None, 2, &cursor).await.unwrap_err();
        assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "cursor"));
    }
    shared.sort();
    seen.sort();
    assert_eq!(seen, shared);
    assert_eq!(service.list(by(&bob), None, 5, "").await.unwrap().next_cursor, "", "a full last page has no next page");
    for limit in [0, 201] {
        assert_eq!(service.list(by(&ada), None, limit, "").await.unwrap_err().fields[0].field, "limit");
    }
    assert_eq!(service.list(by(&ada), None, 50, "nonsense").await.unwrap_err().fields[0].field, "cursor");
    assert_eq!(service.list(by(&ada), Some("tea"), 50, "").await.unwrap_err().fields[0].field, "roomId");
}

#[tokio::test]
async fn own_uploads_are_listed_while_their_room_may_be_read() {
    let (world, service, ada, _) = started().await;
    let (public, private) = (world.rooms.public(), world.rooms.private([(ada.id.as_str(), rooms::POST)]));
    let mut kept = vec![service.uploaded(Sending::new(&ada, "a", "own")).await.id];
    let attached = service.uploaded(Sending::new(&ada, "b", "attached")).await.id;
    service.attach(&ada, &private, &[&attached]).await.unwrap();
    kept.push(service.uploaded(Sending::new(&ada, "c", "public").to(&public)).await.id);
    for _ in 0..5 {
        service.uploaded(Sending::new(&ada, "d", "private").to(&private)).await;
    }
    kept.push(service.uploaded(Sending::new(&ada, "e", "own")).await.id);
    kept.sort();
    assert_eq!(service.uploads(&ada).await.len(), 9);
    world.rooms.remove(&private, &ada.id);
    for is_old in [false, true] {
        world.rooms.is_old(is_old);
        for limit in [1, 2, 3, 200] {
            let (mut cursor, mut pages) = (String::new(), Vec::new());
            loop {
                let page = service.list(by(&ada), None, limit, &cursor).await.unwrap();
                pages.push(page.files.into_iter().map(|file| file.id).collect::<Vec<_>>());
                cursor = page.next_cursor;
                if cursor.is_empty() {
                    break;
                }
            }
            let full = pages[..pages.len() - 1].iter().all(|page| page.len() == limit as usize);
            assert!(full, "{pages:?} with at most {limit} files");
            let mut listed = pages.concat();
            listed.sort();
            assert_eq!(listed, kept, "with at most {limit} files");
        }
    }
    world.rooms.is_away(true);
    assert_eq!(service.list(by(&ada), None, 200, "").await.unwrap_err().code, Code::Unavailable);
}

#[tokio::test]
async fn owner_attaches_files_to_one_room() {
    let (world, service, ada, bob) = started().await;
    let (room, other) = (world.rooms.public(), world.rooms.public());
    let private = world.rooms.private([(ada.id.as_str(), rooms::POST)]);
    let one = service.uploaded(Sending::new(&ada, "1", "one")).await.id;
    let two = service.uploaded(Sending::new(&ada, "2", "two")).await.id;
    let bobs = service.uploaded(Sending::new(&bob, "b", "Bob's")).await.id;
    let hidden = service.uploaded(Sending::new(&ada, "h", "hidden").to(&private)).await.id;
    let elsewhere = service.uploaded(Sending::new(&ada, "e", "elsewhere").to(&other)).await.id;
    for (ids, code) in [
        ([&one, &bobs], Code::NotFound),
        ([&one, &Uuid::now_v7().to_string()], Code::NotFound),
        ([&one, &elsewhere], Code::Conflict),
        ([&hidden, &one], Code::Conflict),
    ] {
        assert_eq!(service.attach(&ada, &room, &ids.map(String::as_str)).await.unwrap_err().code, code);
        assert_eq!(service.get(by(&ada), &one).await.unwrap().room_id, None, "all files or none");
    }
    assert_eq!(
        service.attach(&bob, &room, &[&hidden]).await.unwrap_err().code,
        Code::NotFound,
        "as if the file did not exist"
    );

    for _ in 0..2 {
        let files = service.attach(&ada, &room, &[&two, &one, &two]).await.unwrap();
        assert_eq!(files.iter().map(|file| &file.id).collect::<Vec<_>>(), [&two, &one, &two]);
        assert!(files.iter().all(|file| file.room_id.as_ref() == Some(&room)));
    }
    assert_eq!(
        service.attach(&bob, &room, &[&one, &bobs]).await.unwrap().len(),
        2,
        "any member may attach the room's files"
    );
    assert_eq!(service.download(anonymous(), &bobs, 0, 0).await.unwrap(), b"Bob's");
    assert_eq!(service.attach(&ada, &other, &[&one]).await.unwrap_err().code, Code::Conflict);

    let many = vec![one.as_str(); 11];
    assert_eq!(service.attach(&ada, &room, &many).await.unwrap_err().fields[0].field, "fileIds");
    assert_eq!(service.attach(&ada, &room, &["tea"]).await.unwrap_err().fields[0].field, "fileIds");
}

#[tokio::test]
async fn one_user_cannot_take_all_download_permits() {
    let world = World::default();
    let service = Service::start(&Location::sqlite().with(["--max-downloads=4"]), &world).await;
    let [ada, bob, carol, dave] = ["ada", "bob", "carol", "dave"].map(user);
    let room = world.rooms.public();
    let file = service.uploaded(Sending::new(&ada, "a", vec![7; 1_000_000]).to(&room)).await.id;
    let begin = async |who: Reader| {
        let request = DownloadRequest { reader: Some(who), id: file.clone(), offset: 0, length: 0 };
        service.client.clone().download(request).await.map(|answer| answer.into_inner()).map_err(Error::from)
    };
    let mut open = vec![begin(by(&ada)).await.unwrap(), begin(by(&ada)).await.unwrap()];
    let refused = begin(by(&ada)).await.err().unwrap();
    assert_eq!((refused.code, refused.retry_after.is_some()), (Code::RateLimited, true));
    open.extend([begin(by(&bob)).await.unwrap(), begin(by(&carol)).await.unwrap()]);
    assert_eq!(begin(by(&dave)).await.err().unwrap().code, Code::Unavailable);
    // A dropped download returns its permit, and so does a download that was read to its end.
    drop(open.pop());
    let taken = eventually(async || begin(by(&dave)).await.ok()).await;
    assert_eq!(taken.try_fold(0, async |sum, answer| Ok(sum + answer.chunk.len())).await.unwrap(), 1_000_000);
    assert_eq!(service.download(by(&carol), &file, 0, 0).await.unwrap().len(), 1_000_000);
}

#[tokio::test]
async fn pictures_take_no_permits_of_their_users() {
    let world = World::default();
    let service = Service::start(&Location::sqlite().with(["--max-downloads=20"]), &world).await;
    let [ada, bob] = ["ada", "bob"].map(user);
    let pictures = [&ada, &bob].map(|user| (user, Sending::new(user, "a", vec![7; 1_000_000])));
    let mut ids = Vec::new();
    for (user, sending) in pictures {
        ids.push((user, service.uploaded(sending).await.id));
    }
    let picture_of = |user: &UserRef| Reader { reader: Some(reader::Reader::PictureOf(user.clone())) };
    let mut open = Vec::new();
    // Any client shows pictures of both users, and reads none of them.
    let refused = 'full: loop {
        for (user, id) in &ids {
            let request = DownloadRequest { reader: Some(picture_of(user)), id: id.clone(), offset: 0, length: 0 };
            match service.client.clone().download(request).await {
                Ok(answer) => open.push(answer.into_inner()),
                Err(status) => break 'full Error::from(status),
            }
        }
    };
    assert_eq!(refused.code, Code::RateLimited);
    for (user, id) in &ids {
        assert_eq!(service.download(by(user), id, 0, 0).await.unwrap().len(), 1_000_000);
        assert_eq!(service.sign(picture_of(user), id).await.unwrap_err().code, Code::Unauthorized);
        assert_eq!(service.list(picture_of(user), None, 50, "").await.unwrap_err().code, Code::Unauthorized);
    }
    drop(open);
}

#[tokio::test]
async fn a_moderator_reads_and_deletes_the_files_of_all_rooms() {
    let (world, service, ada, _) = started().await;
    let private = world.rooms.private([(ada.id.as_str(), rooms::POST)]);
    let roomless = service.uploaded(Sending::new(&ada, "a", "own")).await.id;
    let hidden = service.uploaded(Sending::new(&ada, "b", "private").to(&private)).await.id;
    let key = user("system");
    let moderator = || Reader { reader: Some(reader::Reader::Moderator(key.clone())) };
    assert_eq!(service.download(moderator(), &hidden, 0, 0).await.unwrap(), b"private");
    assert_eq!(service.list(moderator(), Some(&private), 50, "").await.unwrap().files[0].id, hidden);
    let unknown = Uuid::now_v7().to_string();
    assert_eq!(service.list(moderator(), Some(&unknown), 50, "").await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.list(moderator(), None, 50, "").await.unwrap_err().code, Code::Unauthorized);
    assert_eq!(service.sign(moderator(), &hidden).await.unwrap_err().code, Code::Unauthorized);
    for id in [&roomless, &unknown] {
        assert_eq!(service.get(moderator(), id).await.unwrap_err().code, Code::NotFound);
    }
    let delete = async |id: &str, moderator| {
        let request = DeleteFileRequest { caller: Some(key.clone()), id: id.into(), moderator };
        service.client.clone().delete_file(request).await.err().map(|status| Error::from(status).code)
    };
    assert_eq!(delete(&hidden, false).await, Some(Code::NotFound));
    assert_eq!(delete(&roomless, true).await, Some(Code::NotFound));
    assert_eq!(delete(&hidden, true).await, None);
    assert_eq!(service.get(by(&ada), &hidden).await.unwrap_err().code, Code::NotFound);
}
