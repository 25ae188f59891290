//! Malformed uploads: the documented error, nothing stored, and the next upload works.

use confab_tests::api::Answer;
use confab_tests::form::{BOUNDARY, Form, content_type, file_headers};
use confab_tests::raw::Http;
use serde_json::json;

use super::{Scene, fails};

everywhere!(forms_with_faults, bodies_that_lie, unauthorized_upload_is_rejected_before_the_content);

const LINE: &str = "POST /api/files/upload";

impl Scene {
    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.account.token)
    }

    /// Returns the beginning of a form with a file for the room, up to these bytes.
    fn beginning(&self, bytes: &[u8]) -> Vec<u8> {
        let whole =
            Form::new().field("roomId", &self.room).part(file_headers("a.txt", "text/plain"), bytes).into_open_body();
        // Without the line that would end the part.
        whole[..whole.len() - 2].to_vec()
    }

    /// Sends an unmodified body with this content type.
    async fn post_raw(&self, content_type: &str, body: Vec<u8>) -> Answer {
        let request = self.one.request(reqwest::Method::POST, "/api/files/upload").bearer_auth(&self.account.token);
        self.one.send(request.header("content-type", content_type).body(body)).await.unwrap()
    }

    async fn begin(&self, headers: &str) -> Http {
        let headers = format!("{}Content-Type: {}\r\n{headers}", self.authorization(), content_type());
        Http::begin(&self.one.url, LINE, &headers).await.unwrap()
    }

    /// Checks that nothing was stored or announced, and that uploads still work.
    async fn is_unharmed(&self) {
        let kept = self.get("/api/files").await.expect(200).unwrap();
        assert_eq!((&kept["items"], self.history().await.len()), (&json!([]), 0));
        let file = self.file(Some(&self.room)).await;
        assert_eq!(self.get(super::url(&file)).await.status, 200);
    }
}

async fn forms_with_faults(scene: Scene) {
    let form = || Form::new().file("a.txt", "text/plain", b"a");
    let nameless = |headers: &str| Form::new().part(headers, b"x").file("a.txt", "text/plain", b"a");
    let many = |count: usize| (0..count).fold(Form::new(), |form, n| form.field(&format!("field{n}"), ""));
    let cases = [
        ("no file", Form::new().field("roomId", &scene.room)),
        ("no part", Form::new()),
        ("two files", form().file("b.txt", "text/plain", b"b")),
        ("two rooms", form().field("roomId", &scene.room).field("roomId", &scene.room)),
        ("two names", form().field("clientMessageId", "a").field("clientMessageId", "a")),
        ("a room that is none", form().field("roomId", "nonsense")),
        ("an empty room", Form::new().field("roomId", "").file("a.txt", "text/plain", b"a")),
        ("no UTF-8", form().part("Content-Disposition: form-data; name=\"clientMessageId\"\r\n", b"\xff\xfe")),
        ("an empty name", form().field("clientMessageId", "")),
        ("a long name", form().field("clientMessageId", &"x".repeat(129))),
        ("a name with NUL", form().field("clientMessageId", "a\0b")),
        ("a long field", form().field("unknown", &"x".repeat(5000))),
        ("ten thousand parts", many(10_000)),
        ("ten thousand parts and a file", many(10_000).file("a.txt", "text/plain", b"a")),
        ("a part without headers", nameless("")),
        ("a part without a name", nameless("Content-Disposition: form-data\r\n")),
        ("a part whose headers are none", nameless("x\r\n")),
        ("a header without end", Form::new().part(file_headers(&"x".repeat(200_000), "text/plain"), b"a")),
        ("a hundred thousand headers", Form::new().part("X-A: b\r\n".repeat(100_000), b"a")),
    ];
    for (what, form) in cases {
        let answer = scene.one.upload(&scene.account, form).await.unwrap();
        assert_eq!((answer.status, answer.code()), (400, "invalid_request"), "{what}: {}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    }
    let body = form().into_body();
    for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"] {
        fails(&scene.post_raw(kind, body.clone()).await, 400, "invalid_request");
    }
    fails(
        &scene.post_raw(&format!("multipart/form-data; boundary={}", "x".repeat(5000)), body.clone()).await,
        400,
        "invalid_request",
    );
    for kind in ["text/plain", "multipart/mixed; boundary=x", "application/json", ""] {
        fails(&scene.post_raw(kind, body.clone()).await, 415, "unsupported_media_type");
    }
    for cut in [0, 1, 20, body.len() / 2, body.len() - BOUNDARY.len(), body.len() - 6] {
        fails(&scene.post_raw(&content_type(), body[..cut].to_vec()).await, 400, "invalid_request");
    }
    fails(&scene.post_raw(&content_type(), vec![b'x'; 300_000]).await, 400, "invalid_request");
    let unknown = uuid::Uuid::now_v7().to_string();
    for form in [Form::new().field("roomId", &unknown).file("a", "text/plain", b"a"), form().field("roomId", &unknown)]
    {
        fails(&scene.one.upload(&scene.account, form).await.unwrap(), 404, "not_found");
    }
    fails(&scene.one.get("/api/files/upload", &scene.account).await.unwrap(), 405, "method_not_allowed");
    scene.is_unharmed().await;
}

async fn bodies_that_lie(scene: Scene) {
    let (start, rest) = (scene.beginning(b"some text"), format!("\r\n--{BOUNDARY}--\r\n"));
    // Fewer bytes than declared, and then no more.
    let mut short = scene.begin(&format!("Content-Length: {}\r\n", start.len() + 10_000)).await;
    short.write(&start).await.unwrap();
    short.write(rest.as_bytes()).await.unwrap();
    short.finish().await.unwrap();
    // The form is complete, although the body is not: both answers are acceptable, but never a hang.
    let answer = short.answer().await.unwrap();
    assert!([201, 400].contains(&answer.status), "{} {}", answer.status, answer.body);
    let taken = answer.status == 201;

    // More bytes than declared: the form ends early, where the body ends.
    let mut long = scene.begin(&format!("Content-Length: {}\r\n", start.len() - 4)).await;
    long.write(&start).await.unwrap();
    long.write(rest.as_bytes()).await.unwrap();
    fails(&long.answer().await.unwrap(), 400, "invalid_request");

    // Neither a length nor an end.
    let mut broken = scene.begin("Transfer-Encoding: chunked\r\n").await;
    broken.write(&chunk(&start)).await.unwrap();
    broken.finish().await.unwrap();
    fails(&broken.answer().await.unwrap(), 400, "invalid_request");

    // Malformed chunks.
    let mut nonsense = scene.begin("Transfer-Encoding: chunked\r\n").await;
    nonsense.write(&chunk(&start)).await.unwrap();
    nonsense.write(b"nonsense\r\n").await.unwrap();
    fails(&nonsense.answer().await.unwrap(), 400, "invalid_request");

    // A client that disconnects midway has uploaded nothing.
    let mut gone = scene.begin("Content-Length: 1000000\r\n").await;
    gone.write(&start).await.unwrap();
    drop(gone);
    if taken {
        let file = scene.history().await[0]["files"][0].clone();
        assert_eq!(scene.get(super::url(&file)).await.bytes, b"some text");
        return assert_eq!(scene.history().await.len(), 1);
    }
    scene.is_unharmed().await;
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

async fn unauthorized_upload_is_rejected_before_the_content(scene: Scene) {
    let stranger = "Authorization: Bearer nonsense\r\n";
    for (headers, body, status, code) in [
        (String::new(), vec![], 401, "unauthorized"),
        (stranger.into(), vec![], 401, "unauthorized"),
        (format!("{}Content-Type: text/plain\r\n", scene.authorization()), vec![], 415, "unsupported_media_type"),
        (
            format!("{}Content-Type: {}\r\n", scene.authorization(), content_type()),
            Form::new()
                .field("roomId", &uuid::Uuid::now_v7().to_string())
                .part(file_headers("a", "a/b"), b"")
                .into_open_body(),
            404,
            "not_found",
        ),
    ] {
        // One megabyte is declared and never arrives.
        let mut request =
            Http::begin(&scene.one.url, LINE, &format!("{headers}Content-Length: 1000000\r\n")).await.unwrap();
        request.write(&body).await.unwrap();
        fails(&request.answer().await.unwrap(), status, code);
    }
    scene.is_unharmed().await;
}
