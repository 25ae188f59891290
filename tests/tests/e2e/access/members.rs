//! Members and their roles.

use super::*;

everywhere!(
    members_of_a_public_room_come_and_go,
    roles_decide_who_may_manage,
    a_room_has_exactly_one_owner,
    events_tell_what_changed,
    lists_contain_own_private_rooms,
);

fn named(account: &Account, role: &str) -> (String, String) {
    (account.username.clone(), role.into())
}

async fn members_of_a_public_room_come_and_go(scene: Scene) {
    let room = scene.one.room(&scene.owner).await.unwrap();
    let scene = Scene { room, ..scene };
    let me = scene.path("/members/me");
    let joined = scene.one.call(Method::PUT, &me, Some(&scene.guest), None).await.unwrap().expect(201).unwrap();
    assert_eq!(joined["user"], json!({"id": scene.guest.id, "username": scene.guest.username}));
    assert_eq!(joined["role"], "member");
    assert!(joined["joinedAt"].as_str().is_some_and(|time| time.ends_with('Z')), "{joined}");
    // A repeat changes nothing.
    let again = scene.put(&scene.guest, "me", json!({})).await.expect(200).unwrap();
    assert_eq!(again, joined);
    assert_eq!(scene.members().await, [named(&scene.owner, "owner"), named(&scene.guest, "member")]);
    // Users do not choose their own role, and members add no other users.
    fails(&scene.put(&scene.stranger, "me", json!({"role": "member"})).await, 403, "forbidden");
    fails(&scene.put(&scene.guest, &scene.stranger.id, json!({})).await, 403, "forbidden");
    let by_name = format!("@{}", scene.stranger.username);
    assert_eq!(scene.put(&scene.owner, &by_name, json!({})).await.status, 201);
    let unknown = uuid::Uuid::now_v7().to_string();
    for user in [&*unknown, "nonsense", "@no-such-user-at-all"] {
        fails(&scene.put(&scene.owner, user, json!({})).await, 404, "not_found");
        fails(&scene.remove(&scene.owner, user).await, 404, "not_found");
    }
    for role in [json!("guest"), json!(7), json!("Owner")] {
        fails(&scene.put(&scene.owner, &scene.guest.id, json!({"role": role})).await, 400, "invalid_request");
    }
    fails(&scene.remove(&scene.guest, &scene.stranger.id).await, 403, "forbidden");
    assert_eq!(scene.remove(&scene.guest, "me").await.status, 204);
    fails(&scene.remove(&scene.guest, "me").await, 404, "not_found");
    // In a public room, membership does not decide who may post.
    assert_eq!(scene.post(&scene.guest, "still here").await.status, 201);
}

async fn roles_decide_who_may_manage(scene: Scene) {
    let change = async |who: &Account| {
        let change = json!({"description": unique("changed")});
        scene.one.call(Method::PATCH, &scene.path(""), Some(who), Some(change)).await.unwrap()
    };
    let shown = async |who: &Account| {
        let room = scene.other.get(&scene.path(""), who).await.unwrap().expect(200).unwrap();
        (room["role"].clone(), room["can"].clone())
    };
    fails(&change(&scene.guest).await, 403, "forbidden");
    fails(&scene.put(&scene.guest, &scene.stranger.id, json!({})).await, 403, "forbidden");
    assert_eq!(shown(&scene.guest).await, (json!("member"), json!(["post", "edit"])));
    let promoted = scene.put(&scene.owner, &scene.guest.id, json!({"role": "admin"})).await.expect(200).unwrap();
    assert_eq!(promoted["role"], "admin");
    let all = json!(["post", "edit", "delete", "invite", "manage", "pin"]);
    assert_eq!(shown(&scene.guest).await, (json!("admin"), all.clone()));
    assert_eq!(shown(&scene.owner).await, (json!("owner"), all));
    assert_eq!(change(&scene.guest).await.status, 200);
    assert_eq!(scene.put(&scene.guest, &scene.stranger.id, json!({"role": "admin"})).await.status, 201);
    assert_eq!(scene.put(&scene.guest, &scene.stranger.id, json!({"role": "member"})).await.status, 200);
    // Not from the owner, and not ownership.
    for (user, role) in [(&scene.owner, "member"), (&scene.stranger, "owner"), (&scene.guest, "owner")] {
        fails(&scene.put(&scene.guest, &user.id, json!({"role": role})).await, 403, "forbidden");
    }
    fails(&scene.remove(&scene.guest, &scene.owner.id).await, 409, "conflict");
    let hide = json!({"visibility": "public"});
    let answer = scene.one.call(Method::PATCH, &scene.path(""), Some(&scene.guest), Some(hide)).await.unwrap();
    fails(&answer, 403, "forbidden");
    assert_eq!(scene.remove(&scene.guest, &scene.stranger.id).await.status, 204);
    assert_eq!(scene.one.call(Method::DELETE, &scene.path(""), Some(&scene.guest), None).await.unwrap().status, 204);
    fails(&scene.other.get(&scene.path(""), &scene.owner).await.unwrap(), 404, "not_found");
}

async fn a_room_has_exactly_one_owner(scene: Scene) {
    fails(&scene.remove(&scene.owner, "me").await, 409, "conflict");
    fails(&scene.put(&scene.owner, "me", json!({"role": "member"})).await, 409, "conflict");
    let passed = scene.put(&scene.owner, &scene.guest.id, json!({"role": "owner"})).await.expect(200).unwrap();
    assert_eq!(passed["role"], "owner");
    assert_eq!(scene.members().await, [named(&scene.guest, "owner"), named(&scene.owner, "admin")]);
    let room = scene.other.get(&scene.path(""), &scene.owner).await.unwrap().expect(200).unwrap();
    assert_eq!(room["createdBy"]["id"], json!(scene.owner.id), "the creator does not change");
    assert_eq!(scene.remove(&scene.owner, "me").await.status, 204);
    // The owner passes the room to two users at the same time: one owner remains.
    let scene = &scene;
    let rivals = [scene.one.signup().await.unwrap(), scene.one.signup().await.unwrap()];
    let pass = |rival: &Account| {
        let id = rival.id.clone();
        async move { scene.put(&scene.guest, &id, json!({"role": "owner"})).await.status }
    };
    let statuses = tokio::join!(pass(&rivals[0]), pass(&rivals[1]));
    assert!(statuses.0 == 201 || statuses.1 == 201, "{statuses:?}");
    let listed = scene.other.get(&scene.path("/members"), &scene.guest).await.unwrap().expect(200).unwrap();
    let owners = listed["items"].as_array().unwrap().iter().filter(|member| member["role"] == "owner").count();
    assert_eq!(owners, 1, "{listed}");
}

async fn events_tell_what_changed(scene: Scene) {
    let (mut socket, ack) = scene.joined(&scene.owner, json!({"after": 0})).await;
    assert_eq!((&ack["lastSeq"], &ack["messages"][0]["event"]), (&json!(1), &json!("memberJoined")));
    let user = |account: &Account| json!({"id": account.id, "username": account.username});
    let (owner, stranger) = (user(&scene.owner), user(&scene.stranger));
    assert_eq!(ack["messages"][0]["data"], json!({"user": user(&scene.guest), "role": "member", "by": owner}));
    scene.put(&scene.owner, &scene.stranger.id, json!({})).await.expect(201).unwrap();
    let joined = socket.event("memberJoined").await.unwrap();
    assert_eq!(joined["data"], json!({"user": stranger, "role": "member", "by": owner}));
    assert_eq!((&joined["type"], &joined["content"], &joined["seq"]), (&json!("system"), &json!(""), &json!(2)));
    scene.put(&scene.owner, &scene.stranger.id, json!({"role": "admin"})).await.expect(200).unwrap();
    let updated = socket.event("roomUpdated").await.unwrap();
    assert_eq!(updated["data"]["members"], json!([{"user": stranger, "role": "admin"}]));
    assert_eq!(updated["data"]["visibility"], "private");
    scene.remove(&scene.stranger, "me").await;
    let left = socket.event("memberLeft").await.unwrap();
    assert_eq!(left["data"], json!({"user": stranger, "role": "admin", "by": stranger}));
    assert_eq!(scene.history().await[1..], [joined, updated, left]);
}

async fn lists_contain_own_private_rooms(scene: Scene) {
    let listed = async |who: &Account, query: &str| {
        let page = scene.other.get(&format!("/api/rooms?limit=200{query}"), who).await.unwrap().expect(200).unwrap();
        page["items"].as_array().unwrap().iter().any(|room| room["id"] == json!(scene.room))
    };
    let name = scene.other.get(&scene.path(""), &scene.owner).await.unwrap().body["name"].as_str().unwrap().to_owned();
    for query in [String::new(), format!("&q={name}")] {
        for (who, sees) in [(&scene.owner, true), (&scene.guest, true), (&scene.stranger, false)] {
            assert_eq!(listed(who, &query).await, sees, "{query}");
        }
    }
    // The name of a private room is free for all others.
    let other = json!({"name": name});
    scene.one.post("/api/rooms", &scene.stranger, other).await.unwrap().expect(201).unwrap();
    let open = json!({"visibility": "public"});
    let answer = scene.one.call(Method::PATCH, &scene.path(""), Some(&scene.owner), Some(open)).await.unwrap();
    fails(&answer, 409, "room_name_taken");
}
