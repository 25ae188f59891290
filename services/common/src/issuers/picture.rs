//! The URLs of users' pictures.

use http::Uri;
use http::uri::Scheme;

/// Maximum length of a URL, in bytes.
const MAX_URL: usize = 2048;

/// Returns whether a picture claim is a URL that clients can load: with https, with a host and without a user.
pub fn is_picture_url(claim: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if claim.len() > MAX_URL || !claim.bytes().all(is_plain) {
        return false;
    }
    claim.parse::<Uri>().is_ok_and(|url| {
        url.scheme() == Some(&Scheme::HTTPS)
            && url.host().is_some_and(|host| !host.is_empty())
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_https_urls() {
        let long = format!("https://cdn.example.com/{}", "a".repeat(MAX_URL - 24));
        for good in ["https://cdn.example.com/ada.png", "HTTPS://10.0.0.1:8443/a?b=%20c#d", &long] {
            assert!(is_picture_url(good), "{good}");
        }
        for bad in [
            "",
            "ada.png",
            "/ada.png",
            "https:",
            "https://",
            "https:///ada.png",
            "http://cdn.example.com/ada.png",
            "data:image/png;base64,AAAA",
            "javascript:alert(1)",
            "https://user@cdn.example.com/ada.png",
            "https://cdn.example.com/a b",
            "https://cdn.example.com/a\nb",
            "https://cdn.example.com/\"><script>",
            "https://cdn.example.com/ü.png",
            &format!("{long}a"),
        ] {
            assert!(!is_picture_url(bad), "{bad}");
        }
    }
}
