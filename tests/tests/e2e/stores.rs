//! The stores as docker-compose.yml and deploy/ set them up: everything works with the rights given there, and they are few.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use confab_tests::api::Api;
use confab_tests::daemon::Daemon;
use confab_tests::embedded::Embedded;
use confab_tests::form::Form;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::programs;
use confab_tests::servers::postgres::Postgres;
use confab_tests::servers::{redis, seaweed};
use confab_tests::wait::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SOON: Duration = Duration::from_secs(30);
/// Stands for every secret. The one that signs tokens is 32 bytes in base64.
const SECRET: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// What of a service's settings is not about its stores.
const ELSEWHERE: [&str; 7] = ["_LISTEN", "_URL", "_LOG", "_FORMAT", "_OTLP_ENDPOINT", "_SAMPLER", "_SAMPLER_ARG"];

/// The stores, running.
struct Stores {
    services: Value,
    guard: Guard,
    postgres: Postgres,
    /// Of Postgres, Redis, S3, and the parts of SeaweedFS.
    port: u16,
}

impl Stores {
    async fn start() -> anyhow::Result<Self> {
        let (guard, port) = (Guard::new("stores")?, free_ports(10)?);
        let mut compose: Value = serde_saphyr::from_str(&std::fs::read_to_string(format!("{ROOT}/docker-compose.yml"))?)?;
        let postgres = Postgres::new(&guard.directory().join("postgres"), port, false)?;
        let stores = Self { services: compose["services"].take(), guard, postgres, port };

        stores.postgres.prepare(Some(SECRET))?;
        let directory = stores.guard.directory();
        stores.postgres.daemon(directory.join("postgres.pid"), directory.join("postgres.log")).spawn().await?;
        eventually("Postgres is ready", SOON, async || stores.postgres.is_ready().then_some(())).await?;

        let mut redis = stores.daemon("redis", Path::new("/bin/sh"));
        redis.arguments[2] += &format!(" --bind 127.0.0.1 --port {}", port + 1);
        redis.arguments.remove(0);
        redis.spawn().await?;

        let mut weed = stores.daemon("s3", &Path::new(ROOT).join(".tools/seaweedfs/bin/weed"));
        let names = ["s3", "filer", "master", "volume"].into_iter().flat_map(|part| [format!("{part}.port"), format!("{part}.port.grpc")]);
        // Given twice, the last counts.
        weed.arguments.extend(names.zip(port + 2..).map(|(name, port)| format!("-{name}={port}")));
        weed.arguments.extend(["-dir=.", "-master.electionTimeout=500ms"].map(String::from));
        weed.stop = Signal::KILL;
        weed.spawn().await?;
        let http = reqwest::Client::new();
        let ready = async || seaweed::is_ready(&http, port + 2, SECRET).await.then_some(());
        eventually("S3 is ready", SOON, ready).await?;
        Ok(stores)
    }

    /// A server with the command and the variables of its service.
    fn daemon(&self, service: &str, program: &Path) -> Daemon {
        let file = |name: &str| self.guard.directory().join(format!("{service}.{name}"));
        let command = self.services[service]["command"].as_array().unwrap();
        Daemon {
            arguments: command.iter().map(|word| self.filled(word.as_str().unwrap())).collect(),
            environment: self.settings(&[service]),
            ..Daemon::new(program.to_path_buf(), file("work"), file("pid"), file("log"))
        }
    }

    /// What services are told of stores, at the addresses that they have here.
    fn settings(&self, services: &[&str]) -> Vec<(String, String)> {
        let told = services.iter().flat_map(|service| self.services[service]["environment"].as_object().unwrap());
        let told = told.filter(|(name, _)| !ELSEWHERE.iter().any(|end| name.ends_with(end)));
        told.map(|(name, value)| (name.clone(), self.filled(value.as_str().unwrap()))).collect()
    }

    /// A text of docker-compose.yml as a program gets it.
    fn filled(&self, text: &str) -> String {
        let mut pieces = text.split("${");
        let first = pieces.next().unwrap_or_default().to_owned();
        let text = pieces.fold(first, |text, piece| text + SECRET + piece.split_once('}').unwrap().1).replace("$$", "$");
        let at = |n| format!("127.0.0.1:{}", self.port + n);
        text.replace("@postgres/", &format!("@{}/", at(0))).replace("@redis:6379", &format!("@{}", at(1))).replace("s3:8333", &at(2))
    }

    /// What psql says to these arguments as somebody.
    fn psql(&self, who: &str, arguments: &[&str]) -> Output {
        let url = self.postgres.url(Some(SECRET), "confab").replace("//postgres:", &format!("//{who}:"));
        let mut command = Command::new("psql");
        command.arg(url).args(arguments).envs(self.settings(&["postgres"])).output().expect("psql is installed with Postgres")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_live_on_the_stores_of_compose_with_the_rights_they_have_there() {
    let stores = Stores::start().await.unwrap();
    let made = stores.psql("postgres", &["--file", &format!("{ROOT}/deploy/postgres/roles.sql")]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut migrate = Command::new(programs().join("confab"));
    let migrated = migrate.arg("migrate").envs(stores.settings(&["migrate"])).output().unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));

    let settings = stores.settings(&["auth", "room", "message", "file"]);
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>();
    let confab = Embedded::start(&settings).await.unwrap();
    let api = Api::new(confab.url());
    let ada = api.signup().await.unwrap();
    let room = api.room(&ada).await.unwrap();
    api.post("/api/messages", &ada, json!({"roomId": room, "content": "hello"})).await.unwrap().expect(201).unwrap();
    let form = Form::new().field("roomId", &room).file("a.txt", "text/plain", b"bytes");
    let file = api.upload(&ada, form).await.unwrap().expect(201).unwrap();
    let bytes = api.get(file["url"].as_str().unwrap(), &ada).await.unwrap().bytes;
    assert_eq!((bytes.as_slice(), api.history(&room, &ada, 50).await.unwrap().len()), (b"bytes".as_slice(), 2));
    // Rooms and the log change rows, and forget some.
    api.call(reqwest::Method::DELETE, file["url"].as_str().unwrap(), Some(&ada), None).await.unwrap().expect(204).unwrap();
    api.call(reqwest::Method::DELETE, &format!("/api/rooms/{room}"), Some(&ada), None).await.unwrap().expect(204).unwrap();
    api.post("/api/auth/logout", &ada, json!({})).await.unwrap().expect(200).unwrap();

    for forbidden in
        ["CREATE TABLE auth.mine ()", "DROP TABLE auth.users", "SELECT FROM room.rooms", "CREATE SCHEMA mine", "CREATE TEMP TABLE mine ()"]
    {
        let tried = stores.psql("confab_auth", &["--command", forbidden]);
        let said = String::from_utf8_lossy(&tried.stderr);
        assert!(said.contains("permission denied") || said.contains("must be owner"), "{forbidden}: {said}");
    }
    assert!(stores.psql("confab_auth", &["--command", "SELECT FROM auth.users"]).status.success());
    // Who has no password of Redis is not even told that it is well, and who has no key of S3 sees nothing.
    assert!(!redis::is_ready(stores.port + 1));
    let stranger = reqwest::get(format!("http://127.0.0.1:{}/confab", stores.port + 2)).await.unwrap();
    assert_eq!(stranger.status(), 403);
}
