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
mod tests;
