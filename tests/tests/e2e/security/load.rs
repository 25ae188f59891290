//! Clients that ask for expensive work, or hold a connection and send nothing.

use std::time::{Duration, Instant};

use confab_tests::api::{Api, unique};
use confab_tests::embedded::Embedded;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::{fails, raw};
use crate::world;

const MIB: usize = 1024 * 1024;
/// Memory of one Argon2id hash: 19,456 KiB.
const HASH: usize = 19 * MIB;
const LOGINS: usize = 200;

/// Returns a process's peak memory, in bytes.
pub fn peak(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_logins_are_bounded_in_memory_and_leave_other_requests_alone() {
    let server = Embedded::start(&[]).await.unwrap();
    let (api, pid) = (Api::new(server.url()), server.daemon().running().unwrap());
    let account = api.signup().await.unwrap();
    let room = api.room(&account).await.unwrap();
    let before = peak(pid);
    let mut logins = JoinSet::new();
    for _ in 0..LOGINS {
        let api = api.clone();
        logins.spawn(async move {
            let body = json!({"username": unique("eve"), "password": "a wrong password"});
            api.call(Method::POST, "/api/auth/login", None, Some(body)).await.unwrap()
        });
    }
    // Requests without a password do not wait for the hashes.
    let mut sent = 0;
    while sent < 20 || logins.len() > LOGINS / 2 {
        let message = json!({"roomId": room, "content": "meanwhile"});
        api.post("/api/messages", &account, message).await.unwrap().expect(201).unwrap();
        sent += 1;
        while logins.try_join_next().is_some_and(|login| is_rejected(login.unwrap())) {}
    }
    while let Some(login) = logins.join_next().await {
        assert!(is_rejected(login.unwrap()));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let grown = peak(pid).saturating_sub(before);
    assert!(grown < cores * HASH + 96 * MIB, "{LOGINS} logins take {} MiB on {cores} cores", grown / MIB);
}

/// Checks that a login failed: its password is wrong, or too many hashes wait.
fn is_rejected(login: confab_tests::api::Answer) -> bool {
    match login.status {
        401 => fails(&login, 401, "invalid_credentials"),
        _ => {
            fails(&login, 503, "unavailable");
            assert!(!login.header("retry-after").is_empty());
        }
    }
    true
}

#[tokio::test]
async fn connections_that_send_no_request_are_closed_after_10_s() {
    let url = world::embedded().await.url();
    let began = Instant::now();
    let silent = [&b""[..], b"GET", b"GET /livez HTTP/1.1\r\nHost: local"].map(|bytes| raw(&url, bytes));
    let answers = all(silent).await;
    let waited = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(18)).contains(&waited), "{waited:?}");
    assert!(answers.iter().all(|answer| answer.is_empty() || answer.starts_with("HTTP/1.1 4")), "{answers:?}");
}

async fn all<F: Future<Output = String>>([one, two, three]: [F; 3]) -> [String; 3] {
    tokio::join!(one, two, three).into()
}
