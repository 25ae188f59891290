//! Checks the store before its first use.

use super::failure::Failure;
use super::{Bucket, Owner, SWEEP_REQUEST_LIMIT, patience};

impl Bucket {
    /// Reads the owner object and writes it unchanged, on the condition that it does not exist. If this works,
    /// everything that uploads need works.
    pub(super) async fn check(&self, owner: &Owner) -> Result<(), String> {
        let read = self.client.get_object().bucket(&self.name).key(self.mark()).customize();
        // Obtaining credentials may take a while.
        let found = match read
            .config_override(patience(SWEEP_REQUEST_LIMIT, SWEEP_REQUEST_LIMIT))
            .send()
            .await
            .map_err(Failure::from)
        {
            Ok(found) => Some(found.body.collect().await.map_err(|error| error.to_string())?.into_bytes()),
            Err(failure) if failure.has_no_bucket() => {
                self.ready()
                    .await
                    .map_err(|_| format!("the bucket {} does not exist and cannot be created", self.name))?;
                None
            }
            // Without the permission to list, a missing object is reported as forbidden.
            Err(failure) if failure.is_absent() || failure.is_denied() => None,
            Err(failure) => return Err(failure.reason()),
        };
        let text = match found {
            Some(found) => found,
            None => owner.to_text().map_err(|error| error.to_string())?.into(),
        };
        // If there is no owner object, the second request conflicts with the object of the first.
        for _ in 0..2 {
            let write = self
                .client
                .put_object()
                .bucket(&self.name)
                .key(self.mark())
                .if_none_match("*")
                .body(text.clone().into());
            match write.send().await.map_err(Failure::from) {
                Ok(_) => {}
                Err(failure) if failure.is_conflict() => return Ok(()),
                Err(failure) => return Err(failure.reason()),
            }
        }
        Err("the store ignores the condition of a write (If-None-Match): it works, but two installations that use the same bucket \
             can replace each other's objects"
            .into())
    }
}
