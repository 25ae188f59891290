//! The owner object in the bucket.

use confab_common::{Code, Error, Result};

use super::failure::Failure;
use super::{Bucket, Found, Owner};
use crate::object::owner::NAME;

/// Largest owner object that is read, in bytes (16 KiB).
const LARGEST: usize = 16 * 1024;

impl Bucket {
    pub(super) async fn owner(&self) -> Result<Option<Found>> {
        self.ready().await?;
        let range = format!("bytes=0-{}", LARGEST - 1);
        let answer = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(self.mark())
            .range(range)
            .send()
            .await
            .map_err(Failure::from);
        let answer = match answer {
            // Keys that may only list below a prefix get "forbidden" for a missing object: creating it shows whether it
            // was missing.
            Err(failure) if failure.is_absent() || failure.is_forbidden() => return Ok(None),
            answer => answer.map_err(Failure::error)?,
        };
        let version = answer.e_tag;
        let bytes = answer.body.collect().await.map_err(|_| Error::unavailable("file storage"))?.into_bytes();
        Ok(Some(Found { owner: Owner::from_bytes(&bytes), copied: false, version }))
    }

    pub(super) async fn claim(&self, owner: &Owner) -> Result<bool> {
        self.ready().await?;
        let request = self.client.put_object().bucket(&self.name).key(self.mark()).if_none_match("*");
        match request.body(owner.to_text()?.into_bytes().into()).send().await.map_err(Failure::from) {
            // An earlier attempt of this request may have created it, if its answer was lost: reading it shows the
            // owner.
            Err(failure) if failure.is_conflict() => Ok(false),
            answer => answer.map(|_| true).map_err(Failure::error),
        }
    }

    /// Stores that ignore conditions on this request replace any object.
    pub(super) async fn set_owner(&self, owner: &Owner, version: Option<String>) -> Result<()> {
        self.ready().await?;
        let request = self.client.put_object().bucket(&self.name).key(self.mark()).set_if_match(version);
        match request.body(owner.to_text()?.into_bytes().into()).send().await.map_err(Failure::from) {
            Err(failure) if failure.is_conflict() => Err(Error::new(Code::Conflict, "the owner object has changed")),
            answer => answer.map(drop).map_err(Failure::error),
        }
    }

    pub(super) fn mark(&self) -> String {
        format!("{}{NAME}", self.prefix)
    }
}
