//! In the stores of docker-compose.yml, programs have only the permissions that they need, and other clients have none.

use std::collections::BTreeMap;
use std::process::Command;

use confab_tests::replay::Replay;
use confab_tests::servers::redis;

pub async fn are_few(replay: &Replay, variables: &BTreeMap<String, String>) {
    let at = |name: &str, port| replay.addresses(name, port).unwrap()[0];
    let url = format!("postgres://confab_auth:{}@{}/confab", variables["AUTH_DB_PASSWORD"], at("postgres", 5432));
    let tried = |command: &str| Command::new("psql").args([&url, "--command", command]).output().unwrap();
    assert!(tried("SELECT FROM auth.users").status.success());
    for forbidden in [
        "CREATE TABLE auth.mine ()",
        "DROP TABLE auth.users",
        "SELECT FROM room.rooms",
        "CREATE SCHEMA mine",
        "CREATE TEMP TABLE mine ()",
        "SET ROLE confab_migrate",
        "UPDATE auth.audit SET act = ''",
        "DELETE FROM auth.audit",
    ] {
        let said = String::from_utf8(tried(forbidden).stderr).unwrap();
        assert!(said.contains("permission denied") || said.contains("must be owner"), "{forbidden}: {said}");
    }
    // Without its password Redis does not even answer PING, and without a key S3 returns nothing.
    assert!(!redis::is_ready(at("redis", 6379)));
    let stranger = reqwest::get(format!("http://{}/confab", at("s3", 8333))).await.unwrap();
    assert_eq!(stranger.status(), 403);
}
