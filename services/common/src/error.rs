//! The error codes, and their mapping to and from gRPC. The gateway maps them to HTTP.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error. The public contract lists the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed request, or a field that fails validation.
    InvalidRequest,
    /// Missing, malformed, expired or revoked token.
    Unauthorized,
    /// Wrong username or wrong password; the error does not reveal which.
    InvalidCredentials,
    /// The caller may see the resource, but may not do this with it.
    Forbidden,
    /// The resource does not exist, or is hidden from the caller.
    NotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// The route does not accept a body of this type.
    UnsupportedMediaType,
    /// An account with this username exists.
    UsernameTaken,
    /// A public room with this name exists.
    RoomNameTaken,
    /// The request conflicts with the current state.
    Conflict,
    /// A precondition of the request does not hold.
    PreconditionFailed,
    TooLarge,
    /// The requested range lies outside the resource.
    RangeNotSatisfiable,
    RateLimited,
    /// A bug in Confab.
    Internal,
    /// A dependency is down or rejects the call. **Nothing was done**, so the caller may retry at another replica at
    /// once.
    Unavailable,
    /// No answer in time. The outcome is unknown: the operation may have been done.
    Timeout,
    /// The body of the request arrives too slowly; nothing was done.
    TooSlow,
}

/// Each code with its name between services, its HTTP status and its gRPC code.
const CODES: [(Code, &str, u16, tonic::Code); 18] = [
    (Code::InvalidRequest, "invalid_request", 400, tonic::Code::InvalidArgument),
    (Code::Unauthorized, "unauthorized", 401, tonic::Code::Unauthenticated),
    (Code::InvalidCredentials, "invalid_credentials", 401, tonic::Code::Unauthenticated),
    (Code::Forbidden, "forbidden", 403, tonic::Code::PermissionDenied),
    (Code::NotFound, "not_found", 404, tonic::Code::NotFound),
    (Code::MethodNotAllowed, "method_not_allowed", 405, tonic::Code::Unimplemented),
    (Code::UnsupportedMediaType, "unsupported_media_type", 415, tonic::Code::InvalidArgument),
    (Code::UsernameTaken, "username_taken", 409, tonic::Code::AlreadyExists),
    (Code::RoomNameTaken, "room_name_taken", 409, tonic::Code::AlreadyExists),
    (Code::Conflict, "conflict", 409, tonic::Code::FailedPrecondition),
    (Code::PreconditionFailed, "precondition_failed", 412, tonic::Code::FailedPrecondition),
    (Code::TooLarge, "too_large", 413, tonic::Code::OutOfRange),
    (Code::RangeNotSatisfiable, "range_not_satisfiable", 416, tonic::Code::OutOfRange),
    (Code::RateLimited, "rate_limited", 429, tonic::Code::ResourceExhausted),
    (Code::Internal, "internal", 500, tonic::Code::Internal),
    (Code::Unavailable, "unavailable", 503, tonic::Code::Unavailable),
    (Code::Timeout, "timeout", 504, tonic::Code::DeadlineExceeded),
    (Code::TooSlow, "too_slow", 408, tonic::Code::DeadlineExceeded),
];

impl Code {
    fn row(self) -> &'static (Code, &'static str, u16, tonic::Code) {
        // The table has the order of the variants; a test checks this.
        &CODES[self as usize]
    }

    /// Returns the `code` of a problem document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooSlow => Self::Timeout.reason(),
            _ => self.reason(),
        }
    }

    /// Returns the name between services.
    fn reason(self) -> &'static str {
        self.row().1
    }

    pub fn http_status(self) -> u16 {
        self.row().2
    }

    /// Parses the name between services.
    pub fn parse(name: &str) -> Option<Code> {
        CODES.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    fn from_grpc(code: tonic::Code) -> Code {
        match code {
            // A connection that broke during a call does not reveal whether the service executed the call.
            tonic::Code::Cancelled | tonic::Code::Unknown | tonic::Code::Aborted => Code::Timeout,
            _ => CODES.iter().find(|row| row.3 == code).map_or(Code::Internal, |row| row.0),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The public name of the field.
    pub field: String,
    /// What is wrong with it, as a clause: "must not be empty".
    pub detail: String,
}

/// A rejection or failure that may be shown to the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {detail}{}", code.as_str(), cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default())]
pub struct Error {
    pub code: Code,
    /// One sentence for the user; it never contains internals.
    pub detail: String,
    /// The invalid fields, for [`Code::InvalidRequest`].
    pub fields: Vec<FieldError>,
    /// When to retry, for [`Code::RateLimited`] and [`Code::Unavailable`].
    pub retry_after: Option<Duration>,
    /// What happened inside, for the log; the caller never receives it.
    cause: Option<Cause>,
}

/// The cause of an error. A status carries it from a handler to the server's log, and not beyond this process.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Cause(Arc<str>);

impl Error {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), fields: Vec::new(), retry_after: None, cause: None }
    }

    /// [`Code::InvalidRequest`] for one field.
    pub fn field(field: &str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            fields: vec![FieldError { field: field.into(), detail: detail.clone() }],
            ..Self::new(Code::InvalidRequest, format!("{field} {detail}"))
        }
    }

    /// [`Code::NotFound`]; `what` completes "no such …".
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no such {what}"))
    }

    /// [`Code::Unavailable`]; `what` is the subject of the sentence "… is unavailable; try again".
    pub fn unavailable(what: &str) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(Code::Unavailable, format!("{what} is unavailable; try again"))
        }
    }

    pub fn timeout() -> Self {
        Self::new(Code::Timeout, "no answer in time; the operation may have been done, so retry with the same id")
    }

    /// [`Code::Internal`], with the cause for the log.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, "an internal error occurred").because(cause)
    }

    /// Sets when to retry.
    #[must_use]
    pub fn retry_in(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn because(self, cause: impl std::fmt::Display) -> Self {
        Self { cause: Some(Cause(cause.to_string().into())), ..self }
    }

    /// Logs the cause, if there is one. Called once, where the error becomes an answer.
    pub fn log_cause(&self) {
        if let Some(cause) = &self.cause {
            cause.log(self.code == Code::Internal);
        }
    }
}

impl Cause {
    fn log(&self, is_bug: bool) {
        if is_bug {
            tracing::error!(cause = %self.0, "internal error");
        } else {
            tracing::warn!(cause = %self.0, "a dependency failed");
        }
    }
}

/// Logs the cause of an error that a handler returned as this status.
pub(crate) fn log_cause(status: &Status) {
    if let Some(cause) = std::error::Error::source(status).and_then(|source| source.downcast_ref::<Cause>()) {
        cause.log(status.code() == tonic::Code::Internal);
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut details = ErrorDetails::with_error_info(error.code.reason(), "confab", []);
        for field in &error.fields {
            details.add_bad_request_violation(&field.field, &field.detail);
        }
        if error.retry_after.is_some() {
            details.set_retry_info(error.retry_after);
        }
        let mut status = Status::with_error_details(error.code.row().3, error.detail, details);
        if let Some(cause) = error.cause {
            status.set_source(Arc::new(cause));
        }
        status
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let named = details.error_info().and_then(|info| Code::parse(&info.reason));
        if named.is_none() && status.code() == tonic::Code::Unimplemented {
            // A replica of the release before: nothing was done, and a newer replica may answer a repeat.
            return Self::unavailable("a service").because(status);
        }
        let code = named.unwrap_or_else(|| Code::from_grpc(status.code()));
        let detail = match (named, code) {
            // Error texts of transports and libraries are not shown to callers.
            (None, Code::Unavailable) => return Self::unavailable("a service"),
            (None, Code::Timeout) => return Self::timeout(),
            (None, Code::Internal) => return Self::internal(status),
            _ => status.message().to_owned(),
        };
        let fields = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|v| FieldError { field: v.field.clone(), detail: v.description.clone() })
                .collect()
        });
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        Self { code, detail, fields, retry_after, cause: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_table_has_the_order_of_the_variants() {
        for (index, row) in CODES.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(Code::parse(row.1), Some(row.0));
        }
    }

    #[test]
    fn error_table_matches_the_documentation() {
        let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/grpc.md")).unwrap();
        let rows = document
            .lines()
            .skip_while(|line| !line.starts_with("| reason "))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let documented = rows
            .map(|row| row.split('|').map(str::trim).skip(1).take(3).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>();
        let actual = CODES.map(|(_, name, http, grpc)| {
            let camel = format!("{grpc:?}");
            let begins_word = |at: usize, c: char| at > 0 && c.is_ascii_uppercase();
            let upper = camel
                .char_indices()
                .map(|(at, c)| if begins_word(at, c) { format!("_{c}") } else { c.to_uppercase().to_string() });
            format!("`{name}` {} {http}", upper.collect::<String>())
        });
        assert_eq!(documented, actual);
    }

    #[test]
    fn survives_the_wire() {
        for (code, ..) in CODES {
            let error = Error { retry_after: Some(Duration::from_secs(3)), ..Error::new(code, "it is full") };
            let back = Error::from(Status::from(error.clone()));
            assert_eq!((back.code, back.detail, back.retry_after), (code, error.detail, error.retry_after));
        }
        let back = Error::from(Status::from(Error::field("content", "must not be empty")));
        assert_eq!(back.fields, [FieldError { field: "content".into(), detail: "must not be empty".into() }]);
    }

    #[test]
    fn cause_stays_in_the_process() {
        let error = Error::internal("the password file");
        assert_eq!(error.to_string(), "internal: an internal error occurred (the password file)");
        let status = Status::from(error);
        assert!(std::error::Error::source(&status).is_some_and(|source| source.is::<Cause>()));
        let answer = status.into_http::<()>();
        let headers = format!("{:?}", answer.headers());
        assert!(headers.contains("grpc-status") && !headers.contains("password"), "{headers}");
        let received = Status::from_header_map(answer.headers()).unwrap();
        assert!(!Error::from(received).to_string().contains("password"));
    }

    #[test]
    fn broken_transport_is_not_an_internal_error() {
        assert_eq!(Error::from(Status::unavailable("tcp connect error")).code, Code::Unavailable);
        assert_eq!(Error::from(Status::unknown("h2 protocol error")).code, Code::Timeout);
    }
}
