//! Parses `multipart/form-data` as it arrives. The parser buffers what it cannot hand out yet; [`Source`] feeds it
//! piece by piece, when it needs one, and bounds everything besides the file.

mod source;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use bytes::Bytes;
use confab_common::{Code, Error, Result};
use futures::Stream;
use multer::Multipart;

use self::source::{Gauge, Source};
use super::disposition;

pub use self::source::MAX_BESIDE;

/// The name of the part that holds the file.
pub const FILE: &str = "file";
/// Most parts of a form.
const MAX_PARTS: usize = 20;
/// Largest field, in bytes.
const MAX_FIELD: usize = 1024;
/// Longest boundary (RFC 2046).
const MAX_BOUNDARY: usize = 70;

/// A form being read.
pub struct Form {
    parts: Multipart<'static>,
    count: usize,
    gauge: Arc<Gauge>,
}

/// A part of a form. It must be dropped before the next part is read.
pub struct Part {
    field: multer::Field<'static>,
    name: String,
    gauge: Arc<Gauge>,
}

impl Form {
    /// The form in the body of a request.
    ///
    /// # Errors
    /// `unsupported_media_type` for a body that is not a form, `invalid_request` for a form without a usable boundary.
    pub fn of(request: Request) -> Result<Self> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(Error::new(Code::UnsupportedMediaType, "Content-Type must be multipart/form-data"));
        }
        let boundary = multer::parse_boundary(kind).ok().filter(|boundary| (1..=MAX_BOUNDARY).contains(&boundary.len()));
        let boundary =
            boundary.ok_or_else(|| Error::new(Code::InvalidRequest, "Content-Type must name a boundary of 1 to 70 characters"))?;
        let gauge = Arc::<Gauge>::default();
        let source = Source::new(request.into_body(), gauge.clone());
        Ok(Self { parts: Multipart::new(source, boundary), count: 0, gauge })
    }

    /// The next part; `None` after the last.
    ///
    /// # Errors
    /// `invalid_request` when it is malformed, too large, too slow or broken off.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        let field = fed(&self.gauge, |context| self.parts.poll_next_field(context)).await;
        let Some(field) = field.map_err(|error| refusal(error, None))? else { return Ok(None) };
        self.count += 1;
        if self.count > MAX_PARTS {
            return Err(Error::new(Code::InvalidRequest, format!("a form must have at most {MAX_PARTS} parts")));
        }
        let name = field.headers().get(CONTENT_DISPOSITION).and_then(|header| disposition::parameter(header.as_bytes(), "name"));
        let name = name.ok_or_else(|| Error::new(Code::InvalidRequest, "every part of a form must have a name"))?;
        Ok(Some(Part { field, name, gauge: self.gauge.clone() }))
    }
}

impl Part {
    /// The field's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's name as the client sent it; may be empty.
    pub fn file_name(&self) -> String {
        let header = self.field.headers().get(CONTENT_DISPOSITION);
        let name = header.and_then(|header| disposition::parameter(header.as_bytes(), "filename")).unwrap_or_default();
        // Browsers and curl escape a quotation mark like this.
        name.replace("%22", "\"")
    }

    /// The part's content type as the client sent it; may be empty.
    pub fn content_type(&self) -> String {
        self.field.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// The file's next bytes; `None` at its end.
    ///
    /// # Errors
    /// As [`Form::next`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.read().await?;
        self.gauge.note_of_file(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        let chunk = fed(&self.gauge, |context| Pin::new(&mut self.field).poll_next(context)).await;
        chunk.transpose().map_err(|error| refusal(error, Some(&self.name)))
    }

    /// A field as text.
    ///
    /// # Errors
    /// As [`Form::next`], and when the field is too long or not UTF-8.
    pub async fn text(mut self) -> Result<String> {
        let mut text = Vec::new();
        while let Some(chunk) = self.read().await? {
            if text.len() + chunk.len() > MAX_FIELD {
                return Err(Error::field(&self.name, format!("must be at most {MAX_FIELD} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).map_err(|_| Error::field(&self.name, "must be UTF-8"))
    }
}

/// Polls the parser, and feeds it a piece only when it cannot make progress with what it has.
async fn fed<T>(gauge: &Gauge, mut parser: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    poll_fn(|context| {
        gauge.shut();
        if let Poll::Ready(said) = parser(context) {
            return Poll::Ready(said);
        }
        gauge.open();
        parser(context)
    })
    .await
}

/// Translates an error of the parser.
fn refusal(error: multer::Error, part: Option<&str>) -> Error {
    let about = |detail: &str| match part {
        Some(name) => Error::field(name, detail),
        None => Error::new(Code::InvalidRequest, format!("the form {detail}")),
    };
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(_) => about("ended early"),
        },
        multer::Error::IncompleteStream | multer::Error::IncompleteFieldData { .. } | multer::Error::IncompleteHeaders => {
            about("ended early")
        }
        _ => about("is malformed"),
    }
}

#[cfg(test)]
mod tests;
