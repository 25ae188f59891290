use super::*;

fn of(head: &[u8], claim: &str) -> (String, bool) {
    let Media { content_type, safe_inline } = Media::of(head, claim);
    (content_type, safe_inline)
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
const WEBM: &[u8] = &{
    let begin = *b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webmB\x87\x81\x04";
    let mut head = [0; 300];
    head.split_at_mut(begin.len()).0.copy_from_slice(&begin);
    head
};
const MP4: &[u8] = b"\0\0\0\x24ftypisom\0\0\x02\0isomiso6iso2vp09mp41";
const OGG: &[u8] = b"OggS\0\x02\0\0\0\0\0\0\0\0\x31\x2f\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x01";
const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0\0\0!\0";
const OLE: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

#[test]
fn pictures_audio_and_video_are_shown_inline() {
    for (head, media) in [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"GIF89a\x01\0\x01\0", "image/gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        (b"BM\x46\0\0\0\0\0\0\0", "image/bmp"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "image/avif"),
        (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0", "audio/wav"),
        (b"ID3\x04\0\0\0\0\0\x23TSSE", "audio/mpeg"),
        (b"\xff\xfb\x90\0\0\0", "audio/mpeg"),
        (b"fLaC\0\0\0\x22", "audio/flac"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "audio/mp4"),
        (OGG, "audio/ogg"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video/mp4"),
        (WEBM, "video/webm"),
    ] {
        assert_eq!(of(head, "text/plain"), (media.into(), true));
        assert_eq!(of(head, ""), (media.into(), true));
    }
}

#[test]
fn types_that_could_contain_a_script_are_not_inline() {
    for head in [
        &b"<html><script>alert(1)</script>"[..],
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script/></svg>",
        b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>",
        b"%PDF-1.7",
        b"plain text",
        b"",
    ] {
        for claim in ["image/png", "video/mp4", "text/html", ""] {
            assert!(!of(head, claim).1, "{head:?} {claim}");
        }
    }
    assert_eq!(of(b"%PDF-1.7", "image/png").0, "application/pdf");
}

#[test]
fn claim_of_the_same_family_is_used() {
    let xml = b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>";
    for (head, claims) in [
        (WEBM, &["audio/webm", "video/webm", "video/matroska"][..]),
        (MP4, &["audio/mp4", "video/mp4", "video/3gpp"]),
        (OGG, &["audio/ogg", "video/ogg", "application/ogg"]),
        (xml, &["image/svg+xml", "application/xml", "text/xml", "application/rss+xml", "text/plain"]),
        (b"<!-- drawn by hand --><svg/>", &["image/svg+xml", "text/html", "text/markdown"]),
        (b"<p align=center>\n# A project", &["text/markdown", "text/plain"]),
        (b"#!/usr/bin/env node\n", &["application/javascript", "text/plain", "text/x-python", "application/x-sh"]),
        (b"{\\rtf1 hello}", &["text/rtf", "application/rtf"]),
        (b"%PDF-1.7 begins every document", &["text/plain", "application/pdf"]),
        (
            ZIP,
            &[
                "application/zip",
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                "application/vnd.ms-word.document.macroenabled.12",
                "application/vnd.oasis.opendocument.graphics",
                "application/vnd.android.package-archive",
                "application/java-archive",
                "application/epub+zip",
                "model/vnd.usdz+zip",
            ],
        ),
        (OLE, &["application/msword", "application/vnd.ms-excel", "application/vnd.ms-outlook"]),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", &["image/heic", "image/heif"]),
        (b"wOF2\0\x01\0\0", &["font/woff2"]),
    ] {
        for claim in claims {
            assert_eq!(of(head, claim).0, *claim, "{}", head.escape_ascii());
        }
    }
}

#[test]
fn claim_of_another_family_is_ignored() {
    for (head, claims, media) in [
        (WEBM, &["audio/mp4", "video/ogg", "image/webp", "text/html", "application/octet-stream"][..], "video/webm"),
        (MP4, &["audio/webm", "audio/mpeg", "application/mp4"], "video/mp4"),
        (
            ZIP,
            &["application/pdf", "application/gzip", "image/svg+xml", "application/vnd.apple.installer+xml"],
            "application/zip",
        ),
        (PNG, &["image/jpeg", "image/svg+xml", "audio/mpeg"], "image/png"),
        (b"<?xml version=\"1.0\"?><a/>", &["image/png", "video/mp4", "application/pdf"], "text/xml"),
        (b"%PDF-1.7\n\x01\x02", &["text/plain", "text/html"], "application/pdf"),
        (b"wOFF\0\x01\0\0", &["application/font-woff", "application/octet-stream"], "font/woff"),
    ] {
        for claim in claims {
            assert_eq!(of(head, claim).0, media, "{} {claim}", head.escape_ascii());
        }
    }
}

#[test]
fn texts_that_look_like_a_signature_are_texts() {
    for text in [
        "GIF is pronounced with a soft g",
        "GIF89a is a format, GIF87a another",
        "ID3 tags",
        "OggS begins each page",
        "MZ are the initials of Mark Zbikowski",
        "BZh9 and what follows",
        "SQLite is small",
        "BMI is 22.5",
        "FLV, RIFF, fLaC: containers",
        "8BPS, MThd, FORM",
        "PK is a name",
        "RIFF1234WAVE",
        "M4A is a file extension",
        "#!AMR\nnarrow band",
        "!<arch>\ndebian-binary   1342943816  0     0     100644  4         `",
        "GIF à la carte, ÿ",
        &format!("GIF{}ustar", " ".repeat(254)),
    ] {
        assert_eq!(of(text.as_bytes(), "text/plain"), ("text/plain".into(), false), "{text}");
        let latin: Vec<_> = text.chars().map(|c| c as u8).collect();
        assert_eq!(of(&latin, "text/plain"), ("text/plain".into(), false), "{text}");
    }
    for near in [&b"GIF is \0 bytes"[..], b"OggS\x01\x02", b"ID3 \x01", b"SQLite is\0"] {
        assert!(!of(near, "text/plain").1, "{near:?}");
    }
}

#[test]
fn printable_signatures_need_their_binary_bytes() {
    let deb = format!(
        "!<arch>\ndebian-binary   1342943816  0     0     100644  4         `\n2.0\n{:60}\x1f\u{8b}",
        "control.tar.gz"
    );
    for (head, media) in [
        (&b"MZ\x90\0\x03\0\0\0"[..], "application/vnd.microsoft.portable-executable"),
        (b"BZh91AY&SY\x0b\xed\x01", "application/x-bzip2"),
        (b"SQLite format 3\0\x10\0", "application/vnd.sqlite3"),
        (deb.as_bytes(), "application/vnd.debian.binary-package"),
        (b"#!AMR\n\x3c\x08\x54\xfd\x1f\xb6", "audio/amr"),
    ] {
        assert_eq!(of(head, "text/plain").0, media);
    }
}

#[test]
fn audio_and_video_have_their_registered_names() {
    for (claim, written) in [
        ("audio/m4a", "audio/mp4"),
        ("audio/x-m4a", "audio/mp4"),
        ("audio/opus", "audio/ogg"),
        ("audio/x-flac", "audio/flac"),
        ("audio/x-wav", "audio/wav"),
        ("audio/mp3", "audio/mpeg"),
        ("Video/X-Matroska; codecs=avc1", "video/matroska"),
        ("video/x-m4v", "video/mp4"),
    ] {
        assert_eq!(of(b"hello", claim), (written.into(), false), "{claim}");
    }
    assert_eq!(of(MP4, "audio/x-m4a"), ("audio/mp4".into(), true));
    assert_eq!(of(OGG, "audio/opus"), ("audio/ogg".into(), true));
}

#[test]
fn valid_claim_is_used_for_unknown_content() {
    for (claim, written) in [
        ("text/plain", "text/plain"),
        (" Text/Plain ;Charset=utf-8", "text/plain; charset=utf-8"),
        ("text/plain; charset=\"utf-8\"", "text/plain; charset=utf-8"),
        ("text/plain;charset=\"ut\\f-8\" ; format=flowed", "text/plain; charset=utf-8"),
        ("text/csv; header=\"a; b\\\"c\"; charset=iso-8859-1", "text/csv; charset=iso-8859-1"),
        ("text/plain; charset=\"a b\"", "text/plain"),
        ("audio/webm;codecs=opus", "audio/webm"),
        ("text/plain;", "text/plain"),
        ("text/plain; ; charset=utf-8;", "text/plain; charset=utf-8"),
        ("image/svg+xml", "image/svg+xml"),
    ] {
        assert_eq!(of(b"hello", claim), (written.into(), false), "{claim}");
    }
    let long = format!("text/{}", "x".repeat(300));
    for bad in [
        "",
        "text",
        "text/",
        "/plain",
        "a/b/c",
        "text/pl ain",
        "text/plain; x",
        "text/plain; x=",
        "text/plain; charset=\"utf-8",
        "text/plain; charset=\"utf-8\"x",
        "text/plain; charset=utf-8 x",
        "a/b\r\nX: y",
        "té/xt",
        &long,
    ] {
        assert_eq!(of(b"hello", bad), (UNKNOWN.into(), false), "{bad}");
    }
}
