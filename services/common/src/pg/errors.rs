//! The meaning of a Postgres error, for the caller and for the connection.

use std::cell::Cell;

use deadpool_postgres::PoolError;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::Error;
use crate::handshake::{POSTGRES, explain, is_rejected, no_tls};

/// The reason why a reachable server is unusable.
pub(super) const READ_ONLY: &str = "Postgres is read-only (a standby?)";

/// What an error implies for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The connection has ended, or its session has changed.
    Connection,
    /// The server rejects writes, and so may its other connections.
    Server,
}

tokio::task_local! {
    static FAULT: Cell<Option<Fault>>;
}

/// Runs work on a connection, and also returns what the work's errors imply for the connection.
pub(super) async fn observed<T>(work: impl Future<Output = T>) -> (T, Option<Fault>) {
    let observed = async {
        let done = work.await;
        (done, FAULT.with(Cell::get))
    };
    FAULT.scope(Cell::new(None), observed).await
}

/// Records what an error implies for this task's connection. The conversion of an error to [`Error`] does this; call
/// the function for an error that is not converted.
pub fn note_fault(error: &tokio_postgres::Error) {
    let _ = FAULT.try_with(|worst| worst.set(worst.get().max(fault(error))));
}

pub(super) fn fault(error: &tokio_postgres::Error) -> Option<Fault> {
    let Some(db) = error.as_db_error() else { return Some(Fault::Connection) };
    // https://www.postgresql.org/docs/current/errcodes-appendix.html
    match (&db.code().code()[..2], db.code()) {
        // Writes; functions that need a primary; a query that conflicts with the replay (at Confab's isolation level,
        // only a standby returns this code).
        (
            _,
            &SqlState::READ_ONLY_SQL_TRANSACTION
            | &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
            | &SqlState::T_R_SERIALIZATION_FAILURE,
        ) => Some(Fault::Server),
        _ if matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) => Some(Fault::Connection),
        (_, &SqlState::QUERY_CANCELED) => None,
        // The session's prepared statements no longer exist, or were prepared for tables that have changed since.
        ("08" | "57", _) | (_, &SqlState::INVALID_SQL_STATEMENT_NAME | &SqlState::FEATURE_NOT_SUPPORTED) => {
            Some(Fault::Connection)
        }
        _ => None,
    }
}

/// Returns the reason why a server is unusable, from the error of a connection attempt.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    // The driver's error for a session that cannot write. An error of the system would have a number.
    let denied =
        |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied && error.raw_os_error().is_none();
    let read_only = cause.downcast_ref().is_some_and(denied)
        || error.downcast_ref::<tokio_postgres::Error>().is_some_and(|error| fault(error) == Some(Fault::Server));
    match cause.downcast_ref::<DbError>() {
        _ if read_only => READ_ONLY.into(),
        Some(refusal) => refusal.message().into(),
        None => of_tls(error).unwrap_or_else(|| cause.to_string()),
    }
}

/// Returns the explanation of an error of TLS.
fn of_tls(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if has_no_tls(error) { Some(no_tls(&POSTGRES)) } else { explain(error, &POSTGRES) }
}

/// Returns whether the server has refused TLS. The driver's error has no type of its own.
fn has_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| cause.to_string() == "server does not support TLS")
}

/// Returns whether the server is reachable but rejects the login or TLS, or has a certificate that is rejected.
pub(super) fn refuses(error: &PoolError) -> bool {
    if is_rejected(error) || has_no_tls(error) {
        return true;
    }
    let PoolError::Backend(error) = error else { return false };
    // Invalid authorization: no such role, or a wrong password.
    error.code().is_some_and(|code| code.code().starts_with("28") || code == &SqlState::INVALID_CATALOG_NAME)
}

/// Returns whether an error is a violation of this constraint.
pub fn violates(error: &tokio_postgres::Error, constraint: &str) -> bool {
    error
        .as_db_error()
        .is_some_and(|error| error.code() == &SqlState::UNIQUE_VIOLATION && error.constraint() == Some(constraint))
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        note_fault(&error);
        let fault = fault(&error);
        let Some(code) = error.code() else {
            // The connection broke: the server may have executed the requests sent on it.
            return Error::timeout().because(format_args!("a database connection broke: {error}"));
        };
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        match (&code.code()[..2], code) {
            (_, &SqlState::QUERY_CANCELED) => Error::timeout(),
            _ if fault == Some(Fault::Server) => {
                Error::unavailable("the database").because(format_args!("{READ_ONLY}: {error}"))
            }
            (
                _,
                &SqlState::LOCK_NOT_AVAILABLE
                | &SqlState::INVALID_SQL_STATEMENT_NAME
                | &SqlState::FEATURE_NOT_SUPPORTED,
            )
            | ("53" | "40", _) => {
                let cause = format_args!("the database rejects the request: {error} ({})", code.code()).to_string();
                Error::unavailable("the database").because(cause)
            }
            ("57" | "08" | "58", _) => {
                Error::timeout().because(format_args!("the database ended the connection: {error} ({})", code.code()))
            }
            _ => Error::internal(
                error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), |db| format!("{}: {}", db.code().code(), db.message())),
            ),
        }
    }
}
