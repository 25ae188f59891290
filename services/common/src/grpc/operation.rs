//! The id of a call that changes something. The caller creates it before its first attempt, and each attempt has it, so
//! that a service recognises a repeat. It travels in the metadata, so callers of earlier releases have none.

use tonic::metadata::MetadataValue;
use uuid::Uuid;

/// The metadata field with the id: a UUIDv7.
const OPERATION: &str = "confab-operation";

/// Gives a request the id of a new operation.
pub(super) fn begin<T>(request: &mut tonic::Request<T>) {
    if let Ok(id) = MetadataValue::try_from(Uuid::now_v7().to_string()) {
        request.metadata_mut().insert(OPERATION, id);
    }
}

/// Returns the id of the operation that a request belongs to.
pub fn operation<T>(request: &tonic::Request<T>) -> Option<Uuid> {
    let id = Uuid::try_parse(request.metadata().get(OPERATION)?.to_str().ok()?).ok()?;
    (id.get_version_num() == 7).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::grpc::{Call, request};

    #[test]
    fn calls_that_change_something_have_an_id() {
        let call = Call::within(Duration::from_secs(1));
        let (first, second) = (operation(&request((), call)), operation(&request((), call)));
        assert!(first.is_some() && second.is_some() && first != second);
        assert_eq!(operation(&request((), call.reading())), None);
        let mut odd = tonic::Request::new(());
        assert_eq!(operation(&odd), None);
        odd.metadata_mut().insert(OPERATION, "tea".parse().unwrap());
        assert_eq!(operation(&odd), None);
    }
}
