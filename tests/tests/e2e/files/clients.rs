//! Uploads by common libraries, and byte for byte as other clients write them: names and types arrive as intended.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use confab_tests::form::BOUNDARY;
use confab_tests::uploads::{Given, Program};
use reqwest::Method;
use serde_json::Value;

use super::{Scene, url};

everywhere!(libraries_of_javascript, libraries_of_python, react_native, dotnet_and_powershell);

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF\0";
const PDF: &[u8] = b"%PDF-1.7\n";
const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\0\0";
/// The head of a WebM file.
const WEBM: &[u8] =
    b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm\x42\x87\x81\x04\x42\x85\x81\x02";
const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

const NAMES: [&str; 13] = [
    "my report (final).pdf",
    "IMG 0001.jpg",
    "Grüße & Tee.txt",
    "茶 🍵.png",
    "плюс+плюс.txt",
    "50% off.txt",
    "100%.txt",
    "quote\"d.txt",
    "semi;colon=x.txt",
    "it's.txt",
    "tilde~(1)!*.txt",
    "no extension",
    ".hidden",
];

/// Bytes, the type that a client claims, and the intended type.
const TYPES: [(&[u8], &str, &str); 8] = [
    (b"a,b", "text/csv", "text/csv"),
    (b"text", "text/plain; charset=utf-8", "text/plain; charset=utf-8"),
    (b"{}", "application/json", "application/json"),
    (ZIP, DOCX, DOCX),
    (WEBM, "audio/webm", "audio/webm"),
    (WEBM, "video/webm", "video/webm"),
    (PNG, "application/octet-stream", "image/png"),
    (PNG, "", "image/png"),
];

async fn libraries(scene: &Scene, program: Program, libraries: &[&str]) {
    let text = NAMES.map(|name| format!("the text of {name}"));
    for by in libraries {
        let named = NAMES.iter().zip(&text).map(|(name, text)| Given {
            by,
            name,
            content_type: "text/plain",
            bytes: text.as_bytes(),
        });
        let typed = TYPES.iter().map(|(bytes, content_type, _)| Given { by, name: "typed", content_type, bytes });
        let given = named.chain(typed).collect::<Vec<_>>();
        let answers = program.upload(&scene.one, &scene.account, &scene.room, &given).await.unwrap();
        assert_eq!(answers.len(), given.len(), "{by}");
        let meant = NAMES.iter().map(|_| "text/plain").chain(TYPES.iter().map(|(.., meant)| *meant));
        for ((answer, given), meant) in answers.iter().zip(&given).zip(meant) {
            assert_eq!(answer["status"], 201, "{by}: {given:?} {answer}");
            scene.is_file(&answer["body"], Some(&scene.room), given.name, meant, given.bytes);
            assert_eq!(scene.get(url(&answer["body"])).await.bytes, given.bytes, "{by}: {given:?}");
        }
    }
}

async fn libraries_of_javascript(scene: Scene) {
    libraries(&scene, Program::JavaScript, &["axios", "axios and form-data", "axios and a stream", "fetch"]).await;
}

async fn libraries_of_python(scene: Scene) {
    let ways = ["aiohttp", "aiohttp unquoted", "aiohttp and a stream", "aiohttp and an open file"];
    libraries(&scene, Program::Python, &ways).await;
}

impl Scene {
    /// Uploads a form of these parts, each with its head and its bytes; returns the file object.
    async fn send_parts(&self, content_type: &str, parts: &[(String, &[u8])]) -> Value {
        let part = |(head, bytes): &(String, &[u8])| {
            [format!("--{BOUNDARY}\r\n{head}\r\n").as_bytes(), *bytes, b"\r\n"].concat()
        };
        let body =
            [parts.iter().flat_map(part).collect::<Vec<_>>(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat();
        let request = self.one.request(Method::POST, "/api/files/upload").bearer_auth(&self.account.token);
        self.one.send(request.header("content-type", content_type).body(body)).await.unwrap().expect(201).unwrap()
    }
}

async fn react_native(scene: Scene) {
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    for (parameters, name) in [
        // From 0.76 on.
        (r#"filename="IMG%200001.jpg""#, "IMG 0001.jpg"),
        (r#"filename="%E8%8C%B6%20(1).jpg""#, "茶 (1).jpg"),
        // Earlier versions, which omit characters that they cannot write.
        (r#"filename=" (1).jpg"; filename*=utf-8''%E8%8C%B6%20%281%29.jpg"#, "茶 (1).jpg"),
        (r#"filename="IMG_0001.jpg"; filename*=utf-8''IMG_0001.jpg"#, "IMG_0001.jpg"),
    ] {
        let room =
            ("content-disposition: form-data; name=\"roomId\"\r\ncontent-length: 36\r\n".into(), scene.room.as_bytes());
        let head = format!(
            "content-disposition: form-data; name=\"file\"; {parameters}\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n",
            JPEG.len()
        );
        let file = scene.send_parts(&content_type, &[room, (head, JPEG)]).await;
        scene.is_file(&file, Some(&scene.room), name, "image/jpeg", JPEG);
    }
}

async fn dotnet_and_powershell(scene: Scene) {
    let content_type = format!("multipart/form-data; boundary=\"{BOUNDARY}\"");
    let word = |name: &str| format!("\"=?utf-8?B?{}?=\"", BASE64_STANDARD.encode(name));
    let cut = "ÿÿ report.pdf";
    assert!(word(cut).contains('/'));
    for (parameters, name) in [
        ("filename=report.pdf; filename*=utf-8''report.pdf".into(), "report.pdf"),
        ("filename=\"my report.pdf\"; filename*=utf-8''my%20report.pdf".into(), "my report.pdf"),
        (format!("filename={}; filename*=utf-8''%E8%8C%B6%20report.pdf", word("茶 report.pdf")), "茶 report.pdf"),
        (format!("filename={}", word("Отчёт.pdf")), "Отчёт.pdf"),
        (format!("filename={}", word(cut)), cut),
    ] {
        let room = (
            "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=roomId\r\n".into(),
            scene.room.as_bytes(),
        );
        let head =
            format!("Content-Type: application/pdf\r\nContent-Disposition: form-data; name=file; {parameters}\r\n");
        let file = scene.send_parts(&content_type, &[room, (head, PDF)]).await;
        scene.is_file(&file, Some(&scene.room), name, "application/pdf", PDF);
    }
}
