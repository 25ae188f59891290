//! An embedded server becomes a cluster: all its data is there, and clients continue.

mod past;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::ensure;
use confab_tests::api::{Account, Api, repeated};
use confab_tests::cluster::Cluster;
use confab_tests::embedded::Embedded;
use confab_tests::form::Form;
use confab_tests::plan::Role;
use confab_tests::stock::{Report, Stock, Transports};
use confab_tests::{programs, secrets};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world;
use past::Past;

/// Time limit for an embedded server to shut down.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// Runs the program with a subcommand, in a directory, with these settings only.
async fn confab(arguments: &[&str], work: &Path, settings: &[(String, String)]) -> Output {
    let mut command = Command::new(programs().join("confab"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONFAB_")) {
        command.env_remove(name);
    }
    let settings = settings.iter().map(|(name, value)| (name, value));
    command.args(arguments).current_dir(work).envs(settings).output().await.unwrap()
}

/// Returns its standard output; it must succeed.
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Checks that it fails with this text in its error.
#[track_caller]
fn refused(output: &Output, why: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains(why), "{why}: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_server_becomes_a_cluster() {
    let embedded = Embedded::start(&[]).await.unwrap();
    let past = Past::live(&Api::new(embedded.url())).await.unwrap();
    let work = &embedded.daemon().work;
    refused(&confab(&["export", "backup"], work, &[]).await, "in use by another Confab process, pid ");
    assert!(!work.join("backup").exists());
    embedded.daemon().leave(SHUTDOWN_LIMIT).await.unwrap();
    let exported = done(&confab(&["export", "backup"], work, &[]).await);
    assert!(exported.contains("message.events") && exported.contains("objects"), "{exported}");
    refused(&confab(&["export", "backup"], work, &[]).await, "is not empty");

    let mut cluster = Cluster::planned(2, 2).unwrap();
    secrets::prepare(&cluster.plan.secrets()).unwrap();
    cluster.start((Role::S3, 1)).await.unwrap();
    cluster.start((Role::Postgres, 1)).await.unwrap();
    let settings = cluster.daemon((Role::File, 1)).unwrap().environment;
    archive_faults_are_detected(work, &settings, &past).await;
    let imported = done(&confab(&["import", "backup"], work, &settings).await);
    let table = |output: &str| {
        output.lines().filter(|line| !line.starts_with("All imported data")).map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(table(&imported), table(&exported));
    refused(
        &confab(&["import", "backup"], work, &settings).await,
        "the Postgres schema auth has rows in its table users",
    );
    // Exports from Postgres and S3 equal those from SQLite and a directory.
    done(&confab(&["export", "again"], work, &settings).await);
    let manifest = |archive: &str| fs::read_to_string(work.join(archive).join("manifest.json")).unwrap();
    assert_eq!(manifest("again"), manifest("backup"));

    // The operator copies the key that signed the tokens.
    cluster.set([("CONFAB_SIGNING_KEY_FILE".to_string(), work.join("data/signing.key").display().to_string())]);
    cluster.up().await.unwrap();
    let gateways = world::gateways(&cluster);
    is_as_it_was(&gateways, &past).await.unwrap();
    goes_on(&gateways, &past).await.unwrap();

    refused(
        &confab(&["export", "while-it-runs"], work, &settings).await,
        "confab-auth is connected to the store; stop all",
    );
}

/// A modified archive, or one for another program, is rejected before anything is written.
async fn archive_faults_are_detected(work: &Path, settings: &[(String, String)], past: &Past) {
    let with = |name: &str, value: &str| [settings, &[(name.to_owned(), value.to_owned())]].concat();
    let outcome = confab(&["import", "backup"], work, &with("CONFAB_PARTITIONS", "16")).await;
    refused(&outcome, "has 64 partitions, but CONFAB_PARTITIONS is 16");
    refused(&confab(&["import", "nowhere"], work, settings).await, "is not a complete archive");

    let id = past.files[1].0["id"].as_str().unwrap();
    let object = format!("objects/{}/{}/{id}", &id[..4], &id[4..6]);
    for (file, from, to, why) in [
        ("manifest.json", "\"format\": 1", "\"format\": 2", "has format 2; this program supports only format 1"),
        ("manifest.json", "\"username\"", "\"nickname\"", "whose tables differ from those of this version"),
        ("message/events.jsonl", "number 7", "number 8", "the archive is damaged: message.events"),
        (
            "room/room_ids.jsonl",
            "]\n",
            "]\n[\"0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01\"]\n",
            "the archive is damaged: room.room_ids",
        ),
        (object.as_str(), "bytes", "bites", "it is damaged"),
    ] {
        let path = work.join("backup").join(file);
        let whole = fs::read_to_string(&path).unwrap();
        let damaged = whole.replacen(from, to, 1);
        assert_ne!(damaged, whole, "{file}");
        fs::write(&path, damaged).unwrap();
        refused(&confab(&["import", "backup"], work, settings).await, why);
        fs::write(&path, whole).unwrap();
    }
}

async fn is_as_it_was(gateways: &[Api], past: &Past) -> anyhow::Result<()> {
    let credentials = json!({"username": past.ada.username, "password": "correct horse battery"});
    for api in gateways {
        let login =
            api.call(reqwest::Method::POST, "/api/auth/login", None, Some(credentials.clone())).await?.expect(200)?;
        ensure!(Account::of(&login)?.id == past.ada.id, "{login}");
        // Tokens are as valid as before.
        ensure!(api.get("/api/auth/me", &past.bob).await?.status == 200, "the token of the user who stayed");
        ensure!(api.get("/api/auth/me", &past.left).await?.status == 401, "the token of the user who logged out");
        ensure!(api.history(&past.room, &past.bob, 7).await? == past.history, "the history differs");
        ensure!(
            api.get(&format!("/api/rooms/{}", past.deleted_room), &past.ada).await?.status == 404,
            "a deleted room is back"
        );
        for (file, bytes) in &past.files {
            let answer = api.get(past::url(file), &past.ada).await?;
            ensure!(answer.status == 200 && answer.bytes == *bytes, "{file}: {}", answer.status);
        }
        ensure!(api.get(past::url(&past.deleted_file), &past.ada).await?.status == 404, "a deleted file is back");
        let room = api.get(&format!("/api/rooms/{}", past.room), &past.ada).await?.expect(200)?;
        ensure!(room["name"] == past.room_name, "{room}");
    }
    Ok(())
}

async fn goes_on(gateways: &[Api], past: &Past) -> anyhow::Result<()> {
    let [one, other] = gateways else { anyhow::bail!("two gateways") };
    // A client with the last seq and the earlier epoch must read again, and finds its previous messages.
    let socket = Stock::javascript()?.connect(&other.url, &past.bob.token, Transports::WebSocket).await?;
    let (epoch, last) = (&past.epoch, past.last);
    let joined = socket.emit("joinRoom", json!({"roomId": past.room, "after": last - 3, "epoch": epoch})).await?;
    ensure!(joined["reset"] == true && joined["lastSeq"] == last, "{joined}");
    let renewed = joined["epoch"].as_str().unwrap_or_default();
    ensure!(renewed > epoch.as_str(), "{renewed} after {epoch}");
    let tail = json!(past.history[past.history.len() - 3..]);
    for argument in [
        json!({"roomId": past.room, "after": last - 3, "epoch": renewed}),
        json!({"roomId": past.room, "after": last - 3}),
    ] {
        let joined = socket.emit("joinRoom", argument).await?;
        ensure!(joined["reset"] == false && joined["complete"] == true && joined["messages"] == tail, "{joined}");
    }

    // A repeat gets the original's answer, by REST, by socket, and for an upload.
    let said = json!({"roomId": past.room, "content": "again", "clientMessageId": past.said["clientMessageId"]});
    ensure!(
        one.post("/api/messages", &past.ada, said).await?.expect(200)? == repeated(&past.said),
        "a repeated message"
    );
    let form = Form::new().field("roomId", &past.room).field("clientMessageId", "upload").file("x", "a/b", b"again");
    let repeated = one.upload(&past.ada, form).await?.expect(200)?;
    ensure!(repeated == past.files[0].0, "a repeated upload: {repeated}");

    // New messages continue the numbering, and arrive at the other gateway.
    let new =
        one.post("/api/messages", &past.ada, json!({"roomId": past.room, "content": "new"})).await?.expect(201)?;
    ensure!(new["seq"] == last + 1, "{new}");
    let received = |_: &[Report]| socket.events("message").contains(&new).then_some(());
    socket.until("the new message", Duration::from_secs(20), received).await?;
    let file: Value = one.share(&past.bob, Some(&past.room), "new.txt", b"new").await?;
    ensure!(other.get(past::url(&file), &past.ada).await?.bytes == b"new", "a new file");
    Ok(())
}
