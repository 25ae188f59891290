//! Reads an object from the bucket. After a body that ends early or stalls, the rest is requested again.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use confab_common::{Error, Result};
use futures::stream::{self, StreamExt};
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::{Bucket, Content};

/// How long a body may stall.
const STALL_LIMIT: Duration = Duration::from_secs(3);
/// How often in a row a body is requested again without progress.
const TRIES: u32 = 6;
/// The pause before the first of these requests; doubled before each further request.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Download {
    bucket: Arc<Bucket>,
    key: String,
    offset: u64,
    left: u64,
    body: ByteStream,
}

impl Download {
    pub(super) async fn begin(bucket: Arc<Bucket>, key: String, offset: u64, length: u64) -> Result<Option<Content>> {
        if length == 0 {
            return Ok(is_there(&bucket, &key).await?.then(|| stream::empty().boxed()));
        }
        let Some(body) = get(&bucket, &key, offset, length).await? else { return Ok(None) };
        let download = Self { bucket, key, offset, left: length, body };
        Ok(Some(stream::try_unfold(download, Self::next).boxed()))
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut tries = 0;
        loop {
            if let Ok(Some(Ok(mut chunk))) = timeout(STALL_LIMIT, self.body.next()).await {
                chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= chunk.len() as u64;
                self.offset += chunk.len() as u64;
                return Ok(Some((chunk, self)));
            }
            self.body = self.again(&mut tries).await?;
        }
    }

    /// Requests the rest of the body, within the remaining tries.
    async fn again(&self, tries: &mut u32) -> Result<ByteStream> {
        let mut last = Error::unavailable("file storage");
        while *tries < TRIES {
            sleep(FIRST_PAUSE * 2_u32.pow(*tries)).await;
            *tries += 1;
            match get(&self.bucket, &self.key, self.offset, self.left).await {
                Ok(Some(body)) => return Ok(body),
                Ok(None) => return Err(Error::not_found("file")),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn get(bucket: &Bucket, key: &str, offset: u64, length: u64) -> Result<Option<ByteStream>> {
    let range = format!("bytes={offset}-{}", offset.saturating_add(length - 1));
    let answer =
        match bucket.client.get_object().bucket(&bucket.name).key(key).range(range).send().await.map_err(Failure::from)
        {
            Err(failure) if failure.is_absent() => return Ok(None),
            Err(failure) => return Err(failure.error()),
            Ok(answer) => answer,
        };
    if answer.content_range().is_some_and(|range| range.starts_with(&format!("bytes {offset}-"))) {
        Ok(Some(answer.body))
    } else {
        Err(Error::internal("the S3 store returned a different range than requested"))
    }
}

async fn is_there(bucket: &Bucket, key: &str) -> Result<bool> {
    match bucket.client.head_object().bucket(&bucket.name).key(key).send().await.map_err(Failure::from) {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_absent() => Ok(false),
        Err(failure) => Err(failure.error()),
    }
}
