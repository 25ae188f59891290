//! The drill of docs/backup.md, with its own commands: an older state is restored, and gateways and clients detect it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use confab_tests::api::{Account, Api};
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::form::Form;
use confab_tests::plan::Role;
use confab_tests::stock::{Report, Stock, Transports};
use confab_tests::{programs, servers};
use serde_json::{Value, json};

const OURS: [Role; 5] = [Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::File];

/// Returns the first commands under a heading of the document.
fn documented(heading: &str) -> String {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/backup.md")).unwrap();
    let (_, section) = document.split_once(&format!("\n## {heading}\n")).expect("the heading exists");
    let section = section.split("\n## ").next().unwrap_or_default();
    let (_, commands) = section.split_once("\n```sh\n").expect("the section has commands");
    commands.split("\n```").next().unwrap_or_default().to_string()
}

/// Runs these commands on the cluster; returns their output.
fn run(cluster: &Cluster, commands: &str) -> String {
    let database = fs::read_to_string(cluster.plan.secrets().join("postgres-url")).unwrap();
    let paths = [servers::postgres::programs().unwrap(), programs()].map(|path| path.display().to_string());
    let output = Command::new("sh")
        .args(["-euc", commands])
        .current_dir(&cluster.plan.directory)
        .envs(cluster.daemon((Role::File, 1)).unwrap().environment)
        .envs(cluster.daemon((Role::Message, 1)).unwrap().environment)
        .env("PATH", format!("{}:{}", paths.join(":"), std::env::var("PATH").unwrap()))
        .env("SERVER", database.replace("/confab", "/postgres"))
        .env("DATABASE", database)
        .output()
        .unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn say(api: &Api, who: &Account, room: &str, content: &str) -> Value {
    let message = json!({"roomId": room, "content": content, "clientMessageId": content});
    api.post("/api/messages", who, message).await.unwrap().expect(201).unwrap()
}

/// Shares a file; returns its URL.
async fn share(api: &Api, who: &Account, room: &str, bytes: &[u8]) -> String {
    let form = Form::new().field("roomId", room).file("a.txt", "text/plain", bytes);
    let file = api.upload(who, form).await.unwrap().expect(201).unwrap();
    file["url"].as_str().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_restore_is_detected_by_clients() {
    let cluster = Cluster::scratch(1, 1, &[]).await.unwrap();
    let api = Api::new(cluster.plan.url((Role::Lb, 1)));
    let ada = api.signup().await.unwrap();
    let room = api.room(&ada).await.unwrap();
    let stock = Stock::javascript().unwrap();
    let socket = stock.connect(&api.url, &ada.token, Transports::WebSocket).await.unwrap();
    for n in 0..3 {
        say(&api, &ada, &room, &format!("before {n}")).await;
    }
    let kept = share(&api, &ada, &room, b"kept").await;
    let joined = socket.emit("joinRoom", json!(room)).await.unwrap();
    let dumped = api.history(&room, &ada, 50).await.unwrap();
    let last = dumped.last().unwrap()["seq"].as_u64().unwrap();

    run(&cluster, &documented("Dump"));
    let lost = share(&api, &ada, &room, b"lost").await;
    say(&api, &ada, &room, "after").await;
    let late = api.signup().await.unwrap();

    for role in OURS {
        cluster.leave((role, 1)).await.unwrap();
    }
    let restored = run(&cluster, &documented("Restore"));
    let (epoch, owner) = restored.split_once('\n').unwrap();
    assert!(owner.contains("before: installation ") && owner.contains("now: installation "), "{owner}");
    assert_eq!(run(&cluster, &documented("Verify")), "0\n0\n");
    cluster.up().await.unwrap();

    let credentials = |who: &Account| json!({"username": who.username, "password": "correct horse battery"});
    let login = async |who: &Account| {
        api.call(reqwest::Method::POST, "/api/auth/login", None, Some(credentials(who))).await.unwrap()
    };
    let ada = Account::of(&login(&ada).await.expect(200).unwrap()).unwrap();
    assert_eq!(login(&late).await.status, 401, "a newer account must be gone");
    assert_eq!(api.history(&room, &ada, 50).await.unwrap(), dumped);
    assert_eq!(api.get(&kept, &ada).await.unwrap().bytes, b"kept");
    assert_eq!(api.get(&lost, &ada).await.unwrap().status, 404);

    // Judged by its number alone, this client has missed nothing. Only the epoch shows that the numbers now belong to
    // other events.
    socket.states("connect", 2).await.unwrap();
    let back = json!({"roomId": room, "after": last, "epoch": joined["epoch"]});
    let back = socket.emit("joinRoom", back).await.unwrap();
    assert_eq!(
        (&back["reset"], &back["epoch"], &back["lastSeq"]),
        (&json!(true), &json!(epoch.trim()), &json!(last)),
        "{back}"
    );
    let again = say(&api, &ada, &room, "after").await;
    assert_eq!(again["seq"], json!(last + 1), "{again}");
    assert!(share(&api, &ada, &room, b"as ever").await.starts_with("/api/files/"));
    let received = |_: &[Report]| socket.events("message").contains(&again).then_some(());
    socket.until("the new message", Duration::from_secs(20), received).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_restore_is_detected_by_clients() {
    let server = Embedded::start(&[]).await.unwrap();
    let (api, work) = (Api::new(server.url()), server.daemon().work.clone());
    let (ada, stock) = (api.signup().await.unwrap(), Stock::javascript().unwrap());
    let room = api.room(&ada).await.unwrap();
    let copy = |from: &str, to: &str| {
        assert!(Command::new("cp").current_dir(&work).args(["-a", from, to]).status().unwrap().success())
    };
    say(&api, &ada, &room, "kept").await;
    server.daemon().stop(Duration::from_secs(10)).await.unwrap();
    copy("data", "copy");
    server.up().await.unwrap();
    say(&api, &ada, &room, "lost").await;
    let socket = stock.connect(&server.url(), &ada.token, Transports::WebSocket).await.unwrap();
    let before = socket.emit("joinRoom", json!(room)).await.unwrap();

    server.daemon().stop(Duration::from_secs(10)).await.unwrap();
    fs::remove_dir_all(work.join("data")).unwrap();
    copy("copy", "data");
    let renewed = Command::new(programs().join("confab")).arg("renew-epoch").current_dir(&work).output().unwrap();
    assert!(renewed.status.success(), "{}", String::from_utf8_lossy(&renewed.stderr));
    server.up().await.unwrap();
    socket.states("connect", 2).await.unwrap();
    let again = json!({"roomId": room, "after": before["lastSeq"], "epoch": before["epoch"]});
    let joined = socket.emit("joinRoom", again).await.unwrap();
    let epoch = String::from_utf8(renewed.stdout).unwrap();
    assert_eq!(
        (&joined["reset"], &joined["lastSeq"], &joined["epoch"]),
        (&json!(true), &json!(1), &json!(epoch.trim()))
    );
}
