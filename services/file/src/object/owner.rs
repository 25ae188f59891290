//! The owner object, which names the installation that owns the other objects.

use confab_common::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the owner object at the top of the store.
pub const NAME: &str = ".confab";

/// The content of an owner object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The id of the installation.
    pub installation: Uuid,
    /// The database of the installation.
    pub database: String,
    /// Changes from time to time, together with the value in the database, so that an older copy of the database is
    /// detected.
    pub turn: Uuid,
    /// In a directory: the identity of the owner object's file. A copy is another file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// An owner object that was found.
#[derive(Debug, Clone)]
pub struct Found {
    pub owner: Owner,
    /// Whether it was copied here together with the objects: the objects that it refers to are elsewhere.
    pub copied: bool,
    /// The object's version, if the store has versions.
    #[cfg_attr(not(feature = "s3"), expect(dead_code, reason = "directories have no versions"))]
    pub version: Option<String>,
}

impl Owner {
    /// Serialises the owner.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map(|text| text + "\n").map_err(Error::internal)
    }

    /// Parses an owner. An unreadable owner belongs to an installation that does not exist.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Self {
            installation: Uuid::nil(),
            database: "which cannot be read".into(),
            turn: Uuid::nil(),
            file: String::new(),
        })
    }
}
