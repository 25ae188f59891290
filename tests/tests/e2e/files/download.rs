//! Downloads: their headers, ranges and conditions.

use confab_tests::api::Answer;
use reqwest::Method;
use serde_json::Value;

use super::{Scene, fails, url};

everywhere!(headers, ranges, conditions, range_with_a_condition);

const TEXT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

impl Scene {
    async fn text(&self) -> Value {
        self.one.share(&self.account, Some(&self.room), "text.txt", TEXT).await.unwrap()
    }

    /// Sends a request with these headers to the other end.
    async fn ask(&self, method: Method, file: &Value, headers: &[(&str, &str)]) -> Answer {
        let request = self.other.request(method, url(file)).bearer_auth(&self.account.token);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.other.send(request).await.unwrap()
    }

    async fn range(&self, file: &Value, range: &str) -> Answer {
        self.ask(Method::GET, file, &[("range", range)]).await
    }
}

fn etag(file: &Value) -> String {
    format!("\"{}\"", file["sha256"].as_str().unwrap())
}

async fn headers(scene: Scene) {
    let file = scene.text().await;
    let got = scene.ask(Method::GET, &file, &[]).await;
    assert_eq!((got.status, &*got.bytes), (200, TEXT));
    let of = |answer: &Answer| {
        ["content-type", "content-length", "etag", "accept-ranges", "last-modified", "content-disposition"]
            .map(|name| answer.header(name).to_owned())
    };
    let [content_type, length, tag, ranges, modified, disposition] = of(&got);
    assert_eq!((content_type, length, tag), ("application/octet-stream".into(), "36".into(), etag(&file)));
    assert_eq!((&*ranges, &*disposition), ("bytes", "attachment; filename=\"text.txt\"; filename*=UTF-8''text.txt"));
    // The time of the upload in HTTP's format: createdAt without milliseconds.
    let modified = jiff::fmt::rfc2822::parse(&modified).unwrap().timestamp();
    let created: jiff::Timestamp = file["createdAt"].as_str().unwrap().parse().unwrap();
    assert_eq!(modified.as_second(), created.as_second());
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert_eq!(got.header("content-security-policy"), "sandbox; default-src 'none'");

    let head = scene.ask(Method::HEAD, &file, &[]).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    assert_eq!(of(&head), of(&got));
}

async fn ranges(scene: Scene) {
    let file = scene.text().await;
    for (range, from, to) in [
        ("bytes=0-0", 0, 0),
        ("bytes=3-9", 3, 9),
        ("bytes=30-", 30, 35),
        ("bytes=-6", 30, 35),
        ("bytes=-1000", 0, 35),
        ("bytes=35-1000000", 35, 35),
        ("bytes=0-", 0, 35),
    ] {
        let answer = scene.range(&file, range).await;
        assert_eq!(
            (answer.status, answer.header("content-range")),
            (206, &*format!("bytes {from}-{to}/36")),
            "{range}"
        );
        assert_eq!(answer.bytes, TEXT[from..=to], "{range}");
        assert_eq!(
            (answer.header("content-length"), answer.header("etag")),
            (&*(to - from + 1).to_string(), &*etag(&file))
        );
    }
    for range in ["bytes=36-", "bytes=36-40", "bytes=-0", "bytes=99999999999999999999-"] {
        let answer = scene.range(&file, range).await;
        fails(&answer, 416, "range_not_satisfiable");
        assert_eq!(answer.header("content-range"), "bytes */36");
    }
    // Malformed and unsupported ranges are ignored (RFC 9110, section 14.2).
    for range in ["bytes=9-3", "bytes=a-b", "bytes=-", "bytes=", "bytes", "lines=1-2", "bytes=0-1,5-6"] {
        let answer = scene.range(&file, range).await;
        assert_eq!((answer.status, &*answer.bytes), (200, TEXT), "{range}");
    }
    let empty = scene.one.share(&scene.account, None, "empty", b"").await.unwrap();
    fails(&scene.range(&empty, "bytes=0-").await, 416, "range_not_satisfiable");
}

async fn conditions(scene: Scene) {
    let file = scene.text().await;
    let (tag, modified) = (etag(&file), scene.ask(Method::HEAD, &file, &[]).await.header("last-modified").to_owned());
    let (weak, listed) = (format!("W/{tag}"), format!("\"other\", {tag}"));
    let before = "Sat, 01 Jan 2000 00:00:00 GMT";
    for method in [Method::GET, Method::HEAD] {
        for headers in [
            [("if-none-match", &*tag)].as_slice(),
            &[("if-none-match", &weak)],
            &[("if-none-match", &listed)],
            &[("if-none-match", "*")],
            &[("if-modified-since", &modified)],
            // The tag takes precedence over the time (RFC 9110, section 13.2.2).
            &[("if-none-match", &tag), ("if-modified-since", before)],
            // A condition that saves the bytes takes precedence over a range.
            &[("if-none-match", &tag), ("range", "bytes=0-1")],
        ] {
            let answer = scene.ask(method.clone(), &file, headers).await;
            assert_eq!((answer.status, answer.bytes.len(), answer.header("etag")), (304, 0, &*tag), "{headers:?}");
        }
        for headers in [
            [("if-none-match", "\"other\"")].as_slice(),
            &[("if-modified-since", before)],
            &[("if-modified-since", "yesterday")],
            &[("if-none-match", "\"other\""), ("if-modified-since", &modified)],
        ] {
            let answer = scene.ask(method.clone(), &file, headers).await;
            assert_eq!((answer.status, answer.header("content-length")), (200, "36"), "{headers:?}");
        }
    }
}

async fn range_with_a_condition(scene: Scene) {
    let file = scene.text().await;
    let (tag, modified) = (etag(&file), scene.ask(Method::HEAD, &file, &[]).await.header("last-modified").to_owned());
    for (condition, status) in [
        (&*tag, 206),
        ("\"other\"", 200),
        // Only a strong tag states that two representations are byte for byte the same.
        (&format!("W/{tag}"), 200),
        (&*modified, 206),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 200),
        ("nonsense", 200),
    ] {
        let answer = scene.ask(Method::GET, &file, &[("range", "bytes=0-3"), ("if-range", condition)]).await;
        assert_eq!(answer.status, status, "{condition}");
        assert_eq!(answer.bytes, if status == 206 { &TEXT[..4] } else { TEXT });
    }
}
