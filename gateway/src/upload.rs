//! Streams a file to the file service, as fast as the service accepts it.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use confab_common::grpc::{self, Call};
use confab_common::{Code, Error, Result};
use confab_proto::file::v1::upload_request::{Begin, Finish, Part};
use confab_proto::file::v1::{File, UploadRequest, UploadResponse};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clients::Clients;

/// How long the service may take to accept a piece, and to answer after the end.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Pieces queued for the service.
const AHEAD: usize = 2;

/// An upload in progress. Dropped before its end, it leaves nothing behind.
pub struct Upload {
    parts: mpsc::Sender<UploadRequest>,
    answer: BoxFuture<'static, Result<UploadResponse>>,
    /// The answer, if the service answered before the end.
    early: Option<UploadResponse>,
}

impl Upload {
    /// Starts the call of the service.
    pub fn begin(clients: &Clients, begin: Begin) -> Self {
        let (parts, mut queue) = mpsc::channel(AHEAD);
        let first = parts.try_send(part(Part::Begin(begin)));
        debug_assert!(first.is_ok(), "a new queue has room");
        let mut service = clients.file.clone();
        let stream = poll_fn(move |context| queue.poll_recv(context));
        let answer = async move { Ok(service.upload(grpc::request(stream, Call::streaming())).await?.into_inner()) };
        Self { parts, answer: answer.boxed(), early: None }
    }

    /// Waits for the client, unless the service refuses meanwhile.
    ///
    /// # Errors
    /// The client's error, or the service's refusal.
    pub async fn meanwhile<T>(&mut self, client: impl Future<Output = Result<T>>) -> Result<T> {
        let mut client = pin!(client);
        if self.early.is_none() {
            tokio::select! {
                biased;
                answer = &mut self.answer => self.early = Some(answer.map_err(unfinished)?),
                got = &mut client => return got,
            }
        }
        client.await
    }

    /// Sends some of the file's bytes once the service accepts more.
    ///
    /// # Errors
    /// The service's refusal; `unavailable` when the service stops accepting.
    pub async fn send(&mut self, bytes: Bytes) -> Result<()> {
        if self.early.is_some() || bytes.is_empty() {
            return Ok(());
        }
        self.give(Part::Chunk(bytes)).await
    }

    /// The file, if the service has answered already: a repeat needs no bytes.
    pub fn answered(&self) -> Option<&File> {
        self.early.as_ref().and_then(|answer| answer.file.as_ref())
    }

    /// Ends the file, and waits for the service to store it.
    ///
    /// # Errors
    /// The service's refusal; `timeout` when the outcome is not known in time.
    pub async fn finish(mut self, finish: Finish) -> Result<UploadResponse> {
        if self.early.is_none() {
            self.give(Part::Finish(finish)).await?;
        }
        if let Some(answer) = self.early {
            return Ok(answer);
        }
        drop(self.parts);
        timeout(PATIENCE, self.answer).await.unwrap_or_else(|_| Err(Error::timeout()))
    }

    async fn give(&mut self, what: Part) -> Result<()> {
        let (parts, answer) = (&self.parts, &mut self.answer);
        let given = async {
            tokio::select! {
                biased;
                answer = answer => Some(answer),
                // If the service has stopped reading, its answer is on the way.
                _ = parts.send(part(what)) => None,
            }
        };
        match timeout(PATIENCE, given).await {
            Ok(None) => Ok(()),
            Ok(Some(answer)) => {
                self.early = Some(answer.map_err(unfinished)?);
                Ok(())
            }
            Err(_) => Err(Error::unavailable("the file service")),
        }
    }
}

fn part(part: Part) -> UploadRequest {
    UploadRequest { part: Some(part) }
}

/// An upload that was not finished leaves nothing behind, whatever became of the call.
fn unfinished(error: Error) -> Error {
    match error.code {
        Code::Timeout => Error::unavailable("the file service"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::files::Files;
    use crate::testing::{eventually, identity};

    fn begin(files: &Files) -> Upload {
        Upload::begin(&files.clients(), Begin { name: "a.txt".into(), caller: Some(identity().user), ..Begin::default() })
    }

    #[tokio::test]
    async fn a_file_in_pieces() {
        let files = Files::default();
        let mut upload = begin(&files);
        for piece in ["some ", "", "text"] {
            upload.send(piece.into()).await.unwrap();
        }
        let kept = upload.finish(Finish::default()).await.unwrap().file.unwrap();
        assert_eq!((kept.size, files.bytes(&kept.id)), (9, Some("some text".into())));
    }

    #[tokio::test]
    async fn a_refusal_arrives_while_the_client_sends_nothing() {
        let files = Files::default();
        files.refuse(Error::new(Code::Forbidden, "not here"));
        let mut upload = begin(&files);
        let refused = upload.meanwhile(std::future::pending::<Result<()>>()).await;
        assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    }

    #[tokio::test]
    async fn an_abandoned_upload_leaves_nothing() {
        let files = Files::default();
        let mut upload = begin(&files);
        while files.under_way() == 0 {
            upload.send("some".into()).await.unwrap();
        }
        drop(upload);
        eventually(|| files.under_way() == 0).await;
        assert_eq!(files.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_accepts_nothing_times_out() {
        let files = Files::default();
        files.stall();
        let mut upload = begin(&files);
        let sent = async {
            loop {
                upload.send("x".into()).await?;
            }
        };
        let sent: Result<()> = sent.await;
        assert_eq!(sent.unwrap_err().code, Code::Unavailable);
        let late = begin(&files).finish(Finish::default()).await;
        assert_eq!(late.unwrap_err().code, Code::Timeout);
    }
}
