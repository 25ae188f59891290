//! Whose objects these are: what the owner object beside them says.

use confab_common::{Error, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of the owner object, beside everything else of the store.
pub const NAME: &str = ".confab";

/// What an owner object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The installation's id.
    pub installation: Uuid,
    /// The database that the installation runs on.
    pub database: String,
    /// Changes now and then together with that database, so that an older copy of it is told apart.
    pub turn: Uuid,
    /// In a directory: which file this is. A copy is another file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// An owner object that is there.
#[derive(Debug, Clone)]
pub struct Found {
    pub owner: Owner,
    /// It was copied here, with the objects beside it: the objects that it speaks of are elsewhere.
    pub copied: bool,
    /// Which version of the object this is, where the store tells.
    pub version: Option<String>,
}

impl Owner {
    /// As it is written.
    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map(|text| text + "\n").map_err(Error::internal)
    }

    /// What was written; what cannot be read belongs to an installation that there is not.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|_| Self {
            installation: Uuid::nil(),
            database: "which cannot be read".into(),
            turn: Uuid::nil(),
            file: String::new(),
        })
    }
}
