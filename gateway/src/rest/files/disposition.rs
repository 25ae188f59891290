//! Parses `Content-Disposition` in forms (RFC 7578) and writes it for downloads (RFC 6266, RFC 8187).

use std::fmt::Write;

use axum::http::HeaderValue;

/// The bytes of a parameter of a part's `Content-Disposition` header, without quotes.
pub fn parameter(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut rest = header;
    while let Some(at) = rest.iter().position(|byte| *byte == b';') {
        let parameters = &rest[at + 1..];
        let equals = parameters.iter().position(|byte| *byte == b'=')?;
        let value;
        (value, rest) = split_value(parameters[equals + 1..].trim_ascii_start());
        // Parameters without a value are skipped.
        let key = parameters[..equals].rsplit(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if key.eq_ignore_ascii_case(name.as_bytes()) {
            return Some(value);
        }
    }
    None
}

/// A value, quoted or not, and the bytes that follow it.
fn split_value(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
        return (bytes[..end].trim_ascii().to_vec(), &bytes[end..]);
    };
    let mut value = Vec::new();
    let mut at = 0;
    while let Some(byte) = quoted.get(at) {
        at += 1;
        match (byte, quoted.get(at)) {
            (b'"', _) => return (value, &quoted[at..]),
            // Old browsers send whole paths without escapes: a backslash before any other character is literal.
            (b'\\', Some(escaped @ (b'"' | b'\\'))) => {
                value.push(*escaped);
                at += 1;
            }
            (byte, _) => value.push(*byte),
        }
    }
    (value, &[])
}

/// The header of a download: whether the browser displays or saves the file, and the file's name.
pub fn header(inline: bool, name: &str) -> HeaderValue {
    let kind = if inline { "inline" } else { "attachment" };
    // Characters that clients decode differently appear only in `filename*`.
    let plain = |c: char| if matches!(c, ' '..='~') && !matches!(c, '"' | '\\' | '%') { c } else { '_' };
    let mut text = format!("{kind}; filename=\"{}\"; filename*=UTF-8''", name.chars().map(plain).collect::<String>());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'!'
            | b'#'
            | b'$'
            | b'&'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~' => {
                text.push(byte.into());
            }
            byte => _ = write!(text, "%{byte:02X}"),
        }
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_parts_are_parsed() {
        let read = |header: &str| (parameter(header.as_bytes(), "name"), parameter(header.as_bytes(), "filename"));
        let some = |text: &str| Some(text.as_bytes().to_vec());
        for (header, name, file) in [
            (r#"form-data; name="file"; filename="a b.txt""#, some("file"), some("a b.txt")),
            (r#"form-data; filename="a name=x; name=y.txt"; name="file""#, some("file"), some("a name=x; name=y.txt")),
            (r#"form-data; NAME=file;filename=a.txt"#, some("file"), some("a.txt")),
            (r#"form-data; name = "file" ; filename = "ü.txt""#, some("file"), some("ü.txt")),
            (r#"form-data; name="f\"i\\le"; filename="C:\dir\a.txt""#, some("f\"i\\le"), some(r"C:\dir\a.txt")),
            (r#"form-data; name="file"; filename="""#, some("file"), some("")),
            (r#"form-data; name="file"; filename="open"#, some("file"), some("open")),
            (r#"form-data; name="file"; filename*=UTF-8''x"#, some("file"), None),
            ("form-data", None, None),
            ("form-data; name", None, None),
            (r#"form-data; odd; name="file""#, some("file"), None),
            ("", None, None),
        ] {
            assert_eq!(read(header), (name, file), "{header}");
        }
        assert_eq!(parameter(b"form-data; name=\"\xff\"", "name"), Some(vec![0xff]));
    }

    #[test]
    fn any_filename_can_be_encoded() {
        let of = |name: &str| header(false, name).to_str().unwrap().to_owned();
        assert_eq!(header(true, "a.png"), "inline; filename=\"a.png\"; filename*=UTF-8''a.png");
        assert_eq!(of("a b.txt"), "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt");
        assert_eq!(of("Zoë €.txt"), "attachment; filename=\"Zo_ _.txt\"; filename*=UTF-8''Zo%C3%AB%20%E2%82%AC.txt");
        assert_eq!(
            of("a\"b\\c%41'*.txt"),
            "attachment; filename=\"a_b_c_41'*.txt\"; filename*=UTF-8''a%22b%5Cc%2541%27%2A.txt"
        );
        assert_eq!(of("a\r\nX: y"), "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y");
        assert_eq!(of("\u{1F375}"), "attachment; filename=\"_\"; filename*=UTF-8''%F0%9F%8D%B5");
    }
}
