//! Many uploads of one user: other users' uploads begin at once, and memory stays within its budget.

use std::fs;
use std::time::Duration;

use confab_tests::api::{Account, Answer, Api};
use confab_tests::embedded::Embedded;
use confab_tests::form::{Form, content_type, file_headers};
use confab_tests::raw::Http;
use confab_tests::stock::{Stock, Transports, bytes};
use confab_tests::wait::eventually;
use serde_json::json;
use tokio::task::JoinSet;

use super::fails;

const MIB: usize = 1024 * 1024;
/// Bytes sent at once.
const PIECE: usize = 64 * 1024;

/// Begins an upload that declares its length and has sent everything before its content.
async fn begin(api: &Api, who: &Account, length: usize) -> (Http, Vec<u8>) {
    let form = Form::new().part(file_headers("a.bin", "application/octet-stream"), b"").into_body();
    let end = form.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (head, tail) = form.split_at(end);
    let length = head.len() + length + tail.len();
    let headers = format!(
        "Authorization: Bearer {}\r\nContent-Type: {}\r\nContent-Length: {length}\r\n",
        who.token,
        content_type()
    );
    let mut upload = Http::begin(&api.url, "POST /api/files/upload", &headers).await.unwrap();
    upload.write(head).await.unwrap();
    (upload, tail.to_vec())
}

async fn is_answered(upload: &Http) -> bool {
    tokio::time::timeout(Duration::from_millis(1), upload.answered()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_of_one_user_leave_permits_for_others() {
    let server = Embedded::start(&[("CONFAB_MAX_UPLOADS", "10")]).await.unwrap();
    let api = Api::new(server.url());
    let [eve, ada] = [api.signup().await.unwrap(), api.signup().await.unwrap()];
    let room = api.room(&eve).await.unwrap();
    let mut slow = Vec::new();
    for _ in 0..12 {
        slow.push(begin(&api, &eve, 1_000_000).await.0);
    }
    // Uploads without a permit are answered, the others are not.
    let refused = async || {
        let mut answered = Vec::new();
        for upload in &slow {
            answered.push(is_answered(upload).await);
        }
        (answered.iter().filter(|answered| **answered).count() >= 7).then_some(answered)
    };
    let answered = eventually("most uploads are rejected", Duration::from_secs(30), refused).await.unwrap();
    let mut open = Vec::new();
    for (upload, answered) in slow.into_iter().zip(answered) {
        if answered {
            let answer = upload.answer().await.unwrap();
            fails(&answer, 429, "rate_limited");
            assert_eq!(answer.header("retry-after"), "5");
        } else {
            open.push(upload);
        }
    }
    assert_eq!(open.len(), 5);

    let stock = Stock::javascript().unwrap();
    let socket = async |who: &Account| stock.connect(&api.url, &who.token, Transports::WebSocket).await.unwrap();
    let (eves, adas) = (socket(&eve).await, socket(&ada).await);
    let small = || json!({"roomId": room, "name": "b.txt", "data": bytes(b"small")});
    assert_eq!(eves.emit("fileUpload", small()).await.unwrap()["error"]["code"], "rate_limited");
    assert_eq!(adas.emit("fileUpload", small()).await.unwrap()["ok"], true);
    for _ in 0..3 {
        api.share(&ada, None, "a.txt", b"at once").await.unwrap();
    }
    drop(open);
    let again = async || api.share(&eve, None, "a.txt", b"again").await.ok();
    eventually("the user's permits are free again", Duration::from_secs(30), again).await.unwrap();
}

/// Sends as fast as the server reads, unless it answers first.
async fn upload(api: &Api, who: &Account, length: usize) -> anyhow::Result<Answer> {
    let (mut upload, tail) = begin(api, who, length).await;
    for _ in 0..length / PIECE {
        if is_answered(&upload).await {
            return upload.answer().await;
        }
        upload.write(&[b'x'; PIECE]).await?;
    }
    upload.write(&tail).await?;
    upload.answer().await
}

/// Returns a process's peak memory, in bytes.
fn peak(pid: i32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_memory_is_bounded_and_uploads_wait_for_it() {
    const LENGTH: usize = 7 * MIB + MIB / 2;
    const UPLOADS: usize = 40;
    let s3 = std::env::var("TEST_S3_URL").unwrap();
    let (account, host) = s3.strip_prefix("http://").unwrap().split_once('@').unwrap();
    let (key, secret) = account.split_once(':').unwrap();
    let (memory, endpoint) = ((32 * MIB).to_string(), format!("http://{host}"));
    let bucket = format!("s3://memory-{}", uuid::Uuid::new_v4());
    let settings = [
        ("CONFAB_UPLOAD_MEMORY", memory.as_str()),
        ("CONFAB_OBJECTS", bucket.as_str()),
        ("CONFAB_S3_ENDPOINT", endpoint.as_str()),
        ("CONFAB_S3_ACCESS_KEY_ID", key),
        ("CONFAB_S3_SECRET_ACCESS_KEY", secret),
    ];
    let server = Embedded::start(&settings).await.unwrap();
    let (api, pid) = (Api::new(server.url()), server.daemon().running().unwrap());
    let ada = api.signup().await.unwrap();
    api.share(&ada, None, "a.txt", b"first").await.unwrap();
    let before = peak(pid);

    let mut uploads = JoinSet::new();
    for _ in 0..UPLOADS {
        let (api, ada) = (api.clone(), ada.clone());
        uploads.spawn(async move {
            // A slow machine rejects some uploads, which retry.
            for _ in 0..20 {
                match upload(&api, &ada, LENGTH).await {
                    Ok(answer) if answer.status != 503 => return assert_eq!(answer.status, 201, "{}", answer.body),
                    _ => {}
                }
            }
            panic!("an upload never gets memory");
        });
    }
    while let Some(uploaded) = uploads.join_next().await {
        uploaded.unwrap();
    }
    let grown = peak(pid) - before;
    assert!(grown < 128 * MIB, "{UPLOADS} uploads take {} MiB", grown / MIB);
}
