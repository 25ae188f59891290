//! Rate limits of users and addresses, shared by all gateways: the acts, their settings as rules, and the headers of
//! responses. The arithmetic and Redis are in `confab_common::limit`.

mod act;
mod decide;
mod quota;
mod request;

pub use act::Act;
pub use decide::{Limits, Subject};
pub use quota::Quota;
pub use request::{Attempt, RequestLimits, apply};

#[cfg(test)]
mod tests;
