//! Users find only the users of common rooms.

use std::time::Duration;

use confab_tests::wait::eventually;

use super::*;

with_directory!(
    shared_embedded, shared_cluster:
    users_of_common_rooms_find_each_other,
    a_hidden_user_answers_as_an_unknown_one,
    a_search_skips_hidden_users,
    a_key_alone_finds_all_users,
);

/// How long until a change of an account has effect on all gateways.
const SOON: Duration = Duration::from_secs(5);

async fn users_of_common_rooms_find_each_other(directory: Directory) {
    let [ada, bob, eve] = signups(&directory).await;
    assert!(directory.finds(&ada, &ada).await, "oneself");
    for (one, other) in [(&ada, &bob), (&bob, &ada), (&ada, &eve)] {
        assert!(!directory.finds(one, other).await);
    }
    let public = directory.room_of(&ada, &bob, "public").await;
    let private = directory.room_of(&ada, &eve, "private").await;
    for (one, other, is_found) in [(&ada, &bob, true), (&bob, &ada, true), (&eve, &ada, true), (&bob, &eve, false)] {
        assert_eq!(directory.finds(one, other).await, is_found, "{} {}", one.username, other.username);
    }
    let ids = [&eve.id, &bob.id, &ada.id].map(String::as_str).join(",");
    let listed = directory.other.get(&format!("/api/users?ids={ids}"), &bob).await.unwrap().expect(200).unwrap();
    assert_eq!(usernames(&listed), [bob.username.clone(), ada.username.clone()]);
    // Without a common room, they no longer find each other.
    let me = format!("{public}/members/me");
    assert_eq!(directory.one.call(Method::DELETE, &me, Some(&bob), None).await.unwrap().status, 204);
    assert!(!directory.finds(&ada, &bob).await && !directory.finds(&bob, &ada).await);
    assert_eq!(directory.one.call(Method::DELETE, &private, Some(&ada), None).await.unwrap().status, 204);
    assert!(!directory.finds(&ada, &eve).await);
}

async fn signups(directory: &Directory) -> [Account; 3] {
    let one = &directory.one;
    [one.signup().await.unwrap(), one.signup().await.unwrap(), one.signup().await.unwrap()]
}

async fn a_hidden_user_answers_as_an_unknown_one(directory: Directory) {
    let [ada, bob, _] = signups(&directory).await;
    let shown = async |path: String| {
        let answer = directory.other.get(&path, &ada).await.unwrap();
        let ignored = ["date", "x-request-id"];
        let headers = answer.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
        let headers = headers.map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect::<Vec<_>>();
        let mut body = answer.body.clone();
        body["requestId"] = Value::Null;
        (answer.status, headers, body)
    };
    let unknown = Uuid::now_v7().to_string();
    let by_id = shown(format!("/api/users/{}", bob.id)).await;
    assert_eq!(by_id.0, 404);
    assert_eq!(by_id, shown(format!("/api/users/{unknown}")).await);
    assert_eq!(by_id, shown(format!("/api/users/@{}", bob.username)).await);
    assert_eq!(by_id, shown(format!("/api/users/@{}", unique("none"))).await);
    let listed = shown(format!("/api/users?ids={}", bob.id)).await;
    assert_eq!(listed, shown(format!("/api/users?ids={unknown}")).await);
    assert_eq!(listed.2["items"], json!([]));
}

async fn a_search_skips_hidden_users(directory: Directory) {
    let ([ada, _, _], tag) = (signups(&directory).await, tag());
    let room = directory.one.room(&ada).await.unwrap();
    let mut expected = Vec::new();
    for number in 0..12 {
        let username = format!("{tag}{number:02}");
        let id = directory.user(&username, "Name").await;
        if number % 4 == 3 {
            let member = format!("/api/rooms/{room}/members/{id}");
            directory.one.call(Method::PUT, &member, Some(&ada), None).await.unwrap().expect(201).unwrap();
            expected.push(username);
        }
    }
    assert_eq!(directory.found(&ada, &tag).await, expected);
    let first = directory.other.get(&format!("{}&limit=2", search(&tag)), &ada).await.unwrap().expect(200).unwrap();
    assert_eq!(usernames(&first), expected[..2]);
    let next = format!("{}&limit=2&cursor={}", search(&tag), first["nextCursor"].as_str().unwrap());
    let second = directory.other.get(&next, &ada).await.unwrap().expect(200).unwrap();
    assert_eq!((usernames(&second), &second["nextCursor"]), (expected[2..].to_vec(), &Value::Null));
}

async fn a_key_alone_finds_all_users(directory: Directory) {
    let [ada, bob, eve] = signups(&directory).await;
    directory.room_of(&ada, &bob, "private").await;
    let by_key = async |path: &str, user: Option<&Account>| {
        let request = directory.other.request(Method::GET, path).bearer_auth(&directory.key.token);
        let request = user.into_iter().fold(request, |request, user| request.header("Confab-User", &user.id));
        directory.other.send(request).await.unwrap()
    };
    for (user, found) in [(None, true), (Some(&ada), true), (Some(&eve), false)] {
        let shown = by_key(&format!("/api/users/{}", bob.id), user).await;
        assert_eq!(shown.status, if found { 200 } else { 404 }, "{}", shown.body);
        for path in [search(&bob.username), format!("/api/users?ids={}", bob.id)] {
            let listed = usernames(&by_key(&path, user).await.expect(200).unwrap());
            assert_eq!(listed.len(), usize::from(found), "{path}");
        }
    }
    let created = directory.one.post("/api/admin/keys", &directory.key, json!({"scopes": ["rooms", "messages"]}));
    let created = created.await.unwrap().expect(201).unwrap();
    let without_scope = server_keys::holder(created["key"].as_str().unwrap());
    fails(&directory.other.get(&search(&bob.username), &without_scope).await.unwrap(), 403, "forbidden");
    // The key of a suspended user finds no user.
    directory.act(&ada.id, "suspend").await;
    let rejected = async || (by_key("/api/users/me", Some(&ada)).await.status == 403).then_some(());
    eventually("the key cannot act as the user", SOON, rejected).await.unwrap();
}
