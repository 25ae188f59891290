//! The `ETag` of a message: its `revision`.

use axum::Json;
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse, Response};
use confab_common::{Error, Result};
use confab_proto::message::v1::Event;

use crate::views::MessageJson;

/// A response with a message and its tag.
pub(super) fn with_revision(message: &Event) -> Response {
    let revision = message.state.as_ref().map_or(message.seq, |state| state.revision);
    ([(ETAG, format!("\"{revision}\""))], Json(MessageJson::from(message))).into_response()
}

/// The revision after which a message must not have been edited or deleted; `None` without a condition. Of several
/// tags, one must hold, so the highest one decides.
///
/// # Errors
/// `invalid_request` for what is no tag of a message.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>> {
    let malformed = || Error::field("If-Match", "must be the ETag of the message");
    let mut highest = None;
    for value in headers.get_all(IF_MATCH) {
        for tag in value.to_str().map_err(|_| malformed())?.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(None);
            }
            let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or_default();
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let revision = digits.parse::<u64>().ok().filter(|_| is_number).ok_or_else(malformed)?;
            highest = highest.max(Some(revision));
        }
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use confab_proto::message::v1::State;

    use super::*;

    fn condition(values: &[&'static str]) -> Result<Option<u64>> {
        let values = values.iter().map(|value| (IF_MATCH, HeaderValue::from_static(value)));
        if_match(&values.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        }))
    }

    #[test]
    fn the_highest_tag_decides() {
        assert_eq!(condition(&[]).unwrap(), None);
        assert_eq!(condition(&["\"7\""]).unwrap(), Some(7));
        assert_eq!(condition(&["\"7\" , \"12\"", "\"9\""]).unwrap(), Some(12));
        assert_eq!(condition(&["\"7\"", "*"]).unwrap(), None);
        for bad in ["7", "\"\"", "W/\"7\"", "\"+7\"", "\"a\"", "\"7", "\"7\",", "", "\"99999999999999999999\""] {
            assert_eq!(condition(&[bad]).unwrap_err().fields[0].field, "If-Match", "{bad}");
        }
    }

    #[test]
    fn the_tag_is_the_revision() {
        let tag = |event: &Event| with_revision(event).headers()[ETAG].clone();
        let state = Some(State { revision: 9, ..State::default() });
        assert_eq!(tag(&Event { seq: 5, ..Event::default() }), "\"5\"");
        assert_eq!(tag(&Event { seq: 5, state, ..Event::default() }), "\"9\"");
    }
}
