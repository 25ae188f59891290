//! Classifies an attempt without an answer: its cause, and whether the replica may have executed the call.

use std::error::Error;

pub(super) struct Failure {
    /// The innermost cause.
    pub cause: String,
    /// Whether connecting to the replica failed.
    pub connecting: bool,
    /// Whether the replica certainly did not execute the call.
    pub undone: bool,
}

impl Failure {
    pub fn of(error: impl Error + 'static) -> Self {
        let mut failure = Self { cause: error.to_string(), connecting: false, undone: false };
        let mut next: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(error) = next {
            failure.connecting |= error.is::<tonic::ConnectError>();
            failure.undone |= failure.connecting || never_sent(error) || not_taken(error);
            failure.cause = error.to_string();
            next = error.source();
        }
        failure
    }
}

/// Returns whether the connection ended before the call was sent.
fn never_sent(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(hyper::Error::is_canceled)
}

/// Returns whether the replica rejected the call unprocessed, usually because it is shutting down (RFC 9113, 6.8 and
/// 8.7).
fn not_taken(error: &(dyn Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<h2::Error>() else { return false };
    error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Empty;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;

    use super::*;

    #[tokio::test]
    async fn unsent_call_is_known_not_done() {
        let (near, _far) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        drop(connection);
        let failure = Failure::of(sender.send_request(Request::new(Empty::<Bytes>::new())).await.unwrap_err());
        assert!(failure.undone && !failure.connecting, "{}", failure.cause);
    }

    #[tokio::test]
    async fn sent_call_on_a_broken_connection_may_be_done() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(near)).await.unwrap();
        tokio::spawn(connection);
        let breaking = async {
            use tokio::io::AsyncReadExt;
            far.read_u8().await.unwrap();
            drop(far);
        };
        let (answer, ()) = tokio::join!(sender.send_request(Request::new(Empty::<Bytes>::new())), breaking);
        let failure = Failure::of(answer.unwrap_err());
        assert!(!failure.undone && !failure.connecting, "{}", failure.cause);
    }
}
