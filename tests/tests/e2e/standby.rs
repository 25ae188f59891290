//! Postgres fails over behind one name, which for a while resolves to the standby.

use std::time::Duration;

use confab_tests::api::{Account, Api, unique};
use confab_tests::chaos::proxy::Proxy;
use confab_tests::daemon::Daemon;
use confab_tests::embedded::Embedded;
use confab_tests::form::Form;
use confab_tests::guard::Guard;
use confab_tests::plan::free_ports;
use confab_tests::programs;
use confab_tests::servers::postgres::Postgres;
use confab_tests::wait::eventually;
use reqwest::Method;
use serde_json::json;

/// Longer than any step takes, since the whole machine may stand still for a while.
const STEP_LIMIT: Duration = Duration::from_secs(30);
const READ_ONLY: &str = "Postgres is read-only (a standby?)";
const OURS: &str = "FROM pg_stat_activity WHERE application_name LIKE 'confab-%'";

/// A primary, its hot standby, and the name with which clients reach one of them.
struct Pair {
    primary: Postgres,
    primary_port: u16,
    standby: Postgres,
    name: Proxy,
    _guard: Guard,
}

impl Pair {
    async fn start() -> Self {
        let guard = Guard::new("standby").unwrap();
        let port = free_ports(2).unwrap();
        let of = |name: &str, port| Postgres::new(&guard.directory().join(name), port, false).unwrap();
        let (primary, standby) = (of("primary", port), of("replica", port + 1));
        primary.prepare(None).unwrap();
        run(&primary, &guard, "primary").await;
        standby.prepare_as_standby_of(&primary).unwrap();
        run(&standby, &guard, "replica").await;
        Self { primary, primary_port: port, standby, name: Proxy::to(port).await.unwrap(), _guard: guard }
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/confab", self.name.port())
    }

    /// Makes the name resolve to the standby, and ends every session at the primary.
    fn fail_over(&self) {
        self.name.lead_to(self.primary_port + 1);
        self.primary.ask("postgres", &format!("SELECT count(pg_terminate_backend(pid)) {OURS}")).unwrap();
    }

    fn fail_back(&self) {
        self.name.lead_to(self.primary_port);
    }

    fn has_no_connection_at_the_standby(&self) -> bool {
        self.standby.ask("postgres", &format!("SELECT count(*) {OURS}")).unwrap() == "0"
    }

    async fn no_connection_is_at_the_standby(&self) {
        let none = async || self.has_no_connection_at_the_standby().then_some(());
        eventually("no connection leads to the standby", STEP_LIMIT, none).await.unwrap();
    }
}

async fn run(server: &Postgres, guard: &Guard, name: &str) {
    let daemon =
        server.daemon(guard.directory().join(format!("{name}.pid")), guard.directory().join(format!("{name}.log")));
    daemon.spawn().await.unwrap();
    let ready = async || server.is_ready().then_some(());
    eventually("Postgres is ready", STEP_LIMIT, ready)
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.last_words()));
}

/// Returns the status and the text of `/readyz`.
async fn readyz(admin_port: u16) -> Option<(u16, String)> {
    let answer = reqwest::get(format!("http://127.0.0.1:{admin_port}/readyz")).await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// Writes through each service; returns the statuses.
async fn writes(api: &Api, account: &Account, room: &str) -> [u16; 4] {
    let credentials = json!({"username": unique("user"), "password": "correct horse battery"});
    let (signup, created, message, file) = tokio::join!(
        api.call(Method::POST, "/api/auth/signup", None, Some(credentials)),
        api.post("/api/rooms", account, json!({"name": unique("room")})),
        api.post("/api/messages", account, json!({"roomId": room, "content": "hello"})),
        api.upload(account, Form::new().file("a.txt", "text/plain", b"hello")),
    );
    [signup, created, message, file].map(|answer| answer.unwrap().status)
}

/// The name resolves to the standby for some seconds, then to the primary again.
async fn fails_over_and_back(pair: &Pair, parameters: &str, says_so: bool) {
    let store = format!("{}{parameters}", pair.url());
    let key = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let stores = ["CONFAB_AUTH_STORE", "CONFAB_ROOM_STORE", "CONFAB_MESSAGE_STORE", "CONFAB_FILE_STORE"];
    let settings =
        stores.iter().map(|name| (*name, store.as_str())).chain([("CONFAB_SIGNING_KEY", key)]).collect::<Vec<_>>();
    let server = Embedded::start(&settings).await.unwrap();
    let api = Api::new(server.url());
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    assert_eq!(writes(&api, &account, &room).await, [201; 4]);
    assert_eq!(readyz(server.admin_port()).await, Some((200, "ready\n".into())));

    pair.fail_over();
    let mut refused = [false; 4];
    let every_write_was_refused = async || {
        for (refused, status) in refused.iter_mut().zip(writes(&api, &account, &room).await) {
            assert!([201, 503, 504].contains(&status), "{status}");
            *refused |= status == 503;
        }
        let (status, text) = readyz(server.admin_port()).await?;
        // Otherwise all gateways would leave their load balancer at once.
        assert_eq!(status, 200, "{text}");
        let said = ["auth", "room", "message", "file"]
            .iter()
            .all(|store| text.contains(&format!("; {store} store: {READ_ONLY}")));
        (refused == [true; 4] && (said || !says_so)).then_some(())
    };
    eventually("every write is rejected, and /readyz reports the reason", STEP_LIMIT, every_write_was_refused)
        .await
        .unwrap();
    if says_so {
        pair.no_connection_is_at_the_standby().await;
    }

    pair.fail_back();
    let every_write_is_well = async || (writes(&api, &account, &room).await == [201; 4]).then_some(());
    eventually("every write succeeds again", STEP_LIMIT, every_write_is_well).await.unwrap();
    // By default no connection is made to a standby; a connection that the setting admits is dropped when it is used
    // for a write.
    let none_is_left = async || {
        if !says_so {
            writes(&api, &account, &room).await;
        }
        pair.has_no_connection_at_the_standby().then_some(())
    };
    eventually("no connection leads to the standby", STEP_LIMIT, none_is_left).await.unwrap();
    let says_ready = async || (readyz(server.admin_port()).await? == (200, "ready\n".into())).then_some(());
    eventually("/readyz reports ready", STEP_LIMIT, says_ready).await.unwrap();
    let history = api.history(&room, &account, 200).await.unwrap();
    let numbers = history.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

/// A service that starts while the name resolves to the standby reports why it is not ready, and continues on its own.
async fn a_service_waits(pair: &Pair, migrate: &str) {
    let guard = Guard::new("waits").unwrap();
    let (directory, port) = (guard.directory(), free_ports(2).unwrap());
    let settings = [
        ("CONFAB_LISTEN", format!("127.0.0.1:{port}")),
        ("CONFAB_ADMIN_LISTEN", format!("127.0.0.1:{}", port + 1)),
        ("CONFAB_ROOM_STORE", pair.url()),
        ("CONFAB_MIGRATE", migrate.into()),
    ];
    let daemon = Daemon {
        environment: settings.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        ..Daemon::new(
            programs().join("confab-room"),
            directory.join("work"),
            directory.join("room.pid"),
            directory.join("room.log"),
        )
    };
    pair.fail_over();
    daemon.spawn().await.unwrap();
    let says_why = async || {
        let (status, text) = readyz(port + 1).await?;
        let why = format!("; room store: {READ_ONLY}");
        (status == 503 && text.starts_with("not ready: waiting for Postgres; ") && text.contains(&why)).then_some(())
    };
    eventually("/readyz reports why it is not ready", STEP_LIMIT, says_why)
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.last_words()));
    pair.fail_back();
    let is_ready = async || {
        let (status, text) = readyz(port + 1).await?;
        (status == 200 && !text.contains("room store")).then_some(())
    };
    eventually("it is ready", STEP_LIMIT, is_ready)
        .await
        .unwrap_or_else(|error| panic!("{error:#}: {}", daemon.last_words()));
    daemon.stop(STEP_LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_leave_a_former_standby_target() {
    let pair = Pair::start().await;
    fails_over_and_back(&pair, "", true).await;
    // The standby accepts these sessions, and they are dropped when it rejects a write.
    fails_over_and_back(&pair, "?target_session_attrs=any", false).await;
    a_service_waits(&pair, "auto").await;
    a_service_waits(&pair, "off").await;
}
