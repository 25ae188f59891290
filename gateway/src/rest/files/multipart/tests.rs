use std::convert::Infallible;

use axum::body::Body;
use axum::http::request;
use futures::{StreamExt, stream};

use super::*;

fn request(body: Body) -> Request {
    request::Builder::new().header(CONTENT_TYPE, "multipart/form-data; boundary=XX").body(body).unwrap()
}

/// A form that arrives in pieces of `piece` bytes, all available at once.
fn form(text: &str, piece: usize) -> Form {
    let pieces = text
        .as_bytes()
        .chunks(piece)
        .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
        .collect::<Vec<_>>();
    Form::of(request(Body::from_stream(stream::iter(pieces)))).unwrap()
}

/// A form that begins with `begin` and repeats `more` without end.
fn endless(begin: &str, more: &'static str) -> Form {
    let begin = stream::iter([Ok::<_, Infallible>(Bytes::copy_from_slice(begin.as_bytes()))]);
    Form::of(request(Body::from_stream(begin.chain(stream::repeat_with(|| Ok(Bytes::from_static(more.as_bytes())))))))
        .unwrap()
}

fn part(name: &str, content: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
}

fn file(content: &str) -> String {
    format!(
        "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n{content}\r\n"
    )
}

/// Reads the names and contents of all parts.
async fn read(mut form: Form) -> Result<Vec<(String, String)>> {
    let mut parts = Vec::new();
    while let Some(mut part) = form.next().await? {
        let name = part.name().to_owned();
        if name == FILE {
            assert_eq!((part.file_name().as_str(), part.content_type().as_str()), ("a.txt", "text/plain"));
            let mut bytes = Vec::new();
            while let Some(chunk) = part.chunk().await? {
                bytes.extend_from_slice(&chunk);
            }
            parts.push((name, String::from_utf8(bytes).unwrap()));
        } else {
            parts.push((name, part.text().await?));
        }
    }
    Ok(parts)
}

async fn refused(form: Form) -> String {
    refused_as(Code::InvalidRequest, form).await
}

async fn refused_as(code: Code, form: Form) -> String {
    let error = read(form).await.unwrap_err();
    assert_eq!(error.code, code);
    error.detail
}

#[tokio::test]
async fn forms_are_parsed_in_pieces_of_any_size() {
    let content = "\r\n--X\r\n--XY\r--XX\n".repeat(20_000);
    let text = [
        "preamble\r\n",
        &part("a", "1"),
        &part("b", ""),
        &part("ü", "x"),
        &file(&content),
        &part("c", "2"),
        "--XX--\r\nepilogue",
    ]
    .concat();
    let expected = [("a", "1"), ("b", ""), ("ü", "x"), ("file", &*content), ("c", "2")];
    for piece in [11, 4096, 100_000, text.len()] {
        let parts = read(form(&text, piece)).await.unwrap();
        assert!(parts.iter().map(|(name, content)| (name.as_str(), content.as_str())).eq(expected), "{piece}");
    }
}

#[tokio::test]
async fn endless_forms_are_rejected() {
    assert!(refused(endless("", "preamble ")).await.contains("too many bytes besides"));
    assert!(
        refused(endless("--XX\r\nContent-Disposition: form-data; name=\"", "xxxxxxxx"))
            .await
            .contains("too many bytes besides")
    );
    assert!(refused(endless("--XX\r\n", "X-More: header\r\n")).await.contains("too many bytes besides"));
    assert!(refused(endless("--XX", "        ")).await.len() > 1);
    let many = "--XX\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n";
    assert_eq!(refused(form(&many.repeat(10_000), 1000)).await, "a form must have at most 20 parts");
    assert_eq!(
        refused(endless(&part("roomId", "").replace("\r\n\r\n\r\n", "\r\n\r\n"), "xxxxxxxx")).await,
        "roomId must be at most 1024 bytes"
    );
}

#[tokio::test]
async fn fields_are_bounded_utf8_text() {
    assert_eq!(read(form(&format!("{}--XX--", part("x", &"x".repeat(1024))), 99)).await.unwrap()[0].1.len(), 1024);
    assert_eq!(
        refused(form(&format!("{}--XX--", part("x", &"x".repeat(1025))), 99)).await,
        "x must be at most 1024 bytes"
    );
    let mut bytes = format!("{}--XX--", part("x", "?")).into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert_eq!(refused(Form::of(request(Body::from(bytes))).unwrap()).await, "x must be UTF-8");
}

#[tokio::test]
async fn malformed_forms_are_rejected() {
    let whole = format!("{}{}", part("a", "1"), file("content"));
    for end in 1..whole.len() {
        assert!(read(form(&whole[..end], 50)).await.is_err(), "{end}");
    }
    assert_eq!(refused(form(&file("content"), 50)).await, "file ended early");
    for bad in [
        "",
        "--XX-",
        "--XXX\r\n",
        "--XX\r\nno header\r\n\r\n",
        "--XX\r\n\r\nnameless\r\n--XX--",
        "--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n--XX--",
    ] {
        assert!(read(form(bad, 50)).await.is_err(), "{bad}");
    }
    let broken = stream::iter([Ok(Bytes::from_static(b"--XX\r\n")), Err("reset")]);
    assert_eq!(refused(Form::of(request(Body::from_stream(broken))).unwrap()).await, "the body ended early");

    let code = |kind: &str| {
        Form::of(request::Builder::new().header(CONTENT_TYPE, kind).body(Body::empty()).unwrap()).err().map(|e| e.code)
    };
    for kind in ["application/json", "multipart/mixed; boundary=XX", "", "multipart/form-datax; boundary=XX"] {
        assert_eq!(code(kind), Some(Code::UnsupportedMediaType), "{kind}");
    }
    let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\"", &long] {
        assert_eq!(code(kind), Some(Code::InvalidRequest), "{kind}");
    }
    assert_eq!(code("Multipart/Form-Data; charset=utf-8; boundary=\"a b\""), None);
}

#[tokio::test]
async fn parts_are_read_one_at_a_time() {
    let read_of = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = read_of.clone();
    let begin = stream::iter([Ok::<_, Infallible>(Bytes::from(file("")[..file("").len() - 2].to_owned()))]);
    let body = Body::from_stream(begin.chain(stream::repeat_with(move || {
        counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Bytes::from_static(&[b'x'; 4096]))
    })));
    let mut form = Form::of(request(body)).unwrap();
    let mut file = form.next().await.unwrap().unwrap();
    for chunk in 1..1000 {
        assert!(!file.chunk().await.unwrap().unwrap().is_empty());
        assert!(read_of.load(std::sync::atomic::Ordering::Relaxed) <= chunk + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_and_slow_uploads_time_out() {
    async fn arriving(pause: Duration, piece: &'static str) -> (String, Duration) {
        let more = stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())), ()))
        });
        let begin = stream::iter([Ok(Bytes::from(file("").trim_end_matches("\r\n\r\n").to_owned() + "\r\n\r\n"))]);
        let started = tokio::time::Instant::now();
        let form = Form::of(request(Body::from_stream(begin.chain(more)))).unwrap();
        let refused = tokio::time::timeout(Duration::from_secs(3000), refused_as(Code::TooSlow, form))
            .await
            .unwrap_or("goes on".into());
        (refused, started.elapsed())
    }
    use std::time::Duration;
    // Leaked: they live as long as the test.
    let text = |length| &*String::from_utf8(vec![b'x'; length]).unwrap().leak();
    let (silent, after) = arriving(Duration::from_secs(3600), "x").await;
    assert_eq!((silent.as_str(), after.as_secs()), ("the body did not arrive in time", 30));
    let (drip, after) = arriving(Duration::from_secs(1), "x").await;
    assert_eq!((drip.as_str(), after.as_secs()), ("the body did not arrive in time", 30));
    // The required pace rises with the duration of the upload.
    let (slow, after) = arriving(Duration::from_secs(1), text(1100)).await;
    assert_eq!((slow.as_str(), after.as_secs()), ("the body did not arrive in time", 150));
    assert_eq!(arriving(Duration::from_secs(1), text(20_000)).await.0, "goes on");
}
