//! Who may change which messages. The authorisation matrix has the answer to each kind of caller.

use confab_tests::raw::{Client, WebSocket};

use super::*;

at_both_ends!(
    only_authors_edit_and_admins_moderate,
    room_events_cannot_be_changed,
    a_removed_member_changes_nothing_any_more,
    strangers_receive_the_answer_of_an_unknown_room,
    a_server_key_moderates_and_acts_for_users,
);

async fn only_authors_edit_and_admins_moderate(scene: Scene) {
    let seq = scene.say("tea").await;
    for who in [&scene.owner, &scene.reader] {
        fails(&scene.edit(who, seq, "x").await, 403, "forbidden");
    }
    fails(&scene.delete(&scene.reader, seq).await, 403, "forbidden");
    for who in [&scene.author, &scene.reader] {
        fails(&scene.pin(who, seq, true).await, 403, "forbidden");
    }
    // An admin may delete and pin, but edits no message of another user.
    let member = format!("/api/rooms/{}/members/{}", scene.room, scene.reader.id);
    let admin = scene.one.call(Method::PUT, &member, Some(&scene.owner), Some(json!({"role": "admin"}))).await.unwrap();
    admin.expect(200).unwrap();
    assert_eq!(scene.pin(&scene.reader, seq, true).await.status, 200);
    fails(&scene.edit(&scene.reader, seq, "x").await, 403, "forbidden");
    let deleted = scene.delete(&scene.reader, seq).await.expect(200).unwrap();
    assert_eq!(deleted["deletedBy"]["id"], scene.reader.id);
    assert_eq!(deleted["sender"]["id"], scene.author.id);
    fails(&scene.edit(&scene.author, seq, "x").await, 409, "conflict");
    fails(&scene.pin(&scene.reader, seq, true).await, 409, "conflict");
    // A right that is missing precedes a conflict.
    fails(&scene.pin(&scene.author, seq, true).await, 403, "forbidden");
}

async fn room_events_cannot_be_changed(scene: Scene) {
    let history = scene.history().await;
    let event = history.iter().find(|item| item["type"] == "system").unwrap();
    let states = [&event["editedAt"], &event["deleted"], &event["deletedBy"], &event["pinned"], &event["revision"]];
    assert_eq!(states, [&json!(null), &json!(false), &json!(null), &json!(false), &event["seq"]]);
    let seq = event["seq"].as_u64().unwrap();
    fails(&scene.edit(&scene.owner, seq, "x").await, 403, "forbidden");
    fails(&scene.delete(&scene.owner, seq).await, 403, "forbidden");
    fails(&scene.pin(&scene.owner, seq, true).await, 403, "forbidden");
    fails(&scene.edit(&scene.owner, 99_999, "x").await, 404, "not_found");
}

async fn a_removed_member_changes_nothing_any_more(scene: Scene) {
    let seq = scene.say("tea").await;
    let body = json!({"content": "green tea", "clientMessageId": "edit-1"});
    let edit =
        async || scene.call(&scene.other, Method::PATCH, &scene.author, &format!("/{seq}"), Some(body.clone())).await;
    let first = edit().await.expect(200).unwrap();
    let member = format!("/api/rooms/{}/members/{}", scene.room, scene.author.id);
    scene.one.call(Method::DELETE, &member, Some(&scene.owner), None).await.unwrap().expect(204).unwrap();
    fails(&scene.edit(&scene.author, seq, "x").await, 404, "not_found");
    fails(&scene.delete(&scene.author, seq).await, 404, "not_found");
    // The repeat of an edit that is in the log has its answer.
    assert_eq!(edit().await.expect(200).unwrap(), first);
}

async fn strangers_receive_the_answer_of_an_unknown_room(scene: Scene) {
    let seq = scene.say("tea").await;
    let stranger = scene.one.signup().await.unwrap();
    let mut socket = WebSocket::connect(&scene.other.url, &stranger.token).await.unwrap();
    let unknown = uuid::Uuid::now_v7().to_string();
    for (event, rest) in [("edit", json!({"content": "x"})), ("remove", json!({})), ("pin", json!({"on": true}))] {
        let mut acks = Vec::new();
        for room in [&scene.room, &unknown] {
            let mut argument = rest.clone();
            (argument["roomId"], argument["seq"]) = (json!(room), json!(seq));
            let ack = socket.emit(event, argument).await.unwrap();
            assert_eq!(ack["error"]["code"], "not_found", "{event}: {ack}");
            acks.push(ack);
        }
        assert_eq!(acks[0], acks[1], "{event}");
    }
    assert_eq!(scene.history().await.last().unwrap()["revision"], seq, "nothing has changed");
}

async fn a_server_key_moderates_and_acts_for_users(scene: Scene) {
    let (first, second) = (scene.say("tea").await, scene.say("coffee").await);
    let call = async |user: Option<&Account>, method: Method, rest: &str, body: Option<Value>| {
        let mut request = scene.other.request(method, &scene.path(rest)).bearer_auth(&scene.key.token);
        if let Some(user) = user {
            request = request.header("confab-user", &user.id);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        scene.other.send(request).await.unwrap()
    };
    // On behalf of a user, the key has exactly the rights of that user.
    let (of_first, of_second) = (format!("/{first}"), format!("/{second}"));
    let edit = || Some(json!({"content": "green tea"}));
    let edited = call(Some(&scene.author), Method::PATCH, &of_first, edit()).await.expect(200).unwrap();
    assert_eq!(edited["content"], "green tea");
    fails(&call(Some(&scene.reader), Method::PATCH, &of_first, edit()).await, 403, "forbidden");
    fails(&call(Some(&scene.reader), Method::DELETE, &of_first, None).await, 403, "forbidden");
    // Without a user, it reads, pins and deletes every message, and edits none.
    let edit = call(None, Method::PATCH, &of_first, edit()).await;
    fails(&edit, 400, "invalid_request");
    assert_eq!(edit.body["errors"][0]["field"], "Confab-User");
    let versions = call(None, Method::GET, &format!("/{first}/versions"), None).await.expect(200).unwrap();
    assert_eq!(versions["items"].as_array().unwrap().len(), 2);
    assert_eq!(call(None, Method::PUT, &format!("/{first}/pin"), None).await.status, 200);
    let mut watcher = WebSocket::connect(&scene.one.url, &scene.reader.token).await.unwrap();
    assert_eq!(watcher.emit("joinRoom", json!(scene.room)).await.unwrap()["ok"], true);
    let deleted = call(None, Method::DELETE, &of_second, None).await.expect(200).unwrap();
    let system = &deleted["deletedBy"];
    assert_eq!(system["username"], "system");
    assert_eq!(system["id"].as_str().unwrap().replace('-', ""), scene.key.token[4..36]);
    let event = watcher.event("messageDeleted").await.unwrap();
    assert_eq!((&event["by"], &event["message"]), (system, &deleted));
    // The acts without a user are in the audit.
    let audit = scene.one.get("/api/admin/audit?limit=200", &scene.key).await.unwrap().expect(200).unwrap();
    let acts = audit["items"].as_array().unwrap().iter().filter(|entry| entry["object"] == scene.room);
    let acts = acts.map(|entry| (entry["act"].as_str().unwrap(), entry["details"]["seq"].as_u64().unwrap()));
    assert_eq!(acts.collect::<Vec<_>>(), [("message.delete", second), ("message.pin", first)]);
}
