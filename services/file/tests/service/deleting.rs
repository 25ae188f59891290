//! Deletions take effect everywhere.

use std::io::ErrorKind;

use confab_common::Code;

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
    deleted_file_is_removed_everywhere,
    dropped_files_are_removed_everywhere,
    deletion_is_repeated,
    queued_deletions_survive_a_restart,
    files_of_a_closed_room_are_deleted,
    orphans_are_swept,
];

async fn deleted_file_is_removed_everywhere(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    let roomless = service.uploaded(Sending::new(&ada, "a", "a")).await.id;
    let shared = service.uploaded(Sending::new(&ada, "b", "b").to(&room)).await.id;
    let attached = service.uploaded(Sending::new(&ada, "c", "c")).await.id;
    service.attach(&ada, &room, &[&attached]).await.unwrap();
    for id in [&roomless, &shared, &attached] {
        service.delete(&ada, id).await.unwrap();
        assert_eq!(service.get(by(&ada), id).await.unwrap_err().code, Code::NotFound);
        assert_eq!(service.delete(&ada, id).await.unwrap_err().code, Code::NotFound);
    }
    let mut reported = vec![(room.clone(), shared), (room, attached)];
    reported.sort();
    assert_eq!(world.log.forgotten(), reported, "before the deletion is answered");
    eventually(async || location.objects().is_empty().then_some(())).await;
}

async fn dropped_files_are_removed_everywhere(location: Location) {
    let location = location.with(["--max-files-per-user=3"]);
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let (room, other) = (world.rooms.public(), world.rooms.public());
    let gone = service.uploaded(Sending::new(&ada, "a", "a").to(&room)).await.id;
    let elsewhere = service.uploaded(Sending::new(&ada, "b", "b").to(&other)).await.id;
    let roomless = service.uploaded(Sending::new(&ada, "c", "c")).await.id;
    let link = service.sign(by(&ada), &gone).await.unwrap();
    let unknown = Uuid::now_v7().to_string();
    for _ in 0..2 {
        dropped(&service, &room, &[&gone, &elsewhere, &roomless, &unknown]).await.unwrap();
        for reader in [by(&ada), bearer(&link)] {
            assert_eq!(service.get(reader, &gone).await.unwrap_err().code, Code::NotFound);
        }
    }
    let mut left = service.uploads(&ada).await;
    left.sort();
    assert_eq!(left, [elsewhere, roomless]);
    eventually(async || (world.log.forgotten() == [(room.clone(), gone.clone())]).then_some(())).await;
    eventually(async || (location.objects().len() == 2).then_some(())).await;
    // The dropped file has left its place in the quota.
    service.uploaded(Sending::new(&ada, "d", "d")).await;
    let many = vec![unknown.as_str(); 101];
    for (room, ids) in [(room.as_str(), &many[..]), (&room, &["tea"]), ("tea", &many[..1])] {
        assert_eq!(dropped(&service, room, ids).await.unwrap_err().code, Code::InvalidRequest);
    }
}

async fn deletion_is_repeated(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let id = service.uploaded(Sending::new(&ada, "a", "a")).await.id;
    let again = async |operation: Uuid| {
        let message = DeleteFileRequest { caller: Some(ada.clone()), id: id.clone(), moderator: false };
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("confab-operation", operation.to_string().parse().unwrap());
        service.client.clone().delete_file(request).await.map(drop).map_err(Error::from)
    };
    // The caller of the second attempt has received no answer to the first.
    let operation = Uuid::now_v7();
    for _ in 0..2 {
        again(operation).await.unwrap();
    }
    assert_eq!(again(Uuid::now_v7()).await.unwrap_err().code, Code::NotFound, "another operation");
}

async fn queued_deletions_survive_a_restart(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let room = world.rooms.public();
    let id = service.uploaded(Sending::new(&ada, "a", "a").to(&room)).await.id;
    // Neither the object store nor the log is reachable.
    let (objects, away) = (location.directory.join("objects"), location.directory.join("away"));
    std::fs::rename(&objects, &away).unwrap();
    std::fs::write(&objects, "a file where a directory should be").unwrap();
    world.log.is(Mood::Away);
    service.delete(&ada, &id).await.unwrap();
    assert_eq!(service.get(by(&ada), &id).await.unwrap_err().code, Code::NotFound);
    service.stop();

    let service = Service::start(&location, &world).await;
    assert_eq!(world.log.forgotten(), []);
    std::fs::remove_file(&objects).unwrap();
    std::fs::rename(&away, &objects).unwrap();
    assert_eq!(location.objects().len(), 1);
    world.log.is(Mood::Well);
    eventually(async || (world.log.forgotten() == [(room.clone(), id.clone())]).then_some(())).await;
    eventually(async || location.objects().is_empty().then_some(())).await;
    service.stop();
}

async fn files_of_a_closed_room_are_deleted(location: Location) {
    let (world, ada) = (World::default(), user("ada"));
    let service = Service::start(&location, &world).await;
    let (room, other) = (world.rooms.public(), world.rooms.public());
    for number in 0..3 {
        service.uploaded(Sending::new(&ada, "a", format!("{number}")).to(&room)).await;
    }
    let attached = service.uploaded(Sending::new(&ada, "a", "attached")).await.id;
    service.attach(&ada, &room, &[&attached]).await.unwrap();
    let stays = service.uploaded(Sending::new(&ada, "b", "stays").to(&other)).await.id;
    world.rooms.delete(&room);
    world.log.close(&room);
    eventually(async || (service.uploads(&ada).await == [stays.as_str()]).then_some(())).await;
    eventually(async || (location.objects().len() == 1).then_some(())).await;
    assert_eq!(service.download(anonymous(), &stays, 0, 0).await.unwrap(), b"stays");
    assert_eq!(world.log.forgotten(), []);
}

async fn orphans_are_swept(location: Location) {
    let location = location.with(["--orphan-age=1ms", "--sweep-every=20ms"]);
    let (world, ada) = (World::default(), user("ada"));
    let stray = Uuid::now_v7().to_string();
    let folder = location.directory.join("objects").join(&stray[..4]).join(&stray[4..6]);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(&stray), "object without a file").unwrap();
    let service = Service::start(&location, &world).await;
    eventually(async || location.objects().is_empty().then_some(())).await;
    // A file whose content is lost is kept: a backup may restore it.
    let id = eventually(async || service.upload(Sending::new(&ada, "a", "a")).await.ok()).await.file.unwrap().id;
    for object in location.objects() {
        // The sweep may already have removed objects without a file.
        let removed = std::fs::remove_file(object);
        assert!(removed.is_ok() || removed.is_err_and(|error| error.kind() == ErrorKind::NotFound));
    }
    assert_eq!(service.get(by(&ada), &id).await.unwrap().id, id);
}

#[tokio::test]
async fn uploader_and_room_manager_may_delete_a_file() {
    let (world, ada, bob, eve) = (World::default(), user("ada"), user("bob"), user("eve"));
    let service = Service::start(&Location::sqlite(), &world).await;
    let room = world.rooms.make([(bob.id.as_str(), rooms::MANAGE)], rooms::POST);
    let private = world.rooms.private([(ada.id.as_str(), rooms::POST), (bob.id.as_str(), rooms::MANAGE)]);
    let roomless = service.uploaded(Sending::new(&ada, "a", "a")).await.id;
    let shared = service.uploaded(Sending::new(&ada, "b", "b").to(&room)).await.id;
    let hidden = service.uploaded(Sending::new(&ada, "c", "c").to(&private)).await.id;
    for (caller, id, code) in [
        (&bob, &roomless, Code::NotFound),
        (&eve, &shared, Code::Forbidden),
        (&eve, &hidden, Code::NotFound),
        (&ada, &Uuid::now_v7().to_string(), Code::NotFound),
        (&ada, &"tea".to_string(), Code::NotFound),
    ] {
        assert_eq!(service.delete(caller, id).await.unwrap_err().code, code);
    }
    service.delete(&bob, &shared).await.unwrap();
    service.delete(&bob, &hidden).await.unwrap();
    service.delete(&ada, &roomless).await.unwrap();
    let request = DeleteFileRequest { id: roomless, ..DeleteFileRequest::default() };
    assert_eq!(Error::from(service.client.clone().delete_file(request).await.unwrap_err()).code, Code::Unauthorized);
}
