use std::fs::Metadata;
use std::time::UNIX_EPOCH;

/// Returns an identity of a file that does not depend on its path; a copy has another identity. The device number is
/// left out, because it may change when the machine restarts.
pub fn of_file(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}:{}", metadata.ino(), born.as_nanos())
}
