//! Why a request to the store failed, and what that means for the caller.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use confab_common::{Code, Error};

/// The failure of any request.
#[derive(Debug)]
pub struct Failure {
    /// The HTTP status, if the store answered.
    status: Option<u16>,
    /// The store's own error code.
    code: String,
    timed_out: bool,
    text: String,
}

impl<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static> From<SdkError<E>> for Failure {
    fn from(error: SdkError<E>) -> Self {
        Self {
            status: error.raw_response().map(|answer| answer.status().as_u16()),
            code: error.code().unwrap_or_default().into(),
            timed_out: matches!(error, SdkError::TimeoutError(_)),
            text: format!("{:#}", anyhow::Error::from(error)).replace('\n', " "),
        }
    }
}

impl Failure {
    /// The object does not exist, but the bucket does, according to the store.
    pub fn is_absent(&self) -> bool {
        self.status == Some(404) && self.code != "NoSuchBucket"
    }

    /// The access key lacks the right.
    pub fn is_forbidden(&self) -> bool {
        self.status == Some(403)
    }

    /// The access key, which is right, lacks the right.
    pub fn is_denied(&self) -> bool {
        self.is_forbidden() && self.code == "AccessDenied"
    }

    /// The thing to be created exists already.
    pub fn is_conflict(&self) -> bool {
        matches!(self.status, Some(409 | 412))
    }

    /// The store did not answer in time.
    pub fn is_timeout(&self) -> bool {
        self.timed_out
    }

    /// The bucket does not exist.
    pub fn has_no_bucket(&self) -> bool {
        self.status == Some(404) && !self.is_absent()
    }

    /// What is wrong, for the operator.
    pub fn reason(&self) -> String {
        let known = match (self.status, self.code.as_str()) {
            (_, "InvalidAccessKeyId") => "the store does not know the access key (CONFAB_S3_ACCESS_KEY_ID)",
            (_, "SignatureDoesNotMatch") => "the access key has another secret (CONFAB_S3_SECRET_ACCESS_KEY)",
            (_, "ExpiredToken" | "InvalidToken" | "InvalidClientTokenId") => "the session token is wrong or has expired",
            (_, "RequestTimeTooSkewed") => "the clocks of the store and of this machine differ too much",
            (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") | (Some(301), _) => {
                "the bucket is in another region (CONFAB_S3_REGION)"
            }
            (_, "NoSuchBucket") => "the bucket does not exist",
            (Some(401 | 403), _) => "the store refuses; the access key may lack rights to the bucket",
            (Some(501), _) => "the store has no conditional writes (If-None-Match), without which files could be replaced by others",
            (None, _) if self.text.contains("no credentials found in chain") => {
                "there are no credentials: set CONFAB_S3_ACCESS_KEY_ID and CONFAB_S3_SECRET_ACCESS_KEY, or give this machine or pod a role"
            }
            (None, _) if self.timed_out => "the store does not answer in time",
            (None, _) => "the store cannot be reached",
            _ => "the store fails",
        };
        format!("{known}: {}", self.text)
    }

    /// The error for the caller when the request certainly had no effect.
    pub fn error(self) -> Error {
        match self.status {
            Some(400 | 405 | 416) => Error::internal(format!("the S3 store rejects our request: {}", self.text)),
            Some(409 | 412) => Error::new(Code::Conflict, "the object exists already"),
            Some(401 | 403 | 404) => {
                tracing::error!(error = self.reason(), "the S3 store refuses; the bucket or the keys may be wrong");
                Error::unavailable("file storage")
            }
            _ => {
                tracing::warn!(error = self.reason(), "the S3 store fails");
                Error::unavailable("file storage")
            }
        }
    }

    /// The error for the caller when the request may have taken effect.
    pub fn error_of_write(self) -> Error {
        if !self.timed_out {
            return self.error();
        }
        tracing::warn!(error = self.text, "the S3 store does not answer");
        Error::timeout()
    }
}
