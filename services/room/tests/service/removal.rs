//! A user whose account was deleted leaves all rooms.

use confab_common::Code;
use confab_proto::message::v1::{AccessChange, RoomMember};

use super::log::Mood;
use super::*;

on_both_stores![
    deleted_user_leaves_all_rooms,
    room_passes_to_an_active_user,
    deleted_user_cannot_be_added,
    many_rooms_take_several_calls,
    deleted_user_leaves_while_the_log_is_away
];

async fn deleted_user_leaves_all_rooms(location: Location) {
    let (log, ada, bob, cleo) = (Log::default(), user("ada"), user("bob"), user("cleo"));
    let service = Service::start(&location, &log).await;
    let with_admins = service.create(&ada, "Admins").await.unwrap().id;
    service.join(&bob, &with_admins).await.unwrap();
    let dan = user("dan");
    for admin in [&cleo, &dan] {
        service.set(&ada, &with_admins, admin, Role::Admin).await.unwrap();
    }
    let with_member = service.create_private(&ada, "Member").await.unwrap().id;
    service.set(&ada, &with_member, &bob, Role::Member).await.unwrap();
    let alone = service.create_private(&ada, "Alone").await.unwrap().id;
    let joined = service.create(&bob, "Joined").await.unwrap().id;
    service.join(&ada, &joined).await.unwrap();

    assert!(!service.remove_user(&ada).await.unwrap());
    assert!(!service.remove_user(&ada).await.unwrap(), "safe to repeat");
    for (room, heir) in [(&with_admins, &cleo), (&with_member, &bob)] {
        let event = eventually(async || Some(log.last(room)).filter(|event| event.event == "memberLeft")).await;
        let json = |user: &UserRef| format!(r#"{{"id":"{}","username":"{}"}}"#, user.id, user.username);
        let data = format!(r#"{{"user":{0},"role":"owner","by":{0},"newOwner":{1}}}"#, json(&ada), json(heir));
        assert_eq!((event.data, event.sender), (data, Some(ada.clone())));
        let visibility = service.get_as(heir, room).await.unwrap().visibility().into();
        let members = vec![RoomMember { user_id: heir.id.clone(), role: Role::Owner.into() }];
        let removed = vec![ada.id.clone()];
        assert_eq!(event.access, Some(AccessChange { members, removed, visibility, changes_visibility: false }));
        assert_eq!(service.members(heir, room).await[0], (heir.clone(), Role::Owner));
    }
    let event = eventually(async || Some(log.last(&joined)).filter(|event| event.event == "memberLeft")).await;
    assert!(!event.data.contains("newOwner"), "{}", event.data);
    assert_eq!(service.members(&bob, &joined).await, [(bob.clone(), Role::Owner)]);
    eventually(async || Some(log.of_room(&alone)).filter(|events| !events.is_empty())).await;
    let event = log.last(&alone);
    assert_eq!((event.event.as_str(), event.sender, event.closes_room), ("roomDeleted", Some(ada.clone()), true));
    assert_eq!(service.get_as(&ada, &alone).await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.members(&cleo, &with_admins).await.len(), 3);
}

async fn room_passes_to_an_active_user(location: Location) {
    let (log, ada, bob, cleo) = (Log::default(), user("ada"), user("bob"), user("cleo"));
    let service = Service::start(&location, &log).await;
    let id = service.create_private(&ada, "Tea").await.unwrap().id;
    service.set(&ada, &id, &bob, Role::Admin).await.unwrap();
    service.set(&ada, &id, &cleo, Role::Member).await.unwrap();
    let remove = async |active: &[&UserRef], inactive: &[&UserRef]| {
        let [active, inactive] = [active, inactive].map(|users| users.iter().map(|user| user.id.clone()).collect());
        let request = RemoveUserRequest { user: Some(ada.clone()), looks_up_heirs: true, active, inactive };
        service.client.clone().remove_user(request).await.unwrap().into_inner()
    };
    let asked = RemoveUserResponse { more: true, candidates: vec![bob.id.clone(), cleo.id.clone()] };
    assert_eq!(remove(&[], &[]).await, asked);
    assert_eq!(service.members(&cleo, &id).await.len(), 3, "nothing has changed yet");
    assert_eq!(remove(&[&cleo], &[&bob]).await, RemoveUserResponse::default());
    assert_eq!(service.members(&cleo, &id).await, [(cleo.clone(), Role::Owner), (bob, Role::Admin)]);
}

async fn deleted_user_cannot_be_added(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    assert!(!service.remove_user(&bob).await.unwrap());
    assert_eq!(service.set(&ada, &id, &bob, Role::Member).await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.members(&ada, &id).await.len(), 1);
}

async fn many_rooms_take_several_calls(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let kept = service.create(&bob, "Kept").await.unwrap();
    for number in 0..60 {
        service.create(&ada, &format!("Tea {number}")).await.unwrap();
    }
    // A slow machine may need more calls than two.
    let mut calls = 1;
    while service.remove_user(&ada).await.unwrap() {
        calls += 1;
    }
    assert!(calls >= 2, "one call leaves at most 50 rooms");
    assert_eq!(service.list(200, "", "").await.unwrap().rooms, [Room { role: 0, ..kept }]);
}

async fn deleted_user_leaves_while_the_log_is_away(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    log.is(Mood::Away);
    assert!(!service.remove_user(&ada).await.unwrap());
    assert_eq!(service.get(&id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(log.events(), []);
    log.is(Mood::Well);
    eventually(async || Some(log.of_room(&id)).filter(|events| events.len() == 1)).await;
}
