//! Bodies of `multipart/form-data`, written byte for byte as given, valid or not.

use serde_json::Value;

use crate::api::{Account, Answer, Api};

/// Separates the parts; it occurs in no file that tests send.
pub const BOUNDARY: &str = "----------------------------e3b0c44298fc1c149afbf4c8";

#[derive(Debug, Clone, Default)]
pub struct Form {
    body: Vec<u8>,
}

impl Form {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part: its header lines, each ending in CR LF, and its bytes.
    #[must_use]
    pub fn part(mut self, headers: impl AsRef<[u8]>, bytes: &[u8]) -> Self {
        self.body.extend(format!("--{BOUNDARY}\r\n").into_bytes());
        self.body.extend([headers.as_ref(), b"\r\n", bytes, b"\r\n"].concat());
        self
    }

    #[must_use]
    pub fn field(self, name: &str, value: &str) -> Self {
        self.part(format!("Content-Disposition: form-data; name=\"{name}\"\r\n"), value.as_bytes())
    }

    /// Adds the field `file`; the name is not escaped.
    #[must_use]
    pub fn file(self, name: &str, content_type: &str, bytes: &[u8]) -> Self {
        self.part(file_headers(name, content_type), bytes)
    }

    /// Returns the body with the closing boundary.
    pub fn into_body(mut self) -> Vec<u8> {
        self.body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        self.body
    }

    /// Returns the body without its end: a stream that breaks off.
    pub fn into_open_body(self) -> Vec<u8> {
        self.body
    }
}

/// Returns the header lines of the field `file`.
pub fn file_headers(name: &str, content_type: &str) -> String {
    format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {content_type}\r\n")
}

/// Returns the `Content-Type` of such a body.
pub fn content_type() -> String {
    format!("multipart/form-data; boundary={BOUNDARY}")
}

impl Api {
    /// Uploads a form.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn upload(&self, who: &Account, form: Form) -> anyhow::Result<Answer> {
        let request = self.request(reqwest::Method::POST, "/api/files/upload").bearer_auth(&who.token);
        self.send(request.header("content-type", content_type()).body(form.into_body())).await
    }

    /// Uploads bytes under a name, to a room if one is given. Returns the file.
    ///
    /// # Errors
    /// When the upload is rejected.
    pub async fn share(&self, who: &Account, room: Option<&str>, name: &str, bytes: &[u8]) -> anyhow::Result<Value> {
        let form = room.map_or(Form::new(), |room| Form::new().field("roomId", room));
        self.upload(who, form.file(name, "application/octet-stream", bytes)).await?.expect(201)
    }
}
