use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONNECTION, CONTENT_DISPOSITION, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Request, request};
use bytes::Bytes;
use confab_common::Code;
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

mod wire;

use super::*;
use crate::rest::tests::{authorized, gateway_with, problem};
use crate::testing::files::{Files, MAX_FILE};
use crate::testing::services::ROOM;
use crate::testing::{Answer, eventually, send, send_body};

fn part(name: &str, content: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
}

fn file(name: &str, content: &str) -> String {
    let head = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: text/plain\r\n\r\n"
    );
    format!("{head}{content}\r\n")
}

fn posting() -> request::Builder {
    authorized(Request::post("/api/files/upload")).header(CONTENT_TYPE, "multipart/form-data; boundary=XX")
}

async fn post(routes: &Router, parts: &[String]) -> Answer {
    send_body(routes, posting(), format!("{}--XX--\r\n", parts.concat())).await
}

fn reading(path: &str) -> request::Builder {
    authorized(Request::get(path))
}

#[tokio::test]
async fn form_fields_may_come_in_any_order() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    let (room, id) = (part("roomId", ROOM), |id: &str| part("clientMessageId", id));
    let content = "x".repeat(1_000_000);
    let first = post(&routes, &[room.clone(), id("a"), file("ü.txt", &content)]).await;
    assert_eq!((first.status, &first.json["size"], &first.json["name"]), (201, &json!(1_000_000), &json!("ü.txt")));
    assert_eq!((&first.json["roomId"], &first.json["contentType"]), (&json!(ROOM), &json!("text/plain")));
    assert_eq!(first.json["url"], format!("/api/files/{}", first.json["id"].as_str().unwrap()));
    assert_eq!(files.bytes(first.json["id"].as_str().unwrap()).unwrap(), content);

    assert_eq!(
        post(&routes, &[file("b", "b"), part("unknown", "x"), id("b"), room.clone()]).await.json["roomId"],
        ROOM
    );
    assert_eq!(post(&routes, &[id("c"), file("c", ""), room]).await.json["size"], 0);
    let alone = send_body(&routes, posting().header("Idempotency-Key", "d"), format!("{}--XX--", file("d", "d"))).await;
    assert_eq!((alone.status, &alone.json["roomId"]), (201, &json!(null)));

    let (begins, finishes) = files.uploads();
    let said = begins.iter().zip(&finishes).map(|(begin, finish)| {
        let id = |id: &Option<String>| id.clone().unwrap_or_default();
        (begin.room_id.is_some(), id(&begin.client_message_id), finish.room_id.is_some(), id(&finish.client_message_id))
    });
    let expected = [(true, "a", false, ""), (false, "", true, "b"), (false, "c", true, ""), (false, "d", false, "")];
    assert!(said.eq(expected.map(|(a, b, c, d)| (a, b.to_owned(), c, d.to_owned()))));
    assert!(finishes.iter().all(|finish| finish.timeout_ms == 10_000));
    assert!(begins.iter().all(|begin| begin.caller.as_ref().unwrap().username == "zoë"));
}

#[tokio::test]
async fn a_repeated_upload_returns_the_first_file() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    let again = [part("clientMessageId", "a"), file("a", &"x".repeat(300_000)), part("roomId", ROOM)];
    let first = post(&routes, &again).await;
    let second = post(&routes, &again).await;
    assert_eq!((first.status, second.status, &second.json), (201, 200, &first.json));
    assert!(!second.headers.contains_key(CONNECTION));
    let longer = post(&routes, &[again[0].clone(), file("a", &"x".repeat(900_000))]).await;
    assert_eq!(
        (longer.status, &longer.json, &longer.headers[CONNECTION]),
        (200, &first.json, &"close".parse().unwrap())
    );
    assert_eq!(files.count(), 1);
}

#[tokio::test]
async fn invalid_forms_are_rejected() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    let a = || file("a", "a");
    for (parts, field) in [
        (vec![part("roomId", ROOM)], "file"),
        (vec![], "file"),
        (vec![a(), a()], "file"),
        (vec![part("roomId", "x"), a()], "roomId"),
        (vec![a(), part("roomId", "x")], "roomId"),
        (vec![part("roomId", ROOM), part("roomId", ROOM), a()], "roomId"),
        (vec![part("clientMessageId", ""), a()], "clientMessageId"),
        (vec![a(), part("clientMessageId", &"x".repeat(129))], "clientMessageId"),
        (vec![part("clientMessageId", "a"), a(), part("clientMessageId", "a")], "clientMessageId"),
        (vec![part("other", &"x".repeat(1025)), a()], "other"),
    ] {
        let answer = post(&routes, &parts).await;
        assert_eq!(
            (problem(&answer), &answer.json["errors"][0]["field"]),
            ((400, "invalid_request"), &json!(field)),
            "{parts:?}"
        );
        assert_eq!(answer.headers[CONNECTION], "close");
    }
    let many = vec![part("x", "x"); 10_000];
    assert_eq!(problem(&post(&routes, &many).await), (400, "invalid_request"));
    for (key, body) in [
        ("b", [part("clientMessageId", "a"), a()].concat()),
        ("b", [a(), part("clientMessageId", "a")].concat()),
        ("", a()),
    ] {
        let answer = send_body(&routes, posting().header("Idempotency-Key", key), format!("{body}--XX--")).await;
        assert_eq!(problem(&answer), (400, "invalid_request"));
    }
    let json = authorized(Request::post("/api/files/upload")).header(CONTENT_TYPE, "application/json");
    assert_eq!(problem(&send_body(&routes, json, "{}").await), (415, "unsupported_media_type"));
    let anonymous = send_body(
        &routes,
        Request::post("/api/files/upload").header(CONTENT_TYPE, "multipart/form-data; boundary=XX"),
        a(),
    )
    .await;
    assert_eq!(
        (problem(&anonymous), &anonymous.headers[CONNECTION]),
        ((401, "unauthorized"), &"close".parse().unwrap())
    );
    assert_eq!((files.count(), files.under_way()), (0, 0));
}

/// A file that never ends.
fn endless() -> Body {
    let begin = file("a", "");
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from(begin.strip_suffix("\r\n").unwrap().to_owned()))]);
    Body::from_stream(begin.chain(stream::repeat_with(|| Ok(Bytes::from_static(&[b'x'; 16 * 1024])))))
}

#[tokio::test]
async fn a_rejection_does_not_wait_for_the_end_of_the_body() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    let too_large = send_body(&routes, posting(), endless()).await;
    assert_eq!((problem(&too_large), &too_large.headers[CONNECTION]), ((413, "too_large"), &"close".parse().unwrap()));

    // The declared length is enough: nothing follows the head of the file.
    let begin = file("a", "");
    let silent = stream::iter([Ok::<_, std::io::Error>(Bytes::from(begin))]).chain(stream::pending());
    let declared = posting().header(CONTENT_LENGTH, MAX_FILE + 200_000);
    assert_eq!(problem(&send_body(&routes, declared, Body::from_stream(silent)).await), (413, "too_large"));

    files.refuse(Error::new(Code::Forbidden, "not here"));
    assert_eq!(problem(&send_body(&routes, posting(), endless()).await), (403, "forbidden"));
    assert_eq!((files.count(), files.under_way()), (0, 0));
}

#[tokio::test]
async fn an_aborted_upload_stores_nothing() {
    let files = Files::default();
    let routes = gateway_with(&[], &files).await;
    let begin = stream::iter([Ok::<_, std::io::Error>(Bytes::from(file("a", "some text")))]);
    let request = posting().body(Body::from_stream(begin.chain(stream::pending()))).unwrap();
    let uploading = tokio::spawn(routes.clone().oneshot(request));
    eventually(|| files.under_way() == 1).await;
    uploading.abort();
    eventually(|| files.under_way() == 0).await;

    let broken = stream::iter([Ok(Bytes::from(file("a", "some text"))), Err(std::io::Error::other("reset"))]);
    assert_eq!(problem(&send_body(&routes, posting(), Body::from_stream(broken)).await), (400, "invalid_request"));
    eventually(|| files.under_way() == 0).await;
    assert_eq!(files.count(), 0);
}

#[tokio::test]
async fn downloads_have_bytes_and_descriptive_headers() {
    let files = Files::default();
    let text = "0123456789".repeat(10_000);
    let (image, page, empty) = (
        files.put("ü.png", "image/png", text.clone()),
        files.put("a.html", "text/html", "<b>"),
        files.put("e", "", ""),
    );
    let routes = gateway_with(&[], &files).await;
    let read = async |request: request::Builder| {
        let answer = routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
    };
    let (status, headers, bytes) = read(reading(&format!("/api/files/{image}"))).await;
    assert_eq!((status, &*bytes), (200, text.as_bytes()));
    for (name, value) in [
        (CONTENT_TYPE, "image/png"),
        (CONTENT_LENGTH, "100000"),
        (ETAG, &*format!("\"{:064x}\"", 100_000)),
        (LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (ACCEPT_RANGES, "bytes"),
        (CONTENT_DISPOSITION, "inline; filename=\"_.png\"; filename*=UTF-8''%C3%BC.png"),
        (CACHE_CONTROL, "private, no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            CONTENT_SECURITY_POLICY,
            "sandbox allow-same-origin; default-src 'none'; media-src 'self'; style-src 'unsafe-inline'",
        ),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-site"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        assert_eq!(headers[&name], value, "{name}");
    }
    let (status, head, bytes) =
        read(authorized(Request::head(format!("/api/files/{image}")).header("Range", "bytes=0-1"))).await;
    assert_eq!(
        (status, bytes.len(), &head[CONTENT_LENGTH], &head[ETAG]),
        (200, 0, &headers[CONTENT_LENGTH], &headers[ETAG])
    );

    let (_, headers, _) = read(reading(&format!("/api/files/{page}"))).await;
    assert!(headers[CONTENT_DISPOSITION].to_str().unwrap().starts_with("attachment"));
    assert_eq!(headers[CONTENT_TYPE], "application/octet-stream");
    assert_eq!(headers[CONTENT_SECURITY_POLICY], "sandbox; default-src 'none'");
    let (status, headers, bytes) = read(reading(&format!("/api/files/{empty}"))).await;
    assert_eq!(
        (status, &headers[CONTENT_LENGTH], &headers[CONTENT_TYPE], bytes.len()),
        (200, &"0".parse().unwrap(), &"application/octet-stream".parse().unwrap(), 0)
    );

    let browser = reading(&format!("/api/files/{page}")).header("Origin", "http://localhost:5173");
    let exposed = read(browser).await.1[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap().to_owned();
    assert!(["content-disposition", "content-range", "etag"].iter().all(|name| exposed.contains(name)), "{exposed}");
}

#[tokio::test]
async fn ranges_and_preconditions() {
    let files = Files::default();
    let text = "0123456789".repeat(10_000);
    let (id, empty) = (files.put("a", "text/plain", text.clone()), files.put("e", "", ""));
    let routes = gateway_with(&[], &files).await;
    let read = async |id: &str, headers: &[(&str, &str)]| {
        let request = headers
            .iter()
            .fold(reading(&format!("/api/files/{id}")), |request, (name, value)| request.header(*name, *value));
        let answer = routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let range = head.headers.get(CONTENT_RANGE).map(|range| range.to_str().unwrap().to_owned()).unwrap_or_default();
        (head.status.as_u16(), range, body.collect().await.unwrap().to_bytes())
    };
    let tag = format!("\"{:064x}\"", 100_000);
    assert_eq!(
        read(&id, &[("Range", "bytes=5-2007")]).await,
        (206, "bytes 5-2007/100000".into(), Bytes::copy_from_slice(&text.as_bytes()[5..2008]))
    );
    assert_eq!(read(&id, &[("Range", "bytes=-3")]).await, (206, "bytes 99997-99999/100000".into(), "789".into()));
    assert_eq!(
        read(&id, &[("Range", "bytes=99999-"), ("If-Range", &tag)]).await,
        (206, "bytes 99999-99999/100000".into(), "9".into())
    );
    for whole in [[("Range", "bytes=0-1,4-5"), ("X", "x")], [("Range", "bytes=0-1"), ("If-Range", "\"other\"")]] {
        let (status, range, bytes) = read(&id, &whole).await;
        assert_eq!((status, range.as_str(), bytes.len()), (200, "", text.len()));
    }
    for (id, range, size) in [(&id, "bytes=100000-", 100_000), (&empty, "bytes=0-", 0), (&empty, "bytes=-1", 0)] {
        let (status, range, bytes) = read(id, &[("Range", range)]).await;
        assert_eq!((status, range), (416, format!("bytes */{size}")));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["code"], "range_not_satisfiable");
    }
    for known in [("If-None-Match", format!("W/{tag}")), ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT".into())]
    {
        let (status, _, bytes) = read(&id, &[(known.0, &known.1), ("Range", "bytes=0-1")]).await;
        assert_eq!((status, bytes.len()), (304, 0));
    }
    assert_eq!(read(&id, &[("If-None-Match", "\"other\"")]).await.0, 200);
}

#[tokio::test]
async fn a_broken_download_ends_with_an_error() {
    let files = Files::default();
    let id = files.put("a", "text/plain", "0123456789".repeat(10_000));
    let routes = gateway_with(&[], &files).await;
    files.break_after(50_000);
    let request = reading(&format!("/api/files/{id}")).body(Body::empty()).unwrap();
    let answer = routes.clone().oneshot(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()[CONTENT_LENGTH]), (200, &"100000".parse().unwrap()));
    assert!(answer.into_body().collect().await.is_err());
    files.break_after(0);
    assert_eq!(problem(&send(&routes, reading(&format!("/api/files/{id}"))).await), (503, "unavailable"));
}

#[tokio::test]
async fn links_work_without_a_token_until_they_expire() {
    let files = Files::default();
    let id = files.put("a", "text/plain", "text");
    let routes = gateway_with(&[], &files).await;
    let link = send(&routes, reading(&format!("/api/files/{id}/link"))).await;
    let url = link.json["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&format!("/api/files/{id}?expires=")) && link.json["expiresAt"].is_string());
    assert_eq!(send(&routes, Request::get(&url)).await.status, 200);
    assert_eq!(send(&routes, Request::head(&url)).await.status, 200);
    let (path, _) = url.split_once('?').unwrap();
    let later = Timestamp::now().as_millisecond() + 100_000;
    for bad in [
        format!("expires={later}&signature=bad"),
        format!("expires={later}"),
        "signature=good".into(),
        "expires=1&signature=good".into(),
        format!("expires=%2B{later}&signature=good"),
        "expires=x&signature=good".into(),
    ] {
        assert_eq!(
            problem(&send(&routes, Request::get(format!("{path}?{bad}"))).await),
            (401, "unauthorized"),
            "{bad}"
        );
        assert_eq!(
            send(&routes, reading(&format!("{path}?{bad}"))).await.status,
            200,
            "the token takes precedence: {bad}"
        );
    }
    assert_eq!(
        problem(&send(&routes, Request::get(&url).header("Authorization", "Bearer x")).await),
        (401, "unauthorized")
    );
    assert_eq!(
        problem(&send(&routes, Request::get(format!("{path}/link?expires={later}&signature=good"))).await),
        (401, "unauthorized")
    );
    assert_eq!(send(&routes, authorized(Request::delete(path))).await.status, 204);
    assert_eq!(problem(&send(&routes, Request::get(&url)).await), (401, "unauthorized"));
    assert_eq!(problem(&send(&routes, reading(path)).await), (404, "not_found"));
    assert_eq!(problem(&send(&routes, authorized(Request::delete(path))).await), (404, "not_found"));
}

#[tokio::test]
async fn lists_are_paged_and_filtered_by_room() {
    let files = Files::default();
    files.put("a", "text/plain", "text");
    let routes = gateway_with(&[], &files).await;
    let listed = send(&routes, reading("/api/files?limit=1&cursor=more")).await.json;
    assert_eq!((&listed["items"][0]["name"], &listed["nextCursor"]), (&json!("a"), &json!("more")));
    let of_room = send(&routes, reading(&format!("/api/files?roomId={ROOM}"))).await.json;
    assert_eq!(of_room, json!({ "items": [], "nextCursor": null }));
    for (query, field) in [("roomId=x", "roomId"), ("limit=0", "limit")] {
        let answer = send(&routes, reading(&format!("/api/files?{query}"))).await;
        assert_eq!((problem(&answer), &answer.json["errors"][0]["field"]), ((400, "invalid_request"), &json!(field)));
    }
    for path in ["/api/files/x", "/api/files/x/link"] {
        assert_eq!(problem(&send(&routes, reading(path)).await), (404, "not_found"));
    }
    assert_eq!(problem(&send(&routes, reading("/api/files/upload")).await), (405, "method_not_allowed"));
}
