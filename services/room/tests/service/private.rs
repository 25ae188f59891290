//! Private rooms: a user who is not a member cannot find them.

use confab_common::Code;
use confab_proto::message::v1::{AccessChange, RoomMember};

use super::*;

on_both_stores![
    private_room_is_hidden_like_an_unknown_room,
    several_rooms_are_checked_in_one_call,
    members_of_a_private_room_find_it,
    visibility_changes_are_in_the_log,
];

async fn private_room_is_hidden_like_an_unknown_room(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let hidden = service.create_private(&ada, "Tea").await.unwrap().id;
    service.set(&ada, &hidden, &user("cleo"), Role::Member).await.unwrap();
    let unknown = Uuid::now_v7().to_string();
    let refusals = async |id: &str| {
        let absent = SetMemberRequest { caller: Some(bob.clone()), room_id: id.into(), ..SetMemberRequest::default() };
        [
            service.get(id).await.unwrap_err(),
            service.get_as(&bob, id).await.unwrap_err(),
            service.access(id, "").await.unwrap_err(),
            service.access(id, &bob.id).await.unwrap_err(),
            service.rename(&bob, id, "Mine").await.unwrap_err(),
            service.show(&bob, id, Visibility::Public).await.unwrap_err(),
            service.delete(&bob, id).await.unwrap_err(),
            service.join(&bob, id).await.unwrap_err(),
            service.set(&bob, id, &bob, Role::Owner).await.unwrap_err(),
            service.set(&bob, id, &ada, Role::Member).await.unwrap_err(),
            service.set_as(absent).await.unwrap_err(),
            service.remove(&bob, id, &bob.id).await.unwrap_err(),
            service.remove(&bob, id, &ada.id).await.unwrap_err(),
            service.list_members(None, id, 50, "").await.unwrap_err(),
            service.list_members(Some(&bob), id, 50, "").await.unwrap_err(),
        ]
        .map(|error| (error.code, error.detail, error.retry_after))
    };
    let answers = refusals(&hidden).await;
    assert!(answers.iter().all(|(code, ..)| *code == Code::NotFound), "{answers:?}");
    assert_eq!(answers, refusals(&unknown).await);
    assert_eq!(service.list(50, "", "").await.unwrap().rooms, []);
    for query in ["", "tea"] {
        assert_eq!(service.found_by(&bob, query).await, []);
    }
    // The id is taken, whether or not the caller may see its room; the name is not.
    let repeat =
        CreateRoomRequest { id: hidden, caller: Some(bob.clone()), name: "Tea".into(), ..CreateRoomRequest::default() };
    assert_eq!(service.create_as(repeat).await.unwrap_err().code, Code::Conflict);
    service.create(&bob, "Tea").await.unwrap();
}

async fn several_rooms_are_checked_in_one_call(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let (shown, hidden) = (service.create(&ada, "Tea").await.unwrap().id, service.create_private(&ada, "Den").await);
    let hidden = hidden.unwrap().id;
    let check = async |user: &UserRef, room_ids: Vec<String>| {
        let request = CheckRoomsRequest { room_ids, user_id: user.id.clone() };
        service.client.clone().check_rooms(request).await.map(|answer| answer.into_inner().room_ids)
    };
    let all = vec![shown.clone(), hidden.clone(), Uuid::now_v7().to_string()];
    assert_eq!(check(&bob, all.clone()).await.unwrap(), [&*shown]);
    assert_eq!(check(&ada, all.clone()).await.unwrap().len(), 2);
    service.set(&ada, &hidden, &bob, Role::Member).await.unwrap();
    assert_eq!(check(&bob, all.clone()).await.unwrap().len(), 2);
    service.remove(&bob, &hidden, &bob.id).await.unwrap();
    assert_eq!(check(&bob, all).await.unwrap(), [shown]);
    for bad in [vec!["tea".to_owned()], vec![hidden; 1001]] {
        assert_eq!(Error::from(check(&bob, bad).await.unwrap_err()).fields[0].field, "roomIds");
    }
}

async fn members_of_a_private_room_find_it(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let room = service.create_private(&ada, "Tea").await.unwrap();
    assert_eq!((room.visibility(), room.role()), (Visibility::Private, Role::Owner));
    assert_eq!(log.opening(&room.id).unwrap().visibility(), Visibility::Private);
    service.set(&ada, &room.id, &bob, Role::Unspecified).await.unwrap();
    assert_eq!(log.last(&room.id).access.unwrap().visibility(), Visibility::Private);
    for query in ["", "tea"] {
        let found = service.found_by(&bob, query).await;
        assert_eq!(found, [Room { role: Role::Member.into(), ..room.clone() }]);
        assert_eq!(service.get_as(&bob, &room.id).await.unwrap(), found[0]);
    }
    for (user, may_manage) in [(&ada, true), (&bob, false)] {
        let access = Access { may_read: true, may_post: true, may_manage, private: true };
        assert_eq!(service.access(&room.id, &user.id).await.unwrap(), access);
    }
    service.remove(&bob, &room.id, &bob.id).await.unwrap();
    assert_eq!(service.found_by(&bob, "").await, []);
    assert_eq!(service.remove(&bob, &room.id, &bob.id).await.unwrap_err().detail, "no such room");
}

async fn visibility_changes_are_in_the_log(location: Location) {
    let (log, ada, bob) = (Log::default(), user("ada"), user("bob"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    service.set(&ada, &id, &bob, Role::Admin).await.unwrap();
    assert_eq!(service.show(&bob, &id, Visibility::Private).await.unwrap_err().code, Code::Forbidden);
    for (visibility, shown) in [(Visibility::Private, "private"), (Visibility::Public, "public")] {
        assert_eq!(service.show(&ada, &id, visibility).await.unwrap().visibility(), visibility);
        let (event, count) = (log.last(&id), log.events().len());
        let data = format!(r#"{{"name":"Tea","description":"","visibility":"{shown}"}}"#);
        assert_eq!((event.event.as_str(), event.data), ("roomUpdated", data));
        // The log may not know the owner of a room that it had before it had members.
        let owner = RoomMember { user_id: ada.id.clone(), role: Role::Owner.into() };
        let (members, removed) = (vec![owner], Vec::new());
        let access = AccessChange { members, removed, visibility: visibility.into(), changes_visibility: true };
        assert_eq!(event.access, Some(access));
        service.show(&ada, &id, visibility).await.unwrap();
        assert_eq!(log.events().len(), count, "a request that changes nothing appends no event");
        assert_eq!(service.get(&id).await.is_ok(), visibility == Visibility::Public);
        assert_eq!(log.room(&id).0, visibility);
    }
    // Names of private rooms are free.
    service.show(&ada, &id, Visibility::Private).await.unwrap();
    service.create(&bob, "tea").await.unwrap();
    assert_eq!(service.show(&ada, &id, Visibility::Public).await.unwrap_err().code, Code::RoomNameTaken);
    let request = UpdateRoomRequest {
        caller: Some(ada.clone()),
        id: id.clone(),
        name: Some("Green tea".into()),
        visibility: Some(Visibility::Public.into()),
        ..UpdateRoomRequest::default()
    };
    assert_eq!(service.update(request.clone()).await.unwrap().name, "Green tea");
    let error = service.update(UpdateRoomRequest { visibility: Some(9), ..request }).await.unwrap_err();
    assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "visibility"));
}
