//! Files that are dangerous to decode, and requests for a file that cost more than the file.

use confab_tests::api::Api;
use confab_tests::embedded::Embedded;
use confab_tests::form::Form;
use confab_tests::objects::sha256;
use reqwest::Method;
use serde_json::json;

use super::load::peak;
use crate::world;

const MIB: usize = 1024 * 1024;

/// The beginning of a picture of 50,000 × 50,000 pixels, which would take 10 GB of memory.
fn vast_picture() -> Vec<u8> {
    let side = 50_000u32.to_be_bytes();
    let head = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], &side, &side, b"\x08\x06\0\0\0\x1f\x15\xc4\x89"].concat();
    [head, vec![0; 200]].concat()
}

/// The beginning of an archive with one entry of 4 GiB, all zeros.
fn vast_archive() -> Vec<u8> {
    let head = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\0\0\0\0\x10\0\0\0\xff\xff\xff\xff\x01\0\0\0a";
    [&head[..], &[0; 200]].concat()
}

#[tokio::test]
async fn pictures_and_archives_are_stored_without_decoding() {
    let server = Embedded::start(&[]).await.unwrap();
    let (api, pid) = (Api::new(server.url()), server.daemon().running().unwrap());
    let account = api.signup().await.unwrap();
    api.share(&account, None, "first.txt", b"first").await.unwrap();
    let before = peak(pid);
    let gzip = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec(), vec![0xff; 200]].concat();
    for (name, kind, bytes) in [
        ("vast.png", "image/png", vast_picture()),
        ("vast.zip", "application/zip", vast_archive()),
        ("vast.gz", "application/gzip", gzip),
    ] {
        let form = Form::new().file(name, kind, &bytes);
        let file = api.upload(&account, form).await.unwrap().expect(201).unwrap();
        assert_eq!((&file["size"], &file["sha256"]), (&json!(bytes.len()), &json!(sha256(&bytes))));
        let answer = api.get(file["url"].as_str().unwrap(), &account).await.unwrap();
        assert_eq!((answer.status, &answer.bytes), (200, &bytes), "{name}");
        if kind == "image/png" {
            // As the picture of a profile as well.
            let profile = Some(json!({"avatarFileId": file["id"]}));
            let me =
                api.call(Method::PATCH, "/api/auth/me", Some(&account), profile).await.unwrap().expect(200).unwrap();
            let shown = api.call(Method::GET, me["avatarUrl"].as_str().unwrap(), None, None).await.unwrap();
            assert_eq!((shown.status, &shown.bytes), (200, &bytes));
        }
    }
    let grown = peak(pid).saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}

#[tokio::test]
async fn a_thousand_ranges_return_the_file_once() {
    let api = Api::new(world::embedded().await.url());
    let account = api.signup().await.unwrap();
    let bytes = vec![b'x'; 100_000];
    let file = api.share(&account, None, "ranges.txt", &bytes).await.unwrap();
    let ranges = (0..1000).map(|n| format!("{n}-")).collect::<Vec<_>>().join(",");
    for range in [format!("bytes={ranges}"), format!("bytes={}0-", "0-,".repeat(1000)), "bytes=0-1,1-2".into()] {
        let request = api.request(Method::GET, file["url"].as_str().unwrap()).header("range", range);
        let answer = api.send(request.bearer_auth(&account.token)).await.unwrap();
        assert_eq!((answer.status, answer.bytes.len()), (200, bytes.len()));
    }
}
