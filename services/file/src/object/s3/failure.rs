//! Why a request to the store failed, and what that means for the caller.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use confab_common::{Code, Error};

/// The failure of a request.
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
    /// According to the store, the object does not exist but the bucket does.
    pub fn is_absent(&self) -> bool {
        self.status == Some(404) && self.code != "NoSuchBucket"
    }

    /// The access key is invalid or lacks the permission.
    pub fn is_forbidden(&self) -> bool {
        self.status == Some(403)
    }

    /// The access key is valid but lacks the permission.
    pub fn is_denied(&self) -> bool {
        self.is_forbidden() && self.code == "AccessDenied"
    }

    /// The object or bucket to create already exists.
    pub fn is_conflict(&self) -> bool {
        matches!(self.status, Some(409 | 412))
    }

    pub fn is_timeout(&self) -> bool {
        self.timed_out
    }

    pub fn has_no_bucket(&self) -> bool {
        self.status == Some(404) && !self.is_absent()
    }

    /// Describes the failure for the operator.
    pub fn reason(&self) -> String {
        let known = match (self.status, self.code.as_str()) {
            (_, "InvalidAccessKeyId") => "the store does not accept the access key (CONFAB_S3_ACCESS_KEY_ID)",
            (_, "SignatureDoesNotMatch") => "the secret does not match the access key (CONFAB_S3_SECRET_ACCESS_KEY)",
            (_, "ExpiredToken" | "InvalidToken" | "InvalidClientTokenId") => {
                "the session token is invalid or has expired"
            }
            (_, "RequestTimeTooSkewed") => "the clocks of the store and of this machine differ too much",
            (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") | (Some(301), _) => {
                "the bucket is in another region (CONFAB_S3_REGION)"
            }
            (_, "NoSuchBucket") => "the bucket does not exist",
            (Some(401 | 403), _) => "the store rejects the request; the access key may lack permissions for the bucket",
            (Some(501), _) => {
                "the store has no conditional writes (If-None-Match), without which files could be overwritten"
            }
            (None, _) if self.text.contains("no credentials found in chain") => {
                "there are no credentials: set CONFAB_S3_ACCESS_KEY_ID and CONFAB_S3_SECRET_ACCESS_KEY, or give this machine or pod a role"
            }
            (None, _) if self.timed_out => "the store does not answer in time",
            (None, _) => "the store is unreachable",
            _ => "the store fails",
        };
        format!("{known}: {}", self.text)
    }

    /// Returns the error for the caller when the request certainly had no effect.
    pub fn error(self) -> Error {
        match self.status {
            Some(400 | 405 | 416) => Error::internal(format!("the S3 store rejected the request: {}", self.text)),
            Some(409 | 412) => Error::new(Code::Conflict, "the object already exists"),
            Some(401 | 403 | 404) => {
                tracing::error!(error = self.reason(), "the S3 store rejects requests; check the bucket and the keys");
                Error::unavailable("file storage")
            }
            _ => {
                tracing::warn!(error = self.reason(), "the S3 store fails");
                Error::unavailable("file storage")
            }
        }
    }

    /// Returns the error for the caller when the request may have taken effect.
    pub fn error_of_write(self) -> Error {
        if !self.timed_out {
            return self.error();
        }
        tracing::warn!(error = self.text, "the S3 store does not answer");
        Error::timeout()
    }
}
