//! Real files of many kinds, from any Debian system, are uploaded at one gateway and downloaded unchanged at the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use confab_tests::objects::sha256;
use reqwest::Method;
use reqwest::header::RANGE;

use super::Scene;

everywhere!(files_of_every_kind_round_trip, large_file_is_read_in_ranges);

/// A kind of file: its extension, its first bytes, and how it must be served.
struct Kind {
    extension: &'static str,
    begins: &'static [u8],
    /// The beginning of its type, if the server must detect it.
    content_type: &'static str,
    inline: bool,
}

const fn kind(extension: &'static str, begins: &'static [u8], content_type: &'static str, inline: bool) -> Kind {
    Kind { extension, begins, content_type, inline }
}

const KINDS: [Kind; 13] = [
    kind("png", b"\x89PNG\r\n\x1a\n", "image/png", true),
    kind("jpg", b"\xff\xd8\xff", "image/jpeg", true),
    kind("gif", b"GIF8", "image/gif", true),
    kind("wav", b"RIFF", "audio/", true),
    kind("ogg", b"OggS", "audio/", true),
    kind("mp3", b"ID3", "audio/mpeg", true),
    kind("pdf", b"%PDF-", "application/pdf", false),
    kind("gz", b"\x1f\x8b\x08", "application/", false),
    kind("svg", b"<", "", false),
    kind("html", b"<!DOCTYPE", "", false),
    kind("xml", b"<?xml", "", false),
    kind("py", b"#!", "", false),
    kind("txt", b"", "", false),
];

/// A file of each available kind.
static FOUND: LazyLock<Vec<(&'static Kind, PathBuf)>> = LazyLock::new(|| {
    let mut found = Vec::new();
    find(Path::new("/usr/share"), &mut found);
    found
});

fn find(directory: &Path, found: &mut Vec<(&'static Kind, PathBuf)>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path()).collect::<Vec<_>>();
    paths.sort();
    for path in paths {
        if found.len() == KINDS.len() {
            return;
        }
        if path.is_dir() && !path.is_symlink() {
            find(&path, found);
        } else if let Some(kind) =
            KINDS.iter().find(|kind| path.extension().is_some_and(|extension| extension == kind.extension))
            && found.iter().all(|(known, _)| known.extension != kind.extension)
            && path.metadata().is_ok_and(|facts| (1000..1_000_000).contains(&facts.len()))
            && fs::read(&path).is_ok_and(|bytes| bytes.starts_with(kind.begins))
        {
            found.push((kind, path));
        }
    }
}

async fn files_of_every_kind_round_trip(scene: Scene) {
    assert!(FOUND.len() >= 4, "only {} kinds of files in /usr/share", FOUND.len());
    for (kind, path) in FOUND.iter() {
        let (name, bytes) = (path.file_name().unwrap().to_str().unwrap(), fs::read(path).unwrap());
        let file = scene.one.share(&scene.account, Some(&scene.room), name, &bytes).await.unwrap();
        let content_type = file["contentType"].as_str().unwrap();
        assert!(content_type.starts_with(kind.content_type), "{}: {content_type}", path.display());
        scene.is_file(&file, Some(&scene.room), name, content_type, &bytes);

        let answer = scene.get(super::url(&file)).await;
        let begin = |name| answer.header(name).split(';').next().unwrap_or_default().to_owned();
        assert_eq!((answer.status, sha256(&answer.bytes)), (200, sha256(&bytes)), "{}", path.display());
        assert_eq!(answer.header("content-type"), content_type);
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(
            begin("content-disposition"),
            if kind.inline { "inline" } else { "attachment" },
            "{}",
            path.display()
        );
    }
    let shared = scene.history().await;
    assert_eq!(shared.len(), FOUND.len());
}

async fn large_file_is_read_in_ranges(scene: Scene) {
    // More than two parts of the object store: this very program.
    let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
    bytes.truncate(20_000_001);
    assert_eq!(bytes.len(), 20_000_001);
    let file = scene.one.share(&scene.account, None, "large", &bytes).await.unwrap();
    scene.is_file(&file, None, "large", file["contentType"].as_str().unwrap(), &bytes);
    let whole = scene.get(super::url(&file)).await;
    assert_eq!((whole.bytes.len(), sha256(&whole.bytes)), (bytes.len(), sha256(&bytes)));
    for (from, to) in [(0, 0), (8_388_600, 8_388_620), (5_000_000, 17_000_000), (20_000_000, 20_000_000)] {
        let request = scene.other.request(Method::GET, super::url(&file)).bearer_auth(&scene.account.token);
        let answer = scene.other.send(request.header(RANGE, format!("bytes={from}-{to}"))).await.unwrap();
        assert_eq!((answer.status, answer.header("content-range")), (206, &*format!("bytes {from}-{to}/20000001")));
        assert!(answer.bytes == bytes[from..=to], "{from} to {to}");
    }
}
