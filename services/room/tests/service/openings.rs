//! The log opens each room before it appends the room's events; a log in an earlier format has no members.

use confab_common::Code;
use tokio_postgres::NoTls;

use super::log::Mood;
use super::*;

on_both_stores![
    room_is_opened_before_its_creation_is_answered,
    room_is_opened_after_an_outage_of_the_log,
    lost_answer_does_not_open_a_room_twice,
    deleted_room_is_opened_and_closed,
    log_of_the_release_before_needs_no_openings,
    members_require_a_log_with_members,
    restored_log_receives_all_rooms_again,
    restored_log_receives_every_member_of_a_large_room,
];

async fn room_is_opened_before_its_creation_is_answered(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    let opening = log.opening(&id).unwrap();
    assert_eq!((opening.visibility(), opening.members.len()), (Visibility::Public, 1));
    assert_eq!((&opening.members[0].user_id, opening.members[0].role()), (&ada.id, Role::Owner));
}

async fn room_is_opened_after_an_outage_of_the_log(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    // Known before the outage: the log has members.
    service.create_private(&ada, "Warm up").await.unwrap();
    log.is(Mood::Away);
    let id = Uuid::now_v7().to_string();
    let request = CreateRoomRequest {
        id: id.clone(),
        caller: Some(ada.clone()),
        name: "Tea".into(),
        ..CreateRoomRequest::default()
    };
    let (created, joined) = tokio::join!(service.create_as(request.clone()), async {
        eventually(async || service.get(&id).await.ok()).await;
        service.join(&bob, &id).await
    });
    assert_eq!((created.unwrap_err().code, joined.unwrap_err().code), (Code::Timeout, Code::Timeout));
    service.stop();

    let service = Service::start(&location, &log).await;
    assert_eq!(log.opening(&id), None);
    log.is(Mood::Well);
    eventually(async || Some(log.of_room(&id)).filter(|events| events.len() == 1)).await;
    assert_eq!(service.create_as(request).await.unwrap().id, id, "a repeat returns the room");
    let roles = [(ada.id.clone(), Role::Owner), (bob.id.clone(), Role::Member)].into();
    assert_eq!(log.room(&id), (Visibility::Public, roles));
}

async fn lost_answer_does_not_open_a_room_twice(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    log.is(Mood::Mute);
    let id = Uuid::now_v7().to_string();
    let (caller, name) = (Some(ada.clone()), "Tea".into());
    let request = CreateRoomRequest { id: id.clone(), caller, name, ..CreateRoomRequest::default() };
    let (created, ()) = tokio::join!(service.create_as(request), async {
        eventually(async || log.opening(&id)).await;
        log.is(Mood::Well);
    });
    assert_eq!(created.unwrap().role(), Role::Owner);
    service.rename(&ada, &id, "Green tea").await.unwrap();
}

async fn deleted_room_is_opened_and_closed(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    log.is(Mood::Away);
    assert_eq!(service.create(&ada, "Tea").await.unwrap_err().code, Code::Timeout);
    let id = service.list(50, "", "").await.unwrap().rooms.remove(0).id;
    assert_eq!(service.delete(&ada, &id).await.unwrap_err().code, Code::Timeout);
    log.is(Mood::Well);
    // A late opening finds the room closed.
    eventually(async || Some(log.of_room(&id)).filter(|events| !events.is_empty())).await;
    assert!(log.last(&id).closes_room);
    let opening = log.opening(&id).unwrap();
    assert_eq!((opening.visibility(), opening.members.len()), (Visibility::Private, 0), "no user finds it");
}

async fn log_of_the_release_before_needs_no_openings(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    log.has_format(0, true);
    let service = Service::start(&location, &log).await;
    let (used, unused) =
        (service.create(&ada, "Tea").await.unwrap().id, service.create(&ada, "Coffee").await.unwrap().id);
    service.rename(&ada, &used, "Green tea").await.unwrap();
    let deleted = service.create(&ada, "Water").await.unwrap().id;
    service.delete(&ada, &deleted).await.unwrap();
    assert_eq!(log.opening(&used), None);
    // The replicas of the message service are replaced, and then the log gets its new format.
    assert!(!log.all_opened());
    log.has_format(1, false);
    eventually(async || log.all_opened().then_some(())).await;
    assert!(log.opening(&unused).is_some());
    log.has_format(2, false);
    service.rename(&ada, &used, "Black tea").await.unwrap();
    service.rename(&ada, &unused, "Hot coffee").await.unwrap();
    service.join(&user("bob"), &unused).await.unwrap();
    assert_eq!(log.room(&unused).1.len(), 2);
    // A replica that cannot open rooms is no longer tolerated.
    log.has_format(2, true);
    assert_eq!(service.create(&ada, "Milk").await.unwrap_err().code, Code::Timeout);
}

async fn members_require_a_log_with_members(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    log.has_format(1, false);
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    for refused in [
        service.create_private(&ada, "Secret").await.unwrap_err(),
        service.show(&ada, &id, Visibility::Private).await.unwrap_err(),
        service.set(&ada, &id, &bob, Role::Member).await.unwrap_err(),
        service.join(&bob, &id).await.unwrap_err(),
    ] {
        assert_eq!((refused.code, refused.retry_after.is_some()), (Code::Unavailable, true));
        assert!(refused.detail.contains("confab-message finish-upgrade"), "{refused}");
    }
    // What changes nothing, and the checks of the room, do not need it.
    service.show(&ada, &id, Visibility::Public).await.unwrap();
    assert_eq!(service.join(&ada, &id).await.unwrap(), (Role::Owner, false));
    assert_eq!(service.set(&bob, &id, &ada, Role::Member).await.unwrap_err().code, Code::Forbidden);
    assert_eq!(service.remove(&bob, &id, &bob.id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.members(&ada, &id).await, [(ada.clone(), Role::Owner)]);
    // Without an answer of the log, nothing is done either.
    log.is(Mood::Away);
    assert_eq!(service.join(&bob, &id).await.unwrap_err().code, Code::Unavailable);
    log.is(Mood::Well);
    log.has_format(2, false);
    assert_eq!(service.join(&bob, &id).await.unwrap(), (Role::Member, true));
    assert_eq!(service.show(&ada, &id, Visibility::Private).await.unwrap().visibility(), Visibility::Private);
}

async fn restored_log_receives_all_rooms_again(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let tea = service.create_private(&ada, "Tea").await.unwrap().id;
    service.set(&ada, &tea, &bob, Role::Member).await.unwrap();
    let gone = service.create(&ada, "Gone").await.unwrap().id;
    service.delete(&ada, &gone).await.unwrap();
    epoch_is_recorded(&log).await;
    service.stop();
    log.restore();

    let service = Service::start(&location, &log).await;
    eventually(async || log.opening(&tea).and(log.opening(&gone))).await;
    let roles = [(ada.id.clone(), Role::Owner), (bob.id.clone(), Role::Member)].into();
    assert_eq!(log.room(&tea), (Visibility::Private, roles));
    let hidden = log.opening(&gone).unwrap();
    assert_eq!((hidden.visibility(), hidden.members.len()), (Visibility::Private, 0), "no user sees a deleted room");
    service.rename(&ada, &tea, "Green tea").await.unwrap();
    assert_eq!(log.of_room(&tea).len(), 1);
}

/// Returns when the service has recorded the epoch, if no call makes it read the heads from now on.
async fn epoch_is_recorded(log: &Log) {
    // The comparison of epochs reads the heads every 5 s. Before the second time, the first one has recorded the epoch.
    let before = log.heads();
    eventually(async || (log.heads() >= before + 2).then_some(())).await;
}

/// Adds this many members to a room in the database.
async fn fill(location: &Location, room: &str, count: usize) {
    let room = Uuid::try_parse(room).unwrap();
    match &location.url {
        Some(url) => {
            let (client, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
            tokio::spawn(connection);
            let insert = "INSERT INTO room.members (room_id, user_id, username, role, joined_at_ms)
                SELECT $1::uuid, gen_random_uuid(), 'user', 1, 1000 FROM generate_series(1, $2::bigint)";
            client.execute(insert, &[&room, &(count as i64)]).await.unwrap();
        }
        None => {
            let database = rusqlite::Connection::open(location.directory.join("room.db")).unwrap();
            let insert = "INSERT INTO members (room_id, user_id, username, role, joined_at_ms)
                WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2)
                SELECT ?1, randomblob(16), 'user', 1, 1000 FROM numbers";
            database.execute(insert, rusqlite::params![room.as_bytes(), count as i64]).unwrap();
        }
    }
}

async fn restored_log_receives_every_member_of_a_large_room(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let tea = service.create_private(&ada, "Tea").await.unwrap().id;
    epoch_is_recorded(&log).await;
    service.stop();
    fill(&location, &tea, 2300).await;
    log.restore();

    let service = Service::start(&location, &log).await;
    eventually(async || log.opening(&tea)).await;
    // The event of a change waits until the log has all members.
    service.rename(&ada, &tea, "Green tea").await.unwrap();
    assert!(!log.opening(&tea).unwrap().partial);
    let (visibility, roles) = log.room(&tea);
    assert_eq!((visibility, roles.len(), roles.get(&ada.id)), (Visibility::Private, 2301, Some(&Role::Owner)));
    assert_eq!(log.of_room(&tea).len(), 1);
}
