//! The answer to bytes that are not a valid HTTP request. hyper's own answer has no body; this one is a problem
//! document.

use std::io;
use std::task::{Poll, ready};

use axum::body::Bytes;
use axum::http::StatusCode;
use confab_common::{Code, Error};
use uuid::Uuid;

use super::MAX_HEAD;
use crate::problem::Document;

/// An answer that replaces hyper's.
#[derive(Default)]
pub struct Refusal {
    left: Option<Bytes>,
}

impl Refusal {
    /// Writes the answer with this status. `write` writes to the connection.
    pub fn poll(
        &mut self,
        status: StatusCode,
        mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.get_or_insert_with(|| answer(status));
        while !left.is_empty() {
            let written = ready!(write(left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = left.split_to(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The status of an answer.
pub fn status_of(answer: &[u8]) -> StatusCode {
    let status = answer.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
    status.unwrap_or(StatusCode::BAD_REQUEST)
}

fn answer(status: StatusCode) -> Bytes {
    let error = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Error::new(Code::TooLarge, format!("the head of a request must be at most {MAX_HEAD} bytes"))
        }
        StatusCode::URI_TOO_LONG => Error::new(Code::TooLarge, "the target of the request is too long"),
        _ => Error::new(Code::InvalidRequest, "the request is malformed HTTP"),
    };
    let id = Uuid::now_v7().to_string();
    let document = serde_json::to_string(&Document::new(&error, &id).with_status(status)).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nContent-Length: {}\r\nX-Request-Id: {id}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\nDate: {}\r\n\r\n",
        document.len(),
        httpdate::fmt_http_date(std::time::SystemTime::now()),
    );
    Bytes::from(head + &document)
}
