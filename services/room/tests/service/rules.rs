//! Permissions, and rejected requests.

use confab_common::Code;

use super::*;

async fn started() -> (Service, UserRef, UserRef) {
    (Service::start(&Location::sqlite(), &Log::default()).await, user("ada"), user("bob"))
}

#[tokio::test]
async fn creator_owns_the_room_and_all_users_may_post() {
    let (service, ada, bob) = started().await;
    let room = service.create(&ada, "  Tea ").await.unwrap();
    assert_eq!((room.name.as_str(), room.role(), room.visibility()), ("Tea", Role::Owner, Visibility::Public));
    assert_eq!(room.created_by, Some(ada.clone()));
    assert_eq!(service.get(&room.id).await.unwrap().role(), Role::Unspecified);

    for (user, may_post, may_manage) in [(&*ada.id, true, true), (&*bob.id, true, false), ("", false, false)] {
        assert_eq!(
            service.access(&room.id, user).await.unwrap(),
            Access { may_read: true, may_post, may_manage, private: false },
            "{user}"
        );
    }

    assert_eq!(service.rename(&bob, &room.id, "Mine").await.unwrap_err().code, Code::Forbidden);
    assert_eq!(service.delete(&bob, &room.id).await.unwrap_err().code, Code::Forbidden);
    assert_eq!(service.rename(&ada, &room.id, "Green tea").await.unwrap().name, "Green tea");
}

#[tokio::test]
async fn repeated_creation_returns_the_first_room() {
    let (service, ada, bob) = started().await;
    let request = CreateRoomRequest {
        id: Uuid::now_v7().to_string(),
        caller: Some(ada.clone()),
        name: "Tea".into(),
        ..CreateRoomRequest::default()
    };
    let (one, two, three) = tokio::join!(
        service.create_as(request.clone()),
        service.create_as(request.clone()),
        service.create_as(request.clone())
    );
    let first = one.unwrap();
    assert_eq!(first.id, request.id);
    assert_eq!((two.unwrap(), three.unwrap()), (first.clone(), first.clone()));

    let stolen = CreateRoomRequest { caller: Some(bob.clone()), name: "Other".into(), ..request.clone() };
    assert_eq!(service.create_as(stolen).await.unwrap_err().code, Code::Conflict);
    assert_eq!(service.create(&bob, "TEA").await.unwrap_err().code, Code::RoomNameTaken);

    service.delete(&ada, &first.id).await.unwrap();
    assert_eq!(service.create_as(request).await.unwrap_err().code, Code::Conflict, "a late repeat");
    service.create(&bob, "tea").await.unwrap();
}

#[tokio::test]
async fn unknown_rooms_are_not_found() {
    let (service, ada, _) = started().await;
    let deleted = service.create(&ada, "Tea").await.unwrap().id;
    service.delete(&ada, &deleted).await.unwrap();
    for id in [deleted.as_str(), &Uuid::now_v7().to_string(), "tea", ""] {
        let refusals = [
            service.get(id).await.unwrap_err(),
            service.access(id, &ada.id).await.unwrap_err(),
            service.rename(&ada, id, "Coffee").await.unwrap_err(),
            service.delete(&ada, id).await.unwrap_err(),
        ];
        assert!(refusals.iter().all(|error| error.code == Code::NotFound), "{id}: {refusals:?}");
    }
    assert_eq!(service.list(50, "", "").await.unwrap(), ListRoomsResponse::default());
}

#[tokio::test]
async fn changes_require_a_caller() {
    let (service, ada, _) = started().await;
    let id = service.create(&ada, "Tea").await.unwrap().id;
    let created = service.create_as(CreateRoomRequest { name: "x".into(), ..CreateRoomRequest::default() }).await;
    let updated = service.update(UpdateRoomRequest { id: id.clone(), ..UpdateRoomRequest::default() }).await;
    let deleted = service
        .client
        .clone()
        .delete_room(DeleteRoomRequest { id, ..DeleteRoomRequest::default() })
        .await
        .map_err(Error::from);
    let codes = [created.unwrap_err().code, updated.unwrap_err().code, deleted.unwrap_err().code];
    assert_eq!(codes, [Code::Unauthorized; 3]);
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (service, ada, _) = started().await;
    let good = CreateRoomRequest { caller: Some(ada.clone()), name: "Tea".into(), ..CreateRoomRequest::default() };
    let bad = [
        ("name", CreateRoomRequest { name: " ".into(), ..good.clone() }),
        ("name", CreateRoomRequest { name: "é".repeat(81), ..good.clone() }),
        ("name", CreateRoomRequest { name: "a\nb".into(), ..good.clone() }),
        ("description", CreateRoomRequest { description: "é".repeat(501), ..good.clone() }),
        ("description", CreateRoomRequest { description: "a\0b".into(), ..good.clone() }),
        ("visibility", CreateRoomRequest { visibility: 9, ..good.clone() }),
        ("id", CreateRoomRequest { id: "1".into(), ..good.clone() }),
    ];
    for (field, request) in bad {
        let error = service.create_as(request).await.unwrap_err();
        assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, field));
    }
    let room = service
        .create_as(CreateRoomRequest { name: "é".repeat(80), description: "é\n".repeat(250), ..good })
        .await
        .unwrap();
    let error = service.rename(&ada, &room.id, "\0").await.unwrap_err();
    assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "name"));
    for limit in [0, 201] {
        assert_eq!(service.list(limit, "", "").await.unwrap_err().fields[0].field, "limit");
    }
    assert_eq!(service.list(50, "", "a\0").await.unwrap_err().fields[0].field, "q");
    assert_eq!(service.list(50, "nonsense", "").await.unwrap_err().fields[0].field, "cursor");
}

#[tokio::test]
async fn list_is_paged_and_cursors_belong_to_their_query() {
    let (service, ada, _) = started().await;
    for number in 0..5 {
        service.create(&ada, &format!("Чай {number}")).await.unwrap();
    }
    service.create(&ada, "Coffee").await.unwrap();
    let (mut cursor, mut names) = (String::new(), Vec::new());
    loop {
        let page = service.list(2, &cursor, "чАй").await.unwrap();
        names.extend(page.rooms.into_iter().map(|room| room.name));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
        let error = service.list(2, &cursor, "кофе").await.unwrap_err();
        assert_eq!((error.code, error.fields[0].field.as_str()), (Code::InvalidRequest, "cursor"));
    }
    // Rooms of one millisecond are ordered by id, which the creator chooses.
    names.sort();
    assert_eq!(names, ["Чай 0", "Чай 1", "Чай 2", "Чай 3", "Чай 4"]);
    assert_eq!(service.list(5, "", "чай").await.unwrap().next_cursor, "", "a full last page has no next page");
}
