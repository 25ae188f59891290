//! A data directory and a database that the release before made: nothing is lost, every room stays public, and its
//! creator is its owner. The files beside this one were made by that release: two users, three rooms (one deleted), five
//! messages and a file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use confab_tests::api::{Account, Answer, Api, unique};
use confab_tests::embedded::Embedded;
use confab_tests::guard::Guard;
use confab_tests::programs;
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::{Value, json};

fn made(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/upgrade").join(name)
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn login(api: &Api, past: &Value, name: &str) -> Account {
    let credentials = json!({"username": name, "password": past["password"]});
    let body = api.call(Method::POST, "/api/auth/login", None, Some(credentials)).await.unwrap().expect(200).unwrap();
    assert_eq!(body["user"]["id"], past[name]["id"]);
    Account::of(&body).unwrap()
}

async fn new_private_room(api: &Api, owner: &Account) -> Answer {
    api.post("/api/rooms", owner, json!({"name": unique("private"), "visibility": "private"})).await.unwrap()
}

/// The messages of the release before, which had no states, as this release shows them.
fn with_states(messages: &Value) -> Vec<Value> {
    let with_state = |message: &Value| {
        let mut message = message.clone();
        message["revision"] = message["seq"].clone();
        for (field, value) in [("editedAt", json!(null)), ("deleted", json!(false)), ("deletedBy", json!(null))] {
            message[field] = value;
        }
        message["pinned"] = json!(false);
        message["reactions"] = json!([]);
        if message["data"].is_null() {
            message["data"] = json!({});
        }
        message["ordinal"] = json!(null);
        message
    };
    messages.as_array().unwrap().iter().map(with_state).collect()
}

/// Checks that everything is as the release before left it, and that it can be used.
async fn nothing_is_lost(api: &Api, past: &Value) -> (Account, Account) {
    let (ada, bob) = (login(api, past, "ada").await, login(api, past, "bob").await);
    let room = past["rooms"][0].as_str().unwrap();
    for (room, owner, other) in [(room, &ada, &bob), (past["rooms"][1].as_str().unwrap(), &bob, &ada)] {
        let path = format!("/api/rooms/{room}");
        for (who, role) in [(owner, json!("owner")), (other, Value::Null)] {
            let shown = api.get(&path, who).await.unwrap().expect(200).unwrap();
            assert_eq!((&shown["visibility"], &shown["role"]), (&json!("public"), &role), "{shown}");
        }
        let members = api.get(&format!("{path}/members"), other).await.unwrap().expect(200).unwrap();
        let members = members["items"].as_array().unwrap();
        assert_eq!((members.len(), &members[0]["user"]["id"]), (1, &json!(owner.id)), "{members:?}");
    }
    let history = api.history(room, &bob, 200).await.unwrap();
    assert_eq!(history, with_states(&past["history"]));
    // A repeat of a message of that time gets the first answer.
    let first = &past["history"][0];
    let repeat = json!({"roomId": room, "content": "other", "clientMessageId": first["clientMessageId"]});
    let sender = if first["sender"]["id"] == json!(ada.id) { &ada } else { &bob };
    let repeated = api.post("/api/messages", sender, repeat).await.unwrap().expect(200).unwrap();
    assert_eq!((&repeated["id"], &repeated["seq"]), (&first["id"], &first["seq"]));
    let file = format!("/api/files/{}", past["file"].as_str().unwrap());
    assert_eq!(api.get(&file, &ada).await.unwrap().bytes, b"Oolong\n");
    let deleted = format!("/api/rooms/{}", past["deletedRoom"].as_str().unwrap());
    assert_eq!(api.get(&deleted, &bob).await.unwrap().status, 404);
    let late = json!({"roomId": past["deletedRoom"], "content": "too late"});
    assert_eq!(api.post("/api/messages", &bob, late).await.unwrap().status, 404);
    let next = api.post("/api/messages", &bob, json!({"roomId": room, "content": "next"})).await.unwrap();
    assert_eq!(next.expect(201).unwrap()["seq"], json!(history.len() + 1));
    (ada, bob)
}

/// Checks that the rooms of that time have members, and can become private.
async fn members_come_with_the_new_format(api: &Api, past: &Value, ada: &Account, bob: &Account) {
    let path = format!("/api/rooms/{}", past["rooms"][0].as_str().unwrap());
    let me = format!("{path}/members/me");
    assert_eq!(api.call(Method::PUT, &me, Some(bob), None).await.unwrap().status, 201);
    let private = Some(json!({"visibility": "private"}));
    api.call(Method::PATCH, &path, Some(ada), private).await.unwrap().expect(200).unwrap();
    for who in [ada, bob] {
        let message = json!({"roomId": past["rooms"][0], "content": "in private"});
        assert_eq!(api.post("/api/messages", who, message).await.unwrap().status, 201);
    }
    let stranger = api.signup().await.unwrap();
    assert_eq!(api.get(&path, &stranger).await.unwrap().status, 404);
}

/// Edits the first message of that time, as its author.
async fn edit_the_first_message(api: &Api, past: &Value, (ada, bob): (&Account, &Account)) -> Answer {
    let first = &past["history"][0];
    let author = if first["sender"]["id"] == json!(ada.id) { ada } else { bob };
    let path = format!("/api/rooms/{}/messages/{}", past["rooms"][0].as_str().unwrap(), first["seq"]);
    api.call(Method::PATCH, &path, Some(author), Some(json!({"content": "changed"}))).await.unwrap()
}

/// Reacts to the first message of that time.
async fn react_to_the_first_message(api: &Api, past: &Value, who: &Account) -> Answer {
    let (room, seq) = (past["rooms"][0].as_str().unwrap(), &past["history"][0]["seq"]);
    api.call(Method::PUT, &format!("/api/rooms/{room}/messages/{seq}/reactions/tea"), Some(who), None).await.unwrap()
}

/// Checks that the messages of that time can be changed, and that users can react to them.
async fn changes_come_with_the_new_format(api: &Api, past: &Value, ada: &Account, bob: &Account) {
    let edited = edit_the_first_message(api, past, (ada, bob)).await.expect(200).unwrap();
    assert_eq!((&edited["content"], &edited["id"]), (&json!("changed"), &past["history"][0]["id"]));
    let history = api.history(past["rooms"][0].as_str().unwrap(), ada, 200).await.unwrap();
    assert_eq!(history[0], edited);
    let reacted = react_to_the_first_message(api, past, bob).await.expect(200).unwrap();
    assert_eq!(reacted["reactions"], json!([{"name": "tea", "count": 1, "mine": true}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_directory_of_the_release_before_opens() {
    let guard = Guard::new("former").unwrap();
    let directory = guard.directory();
    run(Command::new("tar").arg("-C").arg(directory).arg("-xzf").arg(made("embedded.tar.gz")));
    let past = serde_json::from_slice(&std::fs::read(made("embedded.json")).unwrap()).unwrap();
    let data = directory.join("data");
    let server = Embedded::start(&[("CONFAB_DATA_DIR", data.to_str().unwrap())]).await.unwrap();
    let api = Api::new(server.url());
    let (ada, bob) = nothing_is_lost(&api, &past).await;
    // The server itself opens the rooms in the log and then raises its format.
    let created = async || (new_private_room(&api, &ada).await.status == 201).then_some(());
    eventually("private rooms exist", Duration::from_secs(20), created).await.unwrap();
    members_come_with_the_new_format(&api, &past, &ada, &bob).await;
    changes_come_with_the_new_format(&api, &past, &ada, &bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_of_the_release_before_opens() {
    let guard = Guard::new("former-postgres").unwrap();
    let directory = guard.directory();
    let server = std::env::var("TEST_POSTGRES_URL").expect("with-servers sets it");
    let name = unique("former").replace('-', "_");
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    run(Command::new("psql").args(["-q", &server, "-c", &format!("CREATE DATABASE {name}")]));
    run(Command::new("psql").args(["-q", "-v", "ON_ERROR_STOP=1", &url, "-f"]).arg(made("postgres.sql")));
    let data = directory.join("data");
    std::fs::create_dir(&data).unwrap();
    run(Command::new("cp").arg("-r").arg(made("objects")).arg(&data));
    let past = serde_json::from_slice(&std::fs::read(made("postgres.json")).unwrap()).unwrap();
    let data = data.to_str().unwrap();
    let settings = [
        ("CONFAB_DATA_DIR", data),
        ("CONFAB_AUTH_STORE", &url),
        ("CONFAB_ROOM_STORE", &url),
        ("CONFAB_MESSAGE_STORE", &url),
        ("CONFAB_FILE_STORE", &url),
        ("CONFAB_SIGNING_KEY", "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="),
    ];
    let server = Embedded::start(&settings).await.unwrap();
    let api = Api::new(server.url());
    let (ada, bob) = nothing_is_lost(&api, &past).await;
    // Programs of the release before may be running: an operator finishes the upgrade.
    let refused = new_private_room(&api, &ada).await;
    assert_eq!((refused.status, refused.code()), (503, "unavailable"));
    assert!(!refused.header("retry-after").is_empty());
    let refused = edit_the_first_message(&api, &past, (&ada, &bob)).await;
    assert_eq!((refused.status, refused.code(), refused.header("retry-after")), (503, "unavailable", "30"));
    let refused = react_to_the_first_message(&api, &past, &bob).await;
    assert_eq!((refused.status, refused.code()), (503, "unavailable"));
    let finish = async || {
        let mut command = Command::new(programs().join("confab"));
        command.arg("finish-upgrade").envs(settings).current_dir(directory);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // The room service may not have opened all rooms yet.
        assert!(output.status.success() || said.contains("has not opened all rooms"), "{said}");
        output.status.success().then_some(())
    };
    eventually("the upgrade is finished", Duration::from_secs(20), finish).await.unwrap();
    let created = async || (new_private_room(&api, &ada).await.status == 201).then_some(());
    eventually("private rooms exist", Duration::from_secs(20), created).await.unwrap();
    members_come_with_the_new_format(&api, &past, &ada, &bob).await;
    changes_come_with_the_new_format(&api, &past, &ada, &bob).await;
}
