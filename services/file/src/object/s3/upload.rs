//! Writes an object to the bucket: in one request if it fits into one part, otherwise in parts.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::Builder;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use confab_common::{Code, Error, Result};
use futures::future::{BoxFuture, FutureExt};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::failure::Failure;
use super::{Bucket, MOST_PARTS, Writer, patience};
use crate::memory::{Filling, Parts, UnderWay};

/// Parts of one object being sent at once.
const UNDER_WAY: usize = 2;
/// The rate that even a slow store accepts, in bytes per second.
const SLOWEST: u64 = 1024 * 1024;
/// How long a slow store takes per part to assemble the object.
const ASSEMBLY: Duration = Duration::from_millis(20);
/// The metadata field that identifies the writer of an object.
const WRITER: &str = "writer";

pub(super) struct Upload {
    bucket: Arc<Bucket>,
    key: String,
    writer: String,
    parts: Parts,
    filling: Filling,
    /// The store's id of the multipart upload, if it has begun.
    id: Option<String>,
    begun: i32,
    under_way: JoinSet<Result<CompletedPart>>,
    done: Vec<CompletedPart>,
}

impl Upload {
    pub(super) fn new(bucket: Arc<Bucket>, key: String, parts: Parts) -> Self {
        let writer = Uuid::new_v4().to_string();
        let filling = parts.part(bucket.part);
        Self { bucket, key, writer, parts, filling, id: None, begun: 0, under_way: JoinSet::new(), done: vec![] }
    }

    async fn begin(&mut self) -> Result<String> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let request = self
            .bucket
            .client
            .create_multipart_upload()
            .bucket(&self.bucket.name)
            .key(&self.key)
            .metadata(WRITER, &self.writer);
        let answer = request.send().await.map_err(|error| Failure::from(error).error())?;
        self.id = answer.upload_id;
        self.id.clone().ok_or_else(|| Error::internal("the S3 store returned no id for a multipart upload"))
    }

    /// Sends the filled part.
    async fn send_part(&mut self) -> Result<()> {
        if self.begun == MOST_PARTS as i32 {
            return Err(Error::new(Code::TooLarge, "the file is larger than the object store accepts"));
        }
        let id = self.begin().await?;
        while self.under_way.len() >= UNDER_WAY {
            self.collect().await?;
        }
        let permit = self.permit().await?;
        self.begun += 1;
        let (bucket, key, number) = (self.bucket.clone(), self.key.clone(), self.begun);
        let (bytes, memory) = self.take_filled();
        self.under_way.spawn(async move {
            let _held = (permit, memory);
            let patience = patience_for(&bucket, bytes.len());
            let request = bucket.client.upload_part().bucket(&bucket.name).key(key).upload_id(id).part_number(number);
            let sent = request.body(bytes.into()).customize().config_override(patience).send().await;
            let e_tag = sent.map_err(|error| Failure::from(error).error())?.e_tag;
            Ok(CompletedPart::builder().part_number(number).set_e_tag(e_tag).build())
        });
        Ok(())
    }

    /// Waits for a part that is being sent.
    async fn collect(&mut self) -> Result<()> {
        if let Some(part) = self.under_way.join_next().await {
            self.done.push(part.map_err(Error::internal)??);
        }
        Ok(())
    }

    /// Takes the filled part and replaces it by an empty one.
    fn take_filled(&mut self) -> (Bytes, UnderWay) {
        std::mem::replace(&mut self.filling, self.parts.part(self.bucket.part)).send()
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        self.bucket.parts.clone().acquire_owned().await.map_err(Error::internal)
    }

    async fn put(&mut self) -> Result<(), Failure> {
        let (bytes, _memory) = self.take_filled();
        let patience = patience_for(&self.bucket, bytes.len());
        let request =
            self.bucket.client.put_object().bucket(&self.bucket.name).key(&self.key).metadata(WRITER, &self.writer);
        request.if_none_match("*").body(bytes.into()).customize().config_override(patience).send().await?;
        Ok(())
    }

    async fn complete(&mut self, id: String) -> Result<(), Failure> {
        self.done.sort_unstable_by_key(|part| part.part_number);
        let within = 2 * self.bucket.answer + ASSEMBLY * self.begun.unsigned_abs();
        let patience = patience(within, within);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(std::mem::take(&mut self.done))).build();
        let request =
            self.bucket.client.complete_multipart_upload().bucket(&self.bucket.name).key(&self.key).upload_id(id);
        request.if_none_match("*").multipart_upload(parts).customize().config_override(patience).send().await?;
        Ok(())
    }

    /// Returns whether the object exists and this writer wrote it: if an answer is lost, the store rejects the repeat
    /// of a write that succeeded.
    async fn is_there(&self) -> bool {
        let answer = self.bucket.client.head_object().bucket(&self.bucket.name).key(&self.key).send().await;
        answer.is_ok_and(|object| object.metadata().and_then(|facts| facts.get(WRITER)) == Some(&self.writer))
    }
}

/// Returns time limits for sending this many bytes. An attempt that used all its time is not repeated, an early failure
/// is.
fn patience_for(bucket: &Bucket, bytes: usize) -> Builder {
    let within = 2 * bucket.answer + Duration::from_millis(bytes as u64 * 1000 / SLOWEST);
    patience(within, within)
}

impl Writer for Upload {
    fn write(&mut self, mut chunk: Bytes) -> BoxFuture<'_, Result<()>> {
        let write = async move {
            while !chunk.is_empty() {
                // A full part is kept until more bytes arrive: if the object ends here, it is sent in one request.
                if self.filling.is_full() {
                    self.send_part().await?;
                }
                self.filling.take(&mut chunk).await?;
            }
            Ok(())
        };
        write.boxed()
    }

    fn failed(&mut self) -> BoxFuture<'_, Error> {
        let failed = async move {
            while !self.under_way.is_empty() {
                if let Err(error) = self.collect().await {
                    return error;
                }
            }
            pending().await
        };
        failed.boxed()
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        let finish = async move {
            if self.id.is_some() {
                self.send_part().await?;
                while !self.under_way.is_empty() {
                    self.collect().await?;
                }
            }
            let _permit = self.permit().await?;
            let finished = match self.id.clone() {
                Some(id) => self.complete(id).await,
                None => self.put().await,
            };
            match finished {
                Err(failure) if failure.is_timeout() || !self.is_there().await => Err(failure.error_of_write()),
                _ => {
                    self.id = None;
                    Ok(())
                }
            }
        };
        finish.boxed()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), Handle::try_current()) else { return };
        let (bucket, key, mut under_way) =
            (self.bucket.clone(), std::mem::take(&mut self.key), std::mem::take(&mut self.under_way));
        runtime.spawn(async move {
            // A part that arrives after the abort would remain.
            under_way.shutdown().await;
            if let Err(error) = bucket.abort(&key, &id).await {
                tracing::warn!(%error, "cannot abort a multipart upload; the sweep will retry");
            }
        });
    }
}
