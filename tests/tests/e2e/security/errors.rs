//! A failure inside the installation shows its cause in the log, and nothing of it to clients.

use std::process::Command;

use confab_tests::api::{Api, unique};
use confab_tests::embedded::Embedded;
use confab_tests::servers::postgres::programs;
use reqwest::Method;
use serde_json::Value;

/// Runs a statement on a database of the test run's Postgres.
fn psql(url: &str, statement: &str) {
    let mut command = Command::new(programs().unwrap().join("psql"));
    let output = command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, url]).output().unwrap();
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_database_shows_no_details() {
    let server = std::env::var("TEST_POSTGRES_URL").expect("with-servers sets it");
    let name = unique("errors").replace('-', "_");
    let url = format!("{}/{name}", server.rsplit_once('/').unwrap().0);
    psql(&server, &format!("CREATE DATABASE {name}"));
    let embedded = Embedded::start(&[("CONFAB_ROOM_STORE", &url)]).await.unwrap();
    let api = Api::new(embedded.url());
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();

    psql(&url, "ALTER TABLE room.rooms RENAME TO moved_away");
    for path in ["/api/rooms".to_owned(), format!("/api/rooms/{room}")] {
        let request = api.request(Method::GET, &path).bearer_auth(&account.token).header("x-request-id", "broken-1");
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_server_error(), "{path}: {}", answer.status());
        assert_eq!(answer.headers()["x-request-id"], "broken-1");
        let text = answer.text().await.unwrap();
        let problem = serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(problem["requestId"], "broken-1");
        for detail in ["relation", "room.rooms", "moved_away", "SELECT", "select", "ostgres", "sql", ".rs", "panicked"]
        {
            assert!(!text.contains(detail), "{path}: {detail}: {text}");
        }
    }
    let log = std::fs::read_to_string(&embedded.daemon().log).unwrap();
    assert!(log.contains("does not exist"), "{log}");

    psql(&url, "ALTER TABLE room.moved_away RENAME TO rooms");
    api.get(&format!("/api/rooms/{room}"), &account).await.unwrap().expect(200).unwrap();
}
