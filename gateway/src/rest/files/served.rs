//! The `Content-Type` of a download. Types that a browser executes are served as `application/octet-stream`: otherwise
//! an injection flaw in a page of this origin could load an upload as a script, style sheet or manifest despite
//! `script-src 'self'`.

use axum::http::HeaderValue;

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Subtypes of JavaScript, under `application/` or `text/` (WHATWG MIME Sniffing, "JavaScript MIME type").
const SCRIPT: [&str; 11] = [
    "ecmascript",
    "javascript",
    "javascript1.0",
    "javascript1.1",
    "javascript1.2",
    "javascript1.3",
    "javascript1.4",
    "javascript1.5",
    "jscript",
    "livescript",
    "vbscript",
];

/// Other types that a browser executes, applies to a page, renders as a page, or installs.
const ACTIVE: [&str; 17] = [
    "application/importmap+json",
    "application/manifest+json",
    "application/signed-exchange",
    "application/speculationrules+json",
    "application/vnd.wap.xhtml+xml",
    "application/wasm",
    "application/webbundle",
    "application/x-chrome-extension",
    "application/x-web-app-manifest+json",
    "application/x-xpinstall",
    "application/xhtml+xml",
    "application/xslt+xml",
    "message/rfc822",
    "text/cache-manifest",
    "text/css",
    "text/html",
    "text/xsl",
];

/// The type under which a file with this `contentType` is served.
pub fn content_type(kind: &str) -> HeaderValue {
    if is_active(kind) {
        return BYTES;
    }
    Some(kind).filter(|kind| !kind.is_empty()).and_then(|kind| HeaderValue::from_str(kind).ok()).unwrap_or(BYTES)
}

fn is_active(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((family, subtype)) = essence.split_once('/') else { return false };
    let plain = subtype.strip_prefix("x-").unwrap_or(subtype);
    // The parts of a multipart body have their own types.
    family == "multipart"
        || matches!(family, "application" | "text") && SCRIPT.contains(&plain)
        || ACTIVE.contains(&&*essence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_types_are_served_as_octet_stream() {
        // The whole list of WHATWG MIME Sniffing, section 4.6.
        let scripts = [
            "application/ecmascript",
            "application/javascript",
            "application/x-ecmascript",
            "application/x-javascript",
            "text/ecmascript",
            "text/javascript",
            "text/javascript1.0",
            "text/javascript1.1",
            "text/javascript1.2",
            "text/javascript1.3",
            "text/javascript1.4",
            "text/javascript1.5",
            "text/jscript",
            "text/livescript",
            "text/x-ecmascript",
            "text/x-javascript",
        ];
        for active in scripts.into_iter().chain(ACTIVE).chain(["multipart/x-mixed-replace", "multipart/related"]) {
            let forms = [
                active.to_owned(),
                active.to_uppercase(),
                format!(" {active} ; charset=utf-8"),
                format!("{active};goal=module"),
                format!("{active};"),
            ];
            for form in forms {
                assert_eq!(content_type(&form), BYTES, "{form}");
            }
        }
    }

    #[test]
    fn other_types_are_unchanged() {
        for passive in [
            "text/plain; charset=utf-8",
            "application/json",
            "application/pdf",
            "application/xml",
            "image/svg+xml",
            "text/csv",
            "text/javascripted",
            "video/mp4",
        ] {
            assert_eq!(content_type(passive), passive);
        }
        for none in ["", "text/pl\nain", "t\u{e9}xt/plain\0"] {
            assert_eq!(content_type(none), BYTES, "{none:?}");
        }
    }
}
