//! Members and their roles.

use std::collections::BTreeMap;

use confab_common::Code;
use confab_proto::message::v1::{AccessChange, RoomMember};

use super::*;

on_both_stores![
    members_join_change_and_leave,
    owner_passes_the_room_on,
    admins_manage_the_room,
    one_owner_remains_when_owners_race,
    a_hundred_users_join_at_once,
];

fn json(user: &UserRef) -> String {
    format!(r#"{{"id":"{}","username":"{}"}}"#, user.id, user.username)
}

fn with_role(user: &UserRef, role: Role) -> RoomMember {
    RoomMember { user_id: user.id.clone(), role: role.into() }
}

/// The access change of a public room.
fn access(members: &[RoomMember], removed: &[&UserRef]) -> Option<AccessChange> {
    let removed = removed.iter().map(|user| user.id.clone()).collect();
    let visibility = Visibility::Public.into();
    Some(AccessChange { members: members.to_vec(), removed, visibility, changes_visibility: false })
}

/// Checks that the log and the service know the same members.
async fn agree(service: &Service, log: &Log, caller: &UserRef, room: &str) {
    let members = service.members(caller, room).await;
    let roles = members.into_iter().map(|(user, role)| (user.id, role)).collect::<BTreeMap<_, _>>();
    assert_eq!(log.room(room), (Visibility::Public, roles));
}

async fn members_join_change_and_leave(location: Location) {
    let (log, ada, bob, cleo) = (Log::default(), user("ada"), user("bob"), user("cleo"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;

    assert_eq!(service.join(&bob, &id).await.unwrap(), (Role::Member, true));
    let event = log.last(&id);
    let data = format!(r#"{{"user":{0},"role":"member","by":{0}}}"#, json(&bob));
    assert_eq!((event.event.as_str(), event.data, event.sender), ("memberJoined", data, Some(bob.clone())));
    assert_eq!(event.access, access(&[with_role(&bob, Role::Member)], &[]));
    assert_eq!(service.join(&bob, &id).await.unwrap(), (Role::Member, false));
    assert_eq!(log.events().len(), 1, "a request that changes nothing appends no event");

    assert_eq!(service.set(&ada, &id, &bob, Role::Admin).await.unwrap(), (Role::Admin, false));
    let event = log.last(&id);
    let data = format!(
        r#"{{"name":"Tea","description":"","visibility":"public","members":[{{"user":{},"role":"admin"}}],"by":{}}}"#,
        json(&bob),
        json(&ada)
    );
    assert_eq!((event.event.as_str(), event.data, event.sender), ("roomUpdated", data, Some(ada.clone())));
    assert_eq!(event.access, access(&[with_role(&bob, Role::Admin)], &[]));
    assert_eq!(service.set(&ada, &id, &bob, Role::Unspecified).await.unwrap(), (Role::Admin, false));

    assert_eq!(service.set(&bob, &id, &cleo, Role::Member).await.unwrap(), (Role::Member, true));
    assert_eq!(
        service.members(&ada, &id).await,
        [(ada.clone(), Role::Owner), (bob.clone(), Role::Admin), (cleo.clone(), Role::Member)]
    );
    assert_eq!(service.get_as(&cleo, &id).await.unwrap().role(), Role::Member);
    agree(&service, &log, &ada, &id).await;

    service.remove(&bob, &id, &cleo.id).await.unwrap();
    let event = log.last(&id);
    let data = format!(r#"{{"user":{},"role":"member","by":{}}}"#, json(&cleo), json(&bob));
    assert_eq!((event.event.as_str(), event.data), ("memberLeft", data));
    assert_eq!(event.access, access(&[], &[&cleo]));
    assert_eq!(service.remove(&bob, &id, &cleo.id).await.unwrap_err().code, Code::NotFound);
    service.remove(&bob, &id, &bob.id).await.unwrap();
    assert_eq!(service.members(&ada, &id).await, [(ada.clone(), Role::Owner)]);
    agree(&service, &log, &ada, &id).await;
}

async fn owner_passes_the_room_on(location: Location) {
    let (log, ada, bob, cleo) = (Log::default(), user("ada"), user("bob"), user("cleo"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    service.join(&bob, &id).await.unwrap();

    assert_eq!(service.set(&ada, &id, &bob, Role::Owner).await.unwrap(), (Role::Owner, false));
    let both = [with_role(&bob, Role::Owner), with_role(&ada, Role::Admin)];
    assert_eq!((log.last(&id).event.as_str(), log.last(&id).access), ("roomUpdated", access(&both, &[])));
    let room = service.get_as(&ada, &id).await.unwrap();
    assert_eq!((room.role(), room.created_by), (Role::Admin, Some(ada.clone())));
    assert_eq!(service.set(&ada, &id, &cleo, Role::Owner).await.unwrap_err().code, Code::Forbidden);

    assert_eq!(service.set(&bob, &id, &cleo, Role::Owner).await.unwrap(), (Role::Owner, true));
    let event = log.last(&id);
    let data = format!(r#"{{"user":{},"role":"owner","by":{}}}"#, json(&cleo), json(&bob));
    assert_eq!((event.event.as_str(), event.data), ("memberJoined", data));
    assert_eq!(event.access, access(&[with_role(&cleo, Role::Owner), with_role(&bob, Role::Admin)], &[]));
    let members = service.members(&ada, &id).await;
    assert_eq!(members, [(cleo, Role::Owner), (ada.clone(), Role::Admin), (bob, Role::Admin)]);
    agree(&service, &log, &ada, &id).await;
}

async fn admins_manage_the_room(location: Location) {
    let (log, ada, bob, cleo) = (Log::default(), user("ada"), user("bob"), user("cleo"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    service.set(&ada, &id, &bob, Role::Admin).await.unwrap();
    service.join(&cleo, &id).await.unwrap();
    assert!(service.access(&id, &bob.id).await.unwrap().may_manage);
    assert_eq!(service.rename(&bob, &id, "Green tea").await.unwrap().role(), Role::Admin);
    assert!(!service.access(&id, &cleo.id).await.unwrap().may_manage);
    assert_eq!(service.rename(&cleo, &id, "Mine").await.unwrap_err().code, Code::Forbidden);
    assert_eq!(service.delete(&cleo, &id).await.unwrap_err().code, Code::Forbidden);
    service.delete(&bob, &id).await.unwrap();
    assert_eq!(service.get(&id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(service.list_members(Some(&ada), &id, 50, "").await.unwrap_err().code, Code::NotFound);
}

async fn one_owner_remains_when_owners_race(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    let heirs = ["bob", "cleo", "dan", "eve"].map(user);
    let passing = heirs.iter().map(|heir| service.set(&ada, &id, heir, Role::Owner));
    let outcomes = futures::future::join_all(passing).await;
    let won = outcomes.iter().position(Result::is_ok).expect("one of them becomes the owner");
    let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(|error| error.code);
    assert_eq!(lost.collect::<Vec<_>>(), [Code::Forbidden; 3], "ada is an admin now");
    assert_eq!(service.members(&ada, &id).await, [(heirs[won].clone(), Role::Owner), (ada.clone(), Role::Admin)]);
    agree(&service, &log, &ada, &id).await;
}

async fn a_hundred_users_join_at_once(location: Location) {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&location, &log).await;
    // A second replica, if the store can be shared.
    let other = match location.url {
        Some(_) => Some(Service::start(&location, &log).await),
        None => None,
    };
    let id = service.create(&ada, "Tea").await.unwrap().id;
    let users = (0..100).map(|number| user(&format!("user{number}"))).collect::<Vec<_>>();
    let joins = users.iter().enumerate().map(|(turn, user)| {
        let service = other.as_ref().filter(|_| turn % 2 == 1).unwrap_or(&service);
        let id = &id;
        eventually(async move || match service.join(user, id).await {
            Ok((Role::Member, _)) => Some(()),
            // Other callers were faster until the time limit, or the event follows.
            Err(error) if matches!(error.code, Code::Unavailable | Code::Timeout) => None,
            outcome => panic!("{outcome:?}"),
        })
    });
    futures::future::join_all(joins).await;
    assert_eq!(service.members(&ada, &id).await.len(), 101);
    assert_eq!(log.events().len(), 100, "each user joined once");
    agree(&service, &log, &ada, &id).await;
}

#[tokio::test]
async fn roles_limit_what_a_user_may_do() {
    let (log, ada, bob, cleo, dan) = (Log::default(), user("ada"), user("bob"), user("cleo"), user("dan"));
    let service = Service::start(&Location::sqlite(), &log).await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    service.set(&ada, &id, &bob, Role::Admin).await.unwrap();
    service.join(&cleo, &id).await.unwrap();
    let before = log.events().len();
    let (forbidden, conflict, missing) = (Code::Forbidden, Code::Conflict, Code::NotFound);
    for (caller, user, role, code) in [
        // To join with a role, to add another user without being an admin, and to raise oneself.
        (&dan, &dan, Role::Member, forbidden),
        (&dan, &ada, Role::Unspecified, forbidden),
        (&cleo, &dan, Role::Unspecified, forbidden),
        (&cleo, &cleo, Role::Admin, forbidden),
        (&bob, &bob, Role::Owner, forbidden),
        (&bob, &ada, Role::Admin, forbidden),
        (&ada, &ada, Role::Admin, conflict),
    ] {
        assert_eq!(service.set(caller, &id, user, role).await.unwrap_err().code, code, "{caller:?} {user:?} {role:?}");
    }
    for (caller, user, code) in [
        (&cleo, ada.id.as_str(), forbidden),
        (&dan, &cleo.id, forbidden),
        (&dan, "nonsense", forbidden),
        (&dan, &dan.id, missing),
        (&bob, &dan.id, missing),
        (&bob, "nonsense", missing),
        (&bob, &ada.id, conflict),
        (&ada, &ada.id, conflict),
    ] {
        assert_eq!(service.remove(caller, &id, user).await.unwrap_err().code, code, "{caller:?} {user}");
    }
    // A user who does not exist is not found, after the checks of the room.
    let unknown = SetMemberRequest { caller: Some(ada), room_id: id.clone(), ..SetMemberRequest::default() };
    let error = service.set_as(unknown.clone()).await.unwrap_err();
    assert_eq!((error.code, error.detail.as_str()), (missing, "no such user"));
    let error = service.set_as(SetMemberRequest { caller: Some(cleo), ..unknown.clone() }).await.unwrap_err();
    assert_eq!(error.code, forbidden);
    let error = service.set_as(SetMemberRequest { caller: None, ..unknown.clone() }).await.unwrap_err();
    assert_eq!(error.code, Code::Unauthorized);
    let error = service.set_as(SetMemberRequest { role: 9, ..unknown }).await.unwrap_err();
    assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "role"));
    assert_eq!(log.events().len(), before);
    // An admin may resign.
    assert_eq!(service.set(&bob, &id, &bob, Role::Member).await.unwrap(), (Role::Member, false));
}

#[tokio::test]
async fn members_are_paged_and_cursors_belong_to_their_room() {
    let (log, ada) = (Log::default(), user("ada"));
    let service = Service::start(&Location::sqlite(), &log).await;
    let (id, other) = (service.create(&ada, "Tea").await.unwrap().id, service.create(&ada, "Coffee").await.unwrap().id);
    for number in 0..4 {
        let role = if number == 3 { Role::Admin } else { Role::Member };
        service.set(&ada, &id, &user(&format!("user{number}")), role).await.unwrap();
    }
    let (mut cursor, mut names) = (String::new(), Vec::new());
    loop {
        // Anonymous readers see the members of a public room.
        let page = service.list_members(None, &id, 2, &cursor).await.unwrap();
        names.extend(page.members.into_iter().map(|member| member.user.unwrap().username));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
        let error = service.list_members(None, &other, 2, &cursor).await.unwrap_err();
        assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "cursor"));
    }
    let (first, members) = names.split_at(2);
    assert_eq!((first, members.len()), (&["ada".to_owned(), "user3".to_owned()][..], 3));
    for limit in [0, 201] {
        assert_eq!(service.list_members(None, &id, limit, "").await.unwrap_err().fields[0].field, "limit");
    }
    assert_eq!(service.list_members(None, &id, 5, "").await.unwrap().next_cursor, "");
    assert_eq!(service.list_members(None, &id, 5, "nonsense").await.unwrap_err().fields[0].field, "cursor");
}
