//! Streams a file to the file service, with back pressure from the service.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use confab_common::grpc::{self, Call};
use confab_common::{Code, Error, Result};
use confab_identity::credential::Credential;
use confab_proto::file::v1::upload_request::{Begin, Finish, Part};
use confab_proto::file::v1::{File, UploadRequest, UploadResponse};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clients::Clients;

/// How long the service may take to accept one chunk, and to answer after the last chunk.
pub const FILE_STALL_LIMIT: Duration = Duration::from_secs(15);
/// Chunks queued for the service.
const AHEAD: usize = 2;

/// An upload in progress. If it is dropped before [`finish`](Self::finish), the service discards the file.
pub struct Upload {
    parts: mpsc::Sender<UploadRequest>,
    answer: BoxFuture<'static, Result<UploadResponse>>,
    /// The service's answer, if it arrived before the last chunk.
    early: Option<UploadResponse>,
}

impl Upload {
    /// Starts the call to the file service.
    pub fn begin(clients: &Clients, credential: &Credential, begin: Begin) -> Self {
        let (parts, mut queue) = mpsc::channel(AHEAD);
        let first = parts.try_send(part(Part::Begin(begin)));
        debug_assert!(first.is_ok(), "a new queue is empty");
        let mut service = clients.file.clone();
        let stream = poll_fn(move |context| queue.poll_recv(context));
        let call = credential.attach(grpc::request(stream, Call::streaming()));
        let answer = async move { Ok(service.upload(call).await?.into_inner()) };
        Self { parts, answer: answer.boxed(), early: None }
    }

    /// Waits for the client, unless the service rejects the upload meanwhile.
    ///
    /// # Errors
    /// The client's error, or the service's rejection.
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

    /// Sends a chunk as soon as the service accepts more.
    ///
    /// # Errors
    /// The service's rejection; `unavailable` when the service accepts nothing for 15 s.
    pub async fn send(&mut self, bytes: Bytes) -> Result<()> {
        if self.early.is_some() || bytes.is_empty() {
            return Ok(());
        }
        self.give(Part::Chunk(bytes)).await
    }

    /// The file, if the service has already answered: a repeated upload needs no bytes.
    pub fn answered(&self) -> Option<&File> {
        self.early.as_ref().and_then(|answer| answer.file.as_ref())
    }

    /// Ends the stream and waits until the service has stored the file.
    ///
    /// # Errors
    /// The service's rejection; `timeout` when the service does not answer within 15 s, so that the outcome is unknown.
    pub async fn finish(mut self, finish: Finish) -> Result<UploadResponse> {
        if self.early.is_none() {
            self.give(Part::Finish(finish)).await?;
        }
        if let Some(answer) = self.early {
            return Ok(answer);
        }
        drop(self.parts);
        timeout(FILE_STALL_LIMIT, self.answer).await.unwrap_or_else(|_| Err(Error::timeout()))
    }

    async fn give(&mut self, what: Part) -> Result<()> {
        let (parts, answer) = (&self.parts, &mut self.answer);
        let given = async {
            tokio::select! {
                biased;
                answer = answer => Some(answer),
                // If the service has stopped reading, its answer follows.
                _ = parts.send(part(what)) => None,
            }
        };
        match timeout(FILE_STALL_LIMIT, given).await {
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

/// The service discards an unfinished upload, so an unknown outcome becomes `unavailable`: nothing was done.
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
        Upload::begin(
            &files.clients(),
            &Credential::default(),
            Begin { name: "a.txt".into(), caller: Some(identity().user), ..Begin::default() },
        )
    }

    #[tokio::test]
    async fn a_file_is_uploaded_in_chunks() {
        let files = Files::default();
        let mut upload = begin(&files);
        for piece in ["some ", "", "text"] {
            upload.send(piece.into()).await.unwrap();
        }
        let kept = upload.finish(Finish::default()).await.unwrap().file.unwrap();
        assert_eq!((kept.size, files.bytes(&kept.id)), (9, Some("some text".into())));
    }

    #[tokio::test]
    async fn a_rejection_arrives_while_the_client_sends_nothing() {
        let files = Files::default();
        files.refuse(Error::new(Code::Forbidden, "not here"));
        let mut upload = begin(&files);
        let refused = upload.meanwhile(std::future::pending::<Result<()>>()).await;
        assert_eq!(refused.unwrap_err().code, Code::Forbidden);
    }

    #[tokio::test]
    async fn a_dropped_upload_stores_nothing() {
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
    async fn an_upload_times_out_when_the_service_stalls() {
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
