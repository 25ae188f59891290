//! The maximum number of rooms of one user.

use confab_common::Code;

use super::moderating::key;
use super::*;

on_both_stores![
    a_user_at_the_maximum_creates_and_joins_no_further_room,
    neither_admins_nor_keys_add_a_user_at_the_maximum,
    a_room_passes_to_an_heir_at_the_maximum,
    other_users_take_at_most_half_of_the_places,
];

/// Starts a service with at most 2 rooms for each user.
async fn start(mut location: Location) -> (Service, Log) {
    let log = Log::default();
    location.max_rooms_per_user = 2;
    (Service::start(&location, &log).await, log)
}

async fn a_user_at_the_maximum_creates_and_joins_no_further_room(location: Location) {
    let (service, log) = start(location).await;
    let (ada, bob) = (user("ada"), user("bob"));
    let (id, caller) = (Uuid::now_v7().to_string(), Some(ada.clone()));
    let first = CreateRoomRequest { id, caller, name: "Tea".into(), ..CreateRoomRequest::default() };
    let tea = service.create_as(first.clone()).await.unwrap();
    let hidden = service.create_private(&ada, "Tea").await.unwrap();

    let rejected = service.create(&ada, "Milk").await.unwrap_err();
    assert_eq!(
        (rejected.code, &*rejected.detail),
        (Code::Conflict, "the user is in 2 rooms, the maximum for one user")
    );
    assert_eq!(service.create_private(&ada, "Milk").await.unwrap_err().code, Code::Conflict);
    let coffee = service.create(&bob, "Coffee").await.unwrap().id;
    assert_eq!(service.join(&ada, &coffee).await.unwrap_err().code, Code::Conflict);
    assert!(log.events().is_empty(), "a rejected request appends no event");
    assert_eq!(service.create_as(first).await.unwrap(), tea, "a repeat is answered with the first room");

    service.delete(&ada, &hidden.id).await.unwrap();
    service.create(&ada, "Milk").await.unwrap();
    assert_eq!(service.join(&ada, &coffee).await.unwrap_err().code, Code::Conflict);
}

async fn neither_admins_nor_keys_add_a_user_at_the_maximum(location: Location) {
    let (service, _log) = start(location).await;
    let (ada, bob) = (user("ada"), user("bob"));
    let tea = service.create(&ada, "Tea").await.unwrap().id;
    let own = service.create(&bob, "Milk").await.unwrap().id;
    service.create_private(&bob, "Coffee").await.unwrap();

    assert_eq!(service.set(&ada, &tea, &bob, Role::Unspecified).await.unwrap_err().code, Code::Conflict);
    assert_eq!(service.set(&ada, &tea, &bob, Role::Owner).await.unwrap_err().code, Code::Conflict);
    assert_eq!(service.moderate(&key(), &tea, &bob, Role::Admin).await.unwrap_err().code, Code::Conflict);
    assert_eq!(service.members(&ada, &tea).await, [(ada.clone(), Role::Owner)]);
    // Rights are judged first.
    assert_eq!(service.set(&user("cleo"), &tea, &bob, Role::Unspecified).await.unwrap_err().code, Code::Forbidden);

    // Ada has a place left for the room that Bob passes on; Bob stays in it as an admin.
    service.set(&bob, &own, &ada, Role::Owner).await.unwrap();
    assert_eq!(service.set(&ada, &tea, &bob, Role::Unspecified).await.unwrap_err().code, Code::Conflict);
    service.remove(&bob, &own, &bob.id).await.unwrap();
    assert_eq!(service.set(&ada, &tea, &bob, Role::Unspecified).await.unwrap(), (Role::Member, true));
}

async fn a_room_passes_to_an_heir_at_the_maximum(location: Location) {
    let (service, _log) = start(location).await;
    let (ada, bob) = (user("ada"), user("bob"));
    let tea = service.create(&ada, "Tea").await.unwrap().id;
    service.join(&bob, &tea).await.unwrap();
    service.create(&bob, "Milk").await.unwrap();
    assert_eq!(service.create(&bob, "Coffee").await.unwrap_err().code, Code::Conflict);

    assert!(!service.remove_user(&ada).await.unwrap());
    assert_eq!(service.members(&bob, &tea).await, [(bob.clone(), Role::Owner)]);
}

async fn other_users_take_at_most_half_of_the_places(location: Location) {
    let (service, _log) = start(location).await;
    let (ada, bob, cleo) = (user("ada"), user("bob"), user("cleo"));
    let tea = service.create(&ada, "Tea").await.unwrap().id;
    let coffee = service.create(&cleo, "Coffee").await.unwrap().id;
    let milk = service.create(&cleo, "Milk").await.unwrap().id;
    service.set(&ada, &tea, &bob, Role::Unspecified).await.unwrap();
    let rejected = service.set(&cleo, &coffee, &bob, Role::Admin).await.unwrap_err();
    let detail = "other users may add the user to 1 of 2 rooms; the user can still join rooms";
    assert_eq!((rejected.code, &*rejected.detail), (Code::Conflict, detail));
    assert_eq!(service.set(&cleo, &coffee, &bob, Role::Owner).await.unwrap_err().detail, detail);
    service.join(&bob, &coffee).await.unwrap();
    service.remove(&bob, &coffee, &bob.id).await.unwrap();
    service.create(&bob, "Water").await.unwrap();
    assert_eq!(service.join(&bob, &coffee).await.unwrap_err().code, Code::Conflict);

    // A server key is no other user.
    let dan = user("dan");
    for room in [&coffee, &milk] {
        service.moderate(&key(), room, &dan, Role::Member).await.unwrap();
    }
    assert_eq!(service.moderate(&key(), &tea, &dan, Role::Member).await.unwrap_err().code, Code::Conflict);
}
