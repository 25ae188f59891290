//! The quota of a user: how many files and bytes it may store.

use confab_common::metrics::LIMITS;
use confab_common::{Code, Error, Result};

/// What one user may store; 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub files: u64,
    pub bytes: u64,
}

/// What a user stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: u64,
    pub bytes: u64,
    /// Files with a `clientMessageId`: only these can have repeats.
    pub named: u64,
}

impl Usage {
    /// Returns the usage with another file of at least this size.
    pub fn with(self, bytes: u64) -> Self {
        Self { files: self.files.saturating_add(1), bytes: self.bytes.saturating_add(bytes), ..self }
    }
}

impl Quota {
    /// Returns whether there is no limit.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Checks whether a user may store this much.
    ///
    /// # Errors
    /// `too_large` when it is more than the quota.
    pub fn check(self, usage: Usage) -> Result<()> {
        let exceeded = |usage: u64, maximum: u64| maximum > 0 && usage > maximum;
        if exceeded(usage.files, self.files) {
            LIMITS.hit("files_per_user");
            let detail = format!("a user may store at most {} files; delete some first", self.files);
            return Err(Error::new(Code::TooLarge, detail));
        }
        if exceeded(usage.bytes, self.bytes) {
            LIMITS.hit("bytes_per_user");
            let detail =
                format!("the files of a user may have at most {} bytes together; delete some first", self.bytes);
            return Err(Error::new(Code::TooLarge, detail));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_no_limit() {
        let usage = Usage { files: 3, bytes: 100, named: 0 };
        assert!(Quota::default().is_none());
        for (files, bytes, is_rejected) in
            [(0, 0, false), (3, 100, false), (0, 100, false), (3, 0, false), (2, 0, true), (0, 99, true)]
        {
            let checked = Quota { files, bytes }.check(usage).map_err(|error| error.code);
            assert_eq!(checked, if is_rejected { Err(Code::TooLarge) } else { Ok(()) }, "{files} {bytes}");
        }
        assert!(Quota { files: 3, bytes: 0 }.check(usage.with(1)).is_err());
        assert!(Quota { files: 0, bytes: 101 }.check(usage.with(1)).is_ok());
        assert!(Quota { files: 0, bytes: u64::MAX - 1 }.check(usage.with(u64::MAX)).is_err());
    }
}
