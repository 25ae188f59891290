//! Conditional requests (RFC 9110, section 13): whether the client already has the file, and whether its part belongs
//! to the same version.

use std::time::{Duration, SystemTime};

use axum::http::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use axum::http::{HeaderMap, header};
use confab_proto::file::v1::File;

/// The validators of a file. A file never changes, so it has one version.
pub struct Validators {
    tag: String,
    /// In whole seconds, the resolution of HTTP dates.
    modified: SystemTime,
}

impl Validators {
    pub fn of(file: &File) -> Self {
        let seconds = u64::try_from(file.created_at_ms / 1000).unwrap_or_default();
        Self { tag: format!("\"{}\"", file.sha256), modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) }
    }

    /// The validators as response headers.
    pub fn headers(&self) -> [(HeaderName, HeaderValue); 2] {
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        [(header::ETAG, value(&self.tag)), (header::LAST_MODIFIED, value(&httpdate::fmt_http_date(self.modified)))]
    }

    /// Whether `If-Match` or `If-Unmodified-Since` accepts this version. A weak tag never matches, because it does not
    /// guarantee the same bytes.
    pub fn are_expected_by(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_MATCH) {
            return tags(headers, &IF_MATCH).any(|tag| tag == "*" || tag == self.tag);
        }
        date(headers.get(IF_UNMODIFIED_SINCE)).is_none_or(|until| self.modified <= until)
    }

    /// Whether the client already has this version (`If-None-Match`, `If-Modified-Since`).
    pub fn is_known_to(&self, headers: &HeaderMap) -> bool {
        if headers.contains_key(IF_NONE_MATCH) {
            return tags(headers, &IF_NONE_MATCH).any(|tag| tag == "*" || weak(tag) == self.tag);
        }
        date(headers.get(IF_MODIFIED_SINCE)).is_some_and(|since| self.modified <= since)
    }

    /// Whether `If-Range` accepts a part of this version.
    pub fn allow_range(&self, headers: &HeaderMap) -> bool {
        let Some(condition) = headers.get(IF_RANGE) else { return true };
        condition == self.tag.as_str() || date(Some(condition)) == Some(self.modified)
    }
}

/// The tags of a list, which may be split over several headers.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|tags| tags.split(',')).map(str::trim)
}

/// Strips the prefix of a weak tag, because weak comparison treats strong and weak tags alike.
fn weak(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn date(value: Option<&HeaderValue>) -> Option<SystemTime> {
    httpdate::parse_http_date(value?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 6 November 1994, 08:49:37 and some milliseconds.
    fn validators() -> Validators {
        Validators::of(&File { sha256: "abc".into(), created_at_ms: 784_111_777_321, ..File::default() })
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn validators_become_headers() {
        let [(_, tag), (_, modified)] = validators().headers();
        assert_eq!((tag.to_str().unwrap(), modified.to_str().unwrap()), ("\"abc\"", "Sun, 06 Nov 1994 08:49:37 GMT"));
    }

    #[test]
    fn a_tag_takes_precedence_over_a_date() {
        let known = |pairs: &[_]| validators().is_known_to(&headers(pairs));
        for same in ["\"abc\"", "W/\"abc\"", "*", "\"x\", W/\"y\",\"abc\""] {
            assert!(known(&[(IF_NONE_MATCH, same)]), "{same}");
        }
        assert!(known(&[(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc\"")]));
        for other in ["\"abd\"", "abc", "", "w/\"abc\""] {
            assert!(!known(&[(IF_NONE_MATCH, other)]), "{other}");
            assert!(!known(&[(IF_NONE_MATCH, other), (IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:37 GMT")]), "{other}");
        }
        assert!(!known(&[]));
    }

    #[test]
    fn preconditions_reject_another_version() {
        let expected = |pairs: &[_]| validators().are_expected_by(&headers(pairs));
        for same in ["\"abc\"", "*", "\"x\", \"abc\""] {
            assert!(expected(&[(IF_MATCH, same)]), "{same}");
            // A tag takes precedence over a date.
            assert!(expected(&[(IF_MATCH, same), (IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT")]), "{same}");
        }
        for other in ["\"abd\"", "W/\"abc\"", "abc", ""] {
            assert!(!expected(&[(IF_MATCH, other)]), "{other}");
        }
        for until in ["Sun, 06 Nov 1994 08:49:37 GMT", "Mon, 07 Nov 1994 00:00:00 GMT", "yesterday"] {
            assert!(expected(&[(IF_UNMODIFIED_SINCE, until)]), "{until}");
        }
        assert!(!expected(&[(IF_UNMODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT")]));
        assert!(expected(&[]));
    }

    #[test]
    fn all_http_date_formats_are_read() {
        let known = |date| validators().is_known_to(&headers(&[(IF_MODIFIED_SINCE, date)]));
        for since in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 07 Nov 1994 00:00:00 GMT",
        ] {
            assert!(known(since), "{since}");
        }
        for before in ["Sun, 06 Nov 1994 08:49:36 GMT", "yesterday", ""] {
            assert!(!known(before), "{before}");
        }
    }

    #[test]
    fn a_range_needs_the_same_version() {
        let allow = |condition| validators().allow_range(&headers(&[(IF_RANGE, condition)]));
        assert!(validators().allow_range(&HeaderMap::new()));
        assert!(allow("\"abc\"") && allow("Sun, 06 Nov 1994 08:49:37 GMT"));
        for other in ["W/\"abc\"", "\"abd\"", "*", "Mon, 07 Nov 1994 00:00:00 GMT", "x"] {
            assert!(!allow(other), "{other}");
        }
    }
}
