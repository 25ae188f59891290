//! The roles of `deploy/postgres/roles.sql`: each service does its work with its own role, which can do nothing else.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use confab_tests::api::{Account, Api};
use confab_tests::embedded::Embedded;
use confab_tests::form::Form;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::programs;
use confab_tests::servers::postgres::Postgres;
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::json;

/// Longer than any step takes.
const STEP_LIMIT: Duration = Duration::from_secs(30);
const SERVICES: [&str; 4] = ["auth", "room", "message", "file"];

/// A database after an operator has run `roles.sql`.
struct Database {
    port: u16,
    _guard: Guard,
}

impl Database {
    async fn start() -> Self {
        let guard = Guard::new("roles").unwrap();
        let port = free_ports(1).unwrap();
        let server = Postgres::new(&guard.directory().join("postgres"), port, false).unwrap();
        server.prepare(None).unwrap();
        let daemon = server.daemon(guard.directory().join("pid"), guard.directory().join("log"));
        daemon.spawn().await.unwrap();
        let ready = async || server.is_ready().then_some(());
        eventually("Postgres is ready", STEP_LIMIT, ready).await.unwrap();
        let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/postgres/roles.sql");
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-d", &server.url(None, "confab"), "-f"]).arg(roles);
        for user in SERVICES.iter().chain(&["migrate"]) {
            psql.env(format!("{}_DB_PASSWORD", user.to_uppercase()), "secret");
        }
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { port, _guard: guard }
    }

    fn url(&self, user: &str) -> String {
        format!("postgres://confab_{user}:secret@127.0.0.1:{}/confab", self.port)
    }

    /// Returns the settings of a program whose services connect as these users.
    fn stores(&self, user: impl Fn(&'static str) -> &'static str) -> Vec<(String, String)> {
        let store =
            |service: &&'static str| (format!("CONFAB_{}_STORE", service.to_uppercase()), self.url(user(service)));
        SERVICES.iter().map(store).collect()
    }

    /// Runs a statement as a user: its result, or the error of the database.
    fn run(&self, user: &str, statement: &str) -> Result<String, String> {
        let url = self.url(user);
        let output = Command::new("psql").args(["-X", "-A", "-t", "-d", &url, "-c", statement]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    fn rejects(&self, user: &str, statement: &str) {
        let refused = self.run(user, statement).expect_err(statement);
        let is_expected = refused.contains("permission denied") || refused.contains("must be owner");
        assert!(is_expected, "{user}: {statement}: {refused}");
    }

    fn confab(&self, arguments: &[&str], work: &Path) {
        let mut command = Command::new(programs().join("confab"));
        command.env_clear().args(arguments).current_dir(work).envs(self.stores(|_| "migrate"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Uses each service through the API; returns a room with a message.
async fn converse(api: &Api, owner: &Account) -> (String, u64) {
    let room = api.room(owner).await.unwrap();
    let message = json!({"roomId": room, "content": "a secret"});
    let sent = api.post("/api/messages", owner, message).await.unwrap().expect(201).unwrap();
    api.upload(owner, Form::new().file("a.txt", "text/plain", b"hello")).await.unwrap().expect(201).unwrap();
    let private = Some(json!({"visibility": "private"}));
    api.call(Method::PATCH, &format!("/api/rooms/{room}"), Some(owner), private).await.unwrap().expect(200).unwrap();
    let deleted = api.room(owner).await.unwrap();
    let late = json!({"roomId": deleted, "content": "x"});
    api.post("/api/messages", owner, late.clone()).await.unwrap().expect(201).unwrap();
    let path = format!("/api/rooms/{deleted}");
    assert_eq!(api.call(Method::DELETE, &path, Some(owner), None).await.unwrap().status, 204);
    assert_eq!(api.post("/api/messages", owner, late).await.unwrap().status, 404);
    (room, sent["seq"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_work_with_their_roles_which_can_do_nothing_else() {
    let database = Database::start().await;
    let work = Guard::new("migrating").unwrap();
    database.confab(&["migrate"], work.directory());

    let mut settings = database.stores(|service| service);
    settings.push(("CONFAB_MIGRATE".into(), "off".into()));
    settings.push(("CONFAB_SIGNING_KEY".into(), "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=".into()));
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>();
    let server = Embedded::start(&settings).await.unwrap();
    let api = Api::new(server.url());
    let owner = api.signup().await.unwrap();
    let (room, seq) = converse(&api, &owner).await;

    for service in SERVICES {
        for statement in [
            "CREATE SCHEMA mine",
            "CREATE TABLE public.mine ()",
            "CREATE TEMP TABLE mine ()",
            "CREATE ROLE mine",
            "CREATE DATABASE mine",
            "SET ROLE confab_migrate",
            "SET ROLE postgres",
            &format!("CREATE TABLE {service}.mine ()"),
            &format!("CREATE FUNCTION {service}.mine() RETURNS void LANGUAGE sql AS ''"),
            &format!("ALTER TABLE {service}.refinery_schema_history ADD mine integer"),
            &format!("UPDATE {service}.refinery_schema_history SET version = 0"),
            &format!("DROP SCHEMA {service} CASCADE"),
        ] {
            database.rejects(service, statement);
        }
        for (other, table) in [("auth", "users"), ("room", "rooms"), ("message", "events"), ("file", "files")] {
            let statement = format!("SELECT FROM {other}.{table}");
            if other == service {
                database.run(service, &statement).unwrap();
            } else {
                database.rejects(service, &statement);
            }
        }
    }
    for (service, table) in [("message", "message.events"), ("auth", "auth.audit")] {
        database.rejects(service, &format!("TRUNCATE {table}"));
        database.rejects(service, &format!("DELETE FROM {table}"));
        database.rejects(service, &format!("ALTER TABLE {table} DISABLE TRIGGER ALL"));
    }
    database.rejects("message", "UPDATE message.events SET body = '{}'");
    database.rejects("auth", "UPDATE auth.audit SET act = ''");
    database.rejects("room", "SELECT message.erase(0, gen_random_uuid(), ARRAY[1]::bigint[])");

    let rooms = format!("FROM message.room_heads WHERE room_id = '{room}'");
    let erase = format!("SELECT message.erase(partition, room_id, ARRAY[{seq}]::bigint[]) {rooms}");
    assert_eq!(database.run("message", &erase).unwrap(), "1");
    let history = api.history(&room, &owner, 200).await.unwrap();
    let erased = history.iter().find(|message| message["seq"] == seq).unwrap();
    assert_eq!((&erased["content"], &erased["sender"]["username"]), (&json!(""), &json!(owner.username)), "{erased}");

    server.daemon().leave(STEP_LIMIT).await.unwrap();
    database.confab(&["export", "backup"], &server.daemon().work);
}
