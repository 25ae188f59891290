//! A search beyond its limits is rejected as documented, and does not affect other calls.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use confab_tests::api::{Account, Answer, Api, unique};
use confab_tests::embedded::Embedded;
use confab_tests::exposition::Exposition;
use confab_tests::servers::postgres::programs;
use serde_json::json;
use tokio::task::JoinSet;

/// A session with the test run's Postgres server.
struct Psql(Child);

impl Psql {
    fn open(url: &str) -> Self {
        let mut command = Command::new(programs().unwrap().join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url]);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Runs statements, and returns when they are done.
    fn run(&mut self, statements: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{statements}; SELECT 'done';").unwrap();
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "done\n", "{statements}");
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn search(api: &Api, account: &Account, text: &str) -> Answer {
    api.get(&format!("/api/rooms?q={text}"), account).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn excessive_searches_are_rejected_with_retry_after() {
    let (server, name) =
        (std::env::var("TEST_POSTGRES_URL").unwrap(), unique("search").replace('-', "_").to_lowercase());
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    Psql::open(&server).run(&format!("CREATE DATABASE {name}"));
    let embedded = Embedded::start(&[("CONFAB_ROOM_STORE", &url)]).await.unwrap();
    let api = Api::new(embedded.url());
    let account = api.signup().await.unwrap();
    let tea = unique("tea");
    api.post("/api/rooms", &account, json!({"name": tea})).await.unwrap().expect(201).unwrap();
    assert_eq!(search(&api, &account, &tea).await.expect(200).unwrap()["items"][0]["name"], tea);

    // No search can finish now.
    let mut database = Psql::open(&url);
    database.run("BEGIN; LOCK TABLE room.rooms");
    let refused = search(&api, &account, "tea").await;
    assert_eq!(
        (refused.status, refused.code(), refused.header("retry-after")),
        (503, "unavailable", "5"),
        "{}",
        refused.body
    );
    assert!(refused.body["detail"].as_str().unwrap().contains("search for more letters"), "{}", refused.body);

    // One search runs and eight wait, for one second at most.
    let mut searches = JoinSet::new();
    for _ in 0..20 {
        let (api, account) = (api.clone(), account.clone());
        searches.spawn(async move { search(&api, &account, "tea").await });
    }
    let refused = searches.join_all().await;
    assert!(refused.iter().all(|answer| (answer.status, answer.code()) == (503, "unavailable")));
    let too_many = refused.iter().filter(|answer| answer.header("retry-after") == "1").count();
    assert!((11..20).contains(&too_many), "{too_many}");

    database.run("ROLLBACK");
    assert_eq!(search(&api, &account, &tea).await.expect(200).unwrap()["items"][0]["name"], tea);
    let seen = Exposition::scrape(embedded.admin_port()).await.unwrap();
    assert_eq!(seen.value("confab_limits_total{limit=\"searches\"}"), Some(too_many as f64));
    assert_eq!(seen.value("confab_limits_total{limit=\"search_time\"}"), Some((21 - too_many) as f64));
}
