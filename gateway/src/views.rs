//! The public response types. REST and Socket.IO return the same JSON objects.

mod admin;
mod change;
mod file;
pub mod history;
mod message;
mod page;
mod reaction;
mod room;
mod search;
mod unread;
mod user;

pub use admin::{CreatedKey, EntryJson, InviteJson, Keys, ScopeJson};
pub use change::{ChangedJson, ItemJson, Versions};
pub use file::{FileJson, FileUrl, LinkJson, PresentFile};
pub use message::{MessageJson, Repeated};
pub use page::{Page, Time};
pub use reaction::{ReactedJson, ReactionList, Reactions};
pub use room::{Details, MemberJson, RoleJson, RoomJson, Viewer, VisibilityJson};
pub use search::FoundMessages;
pub use unread::{LevelJson, MarkerJson, ReceiptJson, Receipts, UnreadJson};
pub use user::{Account, Opened, ProfileJson, Sessions};

#[cfg(test)]
mod tests;
