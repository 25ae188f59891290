//! Parses `multipart/form-data` as it arrives. The parser buffers bytes that it cannot hand out yet. [`Source`] feeds
//! it one piece at a time and limits the bytes besides the file.

mod source;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use bytes::Bytes;
use confab_common::{Code, Error, Result};
use futures::Stream;
use multer::Multipart;

use self::source::{Gauge, Source};
use super::{disposition, filename};

pub use self::source::MAX_BESIDE;

/// The name of the part with the file.
pub const FILE: &str = "file";
/// Most parts in a form.
const MAX_PARTS: usize = 20;
/// Largest field, in bytes.
const MAX_FIELD: usize = 1024;
/// The header with the encoding of a part. Forms must be sent without one (RFC 7578, section 4.7).
const CODING: &str = "Content-Transfer-Encoding";
/// Longest boundary, in characters (RFC 2046).
const MAX_BOUNDARY: usize = 70;

/// A form that is being read.
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
    /// Begins to read the form in the body of a request.
    ///
    /// # Errors
    /// `unsupported_media_type` for a body that is not a form, `invalid_request` for a form without a valid boundary.
    pub fn of(request: Request) -> Result<Self> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(Error::new(Code::UnsupportedMediaType, "Content-Type must be multipart/form-data"));
        }
        let boundary =
            multer::parse_boundary(kind).ok().filter(|boundary| (1..=MAX_BOUNDARY).contains(&boundary.len()));
        let boundary = boundary.ok_or_else(|| {
            Error::new(Code::InvalidRequest, "Content-Type must name a boundary of 1 to 70 characters")
        })?;
        let gauge = Arc::<Gauge>::default();
        let source = Source::new(request.into_body(), gauge.clone());
        Ok(Self { parts: Multipart::new(source, boundary), count: 0, gauge })
    }

    /// The next part; `None` after the last part.
    ///
    /// # Errors
    /// `invalid_request` when the form is malformed or breaks off, `too_large` or [`Code::TooSlow`] when it exceeds a
    /// limit.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        let field = fed(&self.gauge, |context| self.parts.poll_next_field(context)).await;
        let Some(field) = field.map_err(|error| refusal(error, None))? else { return Ok(None) };
        self.count += 1;
        if self.count > MAX_PARTS {
            return Err(Error::new(Code::InvalidRequest, format!("a form must have at most {MAX_PARTS} parts")));
        }
        check_coding(field.headers())?;
        let name = field
            .headers()
            .get(CONTENT_DISPOSITION)
            .and_then(|header| disposition::parameter(header.as_bytes(), "name"));
        let name = name.ok_or_else(|| Error::new(Code::InvalidRequest, "every part of a form must have a name"))?;
        Ok(Some(Part { field, name: String::from_utf8_lossy(&name).into_owned(), gauge: self.gauge.clone() }))
    }
}

impl Part {
    /// The field's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The decoded filename; may be empty.
    pub fn file_name(&self) -> String {
        filename::read(self.disposition())
    }

    fn disposition(&self) -> &[u8] {
        self.field.headers().get(CONTENT_DISPOSITION).map_or(&[], |header| header.as_bytes())
    }

    /// The content type that the client sent for the part; may be empty.
    pub fn content_type(&self) -> String {
        self.field.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// The next bytes of the file; `None` at its end.
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

    /// Reads the field as text.
    ///
    /// # Errors
    /// As [`Form::next`]; also when the field is longer than [`MAX_FIELD`] or is not UTF-8.
    pub async fn text(mut self) -> Result<String> {
        let text = self
            .small()
            .await?
            .ok_or_else(|| Error::field(&self.name, format!("must be at most {MAX_FIELD} bytes")))?;
        String::from_utf8(text).map_err(|_| Error::field(&self.name, "must be UTF-8"))
    }

    /// Skips an unknown field.
    ///
    /// # Errors
    /// As [`Form::next`]; also when the field has a filename or is larger than [`MAX_FIELD`].
    pub async fn skip(mut self) -> Result<()> {
        if !filename::is_given(self.disposition()) && self.small().await?.is_some() {
            return Ok(());
        }
        Err(Error::field(&self.name, format!("is not a field of this form; the file must be in the field `{FILE}`")))
    }

    /// The bytes of a field; `None` when the field is longer than [`MAX_FIELD`].
    async fn small(&mut self) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.read().await? {
            if bytes.len() + chunk.len() > MAX_FIELD {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }
}

/// Rejects an encoded part, because its bytes would be stored without decoding.
fn check_coding(headers: &HeaderMap) -> Result<()> {
    let is_plain =
        |coding: &[u8]| ["7bit", "8bit", "binary"].iter().any(|plain| coding.eq_ignore_ascii_case(plain.as_bytes()));
    if headers.get_all(CODING).iter().all(|coding| is_plain(coding.as_bytes().trim_ascii())) {
        return Ok(());
    }
    let detail = format!("{CODING} must be binary, 8bit or 7bit; send the bytes without encoding");
    Err(Error::new(Code::InvalidRequest, detail))
}

/// Polls the parser, and feeds it a piece only when it cannot make progress with its buffer.
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

/// Converts an error of the parser.
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
        multer::Error::IncompleteStream
        | multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders => about("ended early"),
        _ => about("is malformed"),
    }
}

#[cfg(test)]
mod tests;
