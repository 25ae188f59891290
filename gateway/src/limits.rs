//! Rate limits of users and addresses, shared by all gateways: the acts, their settings as rules, and the headers of
//! responses, and the delay of rejections. The arithmetic and Redis are in `confab_common::limit`.

mod act;
mod decide;
mod late;
mod quota;
mod request;

pub use act::Act;
pub use decide::{Limits, Subject};
pub use late::LATE;
pub use quota::Quota;
pub use request::{Attempt, RequestLimits, apply};

#[cfg(test)]
mod tests;
