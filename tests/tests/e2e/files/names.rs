//! Names and types that clients invent: sanitised, returned safely, and never trusted where a browser would act on
//! them.

use confab_tests::api::Answer;
use confab_tests::form::Form;
use confab_tests::stock::{Stock, Transports, bytes};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Scene, url};

everywhere!(
    names_are_cleaned,
    names_in_forms,
    executable_content_is_an_attachment,
    claimed_executable_type_is_not_served,
);

/// Returns whether a browser displays or downloads the file, and under which name (RFC 6266: the second form takes
/// precedence).
fn disposition(answer: &Answer) -> (String, String) {
    let header = answer.header("content-disposition");
    let (kind, parameters) = header.split_once("; ").unwrap();
    let (_, encoded) = parameters.split_once("; filename*=UTF-8''").unwrap();
    assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{header}");
    let mut name = Vec::new();
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        let escaped = byte == b'%';
        name.push(if escaped {
            [(); 2]
                .iter()
                .fold(0, |value, ()| value * 16 + char::from(rest.next().unwrap()).to_digit(16).unwrap() as u8)
        } else {
            byte
        });
    }
    (kind.into(), String::from_utf8(name).unwrap())
}

impl Scene {
    async fn is_named(&self, file: &Value, name: &str) {
        assert_eq!(file["name"], name);
        let answer = self.get(url(file)).await;
        assert_eq!((answer.status, disposition(&answer)), (200, ("attachment".into(), name.into())));
        // The name injected no header.
        assert!(answer.headers.get("x-evil").is_none() && answer.headers.get("set-cookie").is_none());
    }
}

async fn names_are_cleaned(scene: Scene) {
    let stock = Stock::javascript().unwrap();
    let socket = stock.connect(&scene.one.url, &scene.account.token, Transports::WebSocket).await.unwrap();
    let long = |stem: &str, times: usize, end: &str| format!("{}{end}", stem.repeat(times));
    for (given, name) in [
        ("../../../etc/passwd", "passwd".into()),
        ("..\\..\\boot.ini", "boot.ini".into()),
        ("/", "file".into()),
        ("..", "file".into()),
        ("", "file".into()),
        ("a\r\nX-Evil: 1\r\n\r\nb.txt", "aX-Evil: 1b.txt".into()),
        ("quote\"d; filename=\"x.exe\".txt", "quote\"d; filename=\"x.exe\".txt".into()),
        ("back`tick'%41%.txt", "back`tick'%41%.txt".into()),
        ("nul\0nul.txt", "nulnul.txt".into()),
        ("\u{202e}gpj.exe\u{200f}\u{2066}", "gpj.exe".into()),
        ("\u{1b}[31m\u{7f}\u{85}bell\u{7}.txt", "[31mbell.txt".into()),
        ("Привет, 世界 🍵.txt", "Привет, 世界 🍵.txt".to_string()),
        ("<script>alert(1)</script>", "script>".into()),
        (&long("x", 4096, ".jpeg"), long("x", 250, ".jpeg")),
        (&long("茶", 2000, ".png"), long("茶", 83, ".png")),
    ] {
        let payload = json!({"roomId": scene.room, "name": given, "data": bytes(b"some text")});
        let ack = socket.emit("fileUpload", payload).await.unwrap();
        assert_eq!(ack["ok"], true, "{given:?}: {ack}");
        scene.is_named(&ack["file"], &name).await;
        assert_eq!(ack["message"]["files"][0]["name"], name);
    }
}

async fn names_in_forms(scene: Scene) {
    for (given, name) in [
        ("../../../etc/passwd", "passwd".into()),
        (r"C:\Users\ada\notes.txt", "notes.txt".into()),
        (r#"quote\"d.txt"#, "quote\"d.txt".into()),
        ("\u{202e}gpj.exe", "gpj.exe".to_string()),
        ("Привет.txt", "Привет.txt".into()),
        ("a%0d%0aX-Evil: 1", "a%0d%0aX-Evil: 1".into()),
        ("", "file".into()),
        (&format!("{}.gz", "y".repeat(4096)), format!("{}.gz", "y".repeat(252))),
    ] {
        let file = scene.one.upload(&scene.account, Form::new().file(given, "a/b", b"some text")).await.unwrap();
        scene.is_named(&file.expect(201).unwrap(), &name).await;
    }
    // No name; a name that is not UTF-8; and bytes that headers must not contain, which may also be rejected.
    let form = Form::new().part("Content-Disposition: form-data; name=\"file\"\r\n", b"some text");
    scene.is_named(&scene.one.upload(&scene.account, form).await.unwrap().expect(201).unwrap(), "file").await;
    for name in [b"\xff\xfe.txt".as_slice(), b"nul\0.txt", b"x\r\nX-Evil: 1"] {
        let headers = [b"Content-Disposition: form-data; name=\"file\"; filename=\"", name, b"\"\r\n"].concat();
        let answer = scene.one.upload(&scene.account, Form::new().part(headers, b"some text")).await.unwrap();
        match answer.status {
            201 => scene.is_named(&answer.body, answer.body["name"].as_str().unwrap()).await,
            _ => super::fails(&answer, 400, "invalid_request"),
        }
    }
}

async fn executable_content_is_an_attachment(scene: Scene) {
    let png = b"\x89PNG\r\n\x1a\n".as_slice();
    for (text, name, claim) in [
        ("<!DOCTYPE html><script>alert(1)</script>", "a.png", "image/png"),
        ("<html><body onload=alert(1)>", "a.html", "text/html"),
        ("<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>", "a.svg", "image/svg+xml"),
        ("<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>", "b.png", "image/png"),
        ("<?xml version=\"1.0\"?><?xml-stylesheet type=\"text/xsl\" href=\"x\"?><a/>", "a.png", "image/png"),
        ("<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>", "c.gif", "image/gif"),
        ("alert(document.cookie)", "a.png", "application/javascript"),
        ("alert(document.cookie)", "b.png", "image/png"),
        ("%PDF-1.7 /JavaScript", "a.jpg", "image/jpeg"),
        ("\u{feff}<html>", "d.png", "image/png"),
        ("   \n<HTML>", "e.mp4", "video/mp4"),
        ("text", "f.png", "image/png\r\nX-Evil: 1"),
        ("text", "g.png", "not a type"),
    ] {
        let form = Form::new().file(name, claim, text.as_bytes());
        let file = scene.one.upload(&scene.account, form).await.unwrap().expect(201).unwrap();
        let answer = scene.get(url(&file)).await;
        assert_eq!(disposition(&answer), ("attachment".into(), name.into()), "{text}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-site");
        assert!(answer.headers.get("x-evil").is_none());
    }
    // A file with a picture's bytes is a picture under every name, and may be displayed.
    let file = scene
        .one
        .upload(&scene.account, Form::new().file("a.html", "text/html", png))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let answer = scene.get(url(&file)).await;
    assert_eq!(
        (disposition(&answer), answer.header("content-type")),
        (("inline".into(), "a.html".into()), "image/png")
    );
}

async fn claimed_executable_type_is_not_served(scene: Scene) {
    for (claim, served) in [
        ("text/html", "application/octet-stream"),
        ("Text/CSS; charset=utf-8", "application/octet-stream"),
        ("text/javascript", "application/octet-stream"),
        ("application/x-JavaScript", "application/octet-stream"),
        ("text/csv", "text/csv"),
    ] {
        let file =
            scene.one.upload(&scene.account, Form::new().file("a", claim, b"a,b")).await.unwrap().expect(201).unwrap();
        assert_eq!(file["contentType"], claim.to_lowercase());
        let link = scene.one.get(&format!("{}/link", url(&file)), &scene.account).await.unwrap().expect(200).unwrap();
        let by_link = scene.other.call(Method::GET, link["url"].as_str().unwrap(), None, None).await.unwrap();
        let head = scene.one.request(Method::HEAD, url(&file)).bearer_auth(&scene.account.token);
        let answers = [
            (scene.get(url(&file)).await, "same-site"),
            (scene.one.send(head).await.unwrap(), "same-site"),
            (by_link, "cross-origin"),
        ];
        for (answer, pages) in answers {
            assert_eq!((answer.status, answer.header("content-type")), (200, served), "{claim}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert_eq!(answer.header("cross-origin-resource-policy"), pages);
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
        }
    }
}
