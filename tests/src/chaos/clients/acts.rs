//! Acts on rooms and sessions. A client repeats each act until it knows that the change stands.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::access::{Change, Role};
use super::super::history::{At, Outcome, What};
use super::super::world::World;
use super::{ANSWER_LIMIT, RETRY_PAUSE, rest_outcome};
use crate::api::Account;

/// How long a client waits for the answer to a request with a password: the hash may wait for 5 s.
const PASSWORD_LIMIT: Duration = Duration::from_secs(11);

/// The answer to an act.
pub struct Acted {
    /// When the client knew the outcome.
    pub at: At,
    /// The body; null when a repeat showed that an earlier attempt had succeeded.
    pub body: Value,
}

/// A request that changes a room or sessions.
pub struct Request<'a> {
    pub account: Option<&'a Account>,
    pub method: Method,
    pub path: String,
    pub body: Option<Value>,
}

/// Changes a room. The account must have the right to do so, and the room must be in another state.
pub async fn change(world: &World, account: &Account, room: Uuid, change: Change) {
    let member = |user: &Uuid| format!("/api/rooms/{room}/members/{user}");
    let (method, path, body) = match &change {
        Change::Joined { user, .. } => (Method::PUT, member(user), Some(json!({}))),
        Change::Left { user } => (Method::DELETE, member(user), None),
        // A room that is passed on makes the former owner an admin, so the highest role is the requested one.
        Change::Roles(roles) => {
            let (user, role) = roles.iter().max_by_key(|(_, role)| **role).unwrap_or((&room, &Role::Member));
            (Method::PUT, member(user), Some(json!({"role": role.name()})))
        }
        Change::Visibility { private } => {
            let visibility = if *private { "private" } else { "public" };
            (Method::PATCH, format!("/api/rooms/{room}"), Some(json!({"visibility": visibility})))
        }
    };
    // A repeat of a removal finds that the user is not a member. A load balancer may repeat a DELETE, too.
    let removal = matches!(change, Change::Left { .. });
    let stands = |outcome: &Outcome| *outcome == Outcome::Done || (removal && outcome.is_hidden());
    let request = Request { account: Some(account), method, path, body };
    act(world, What::Room { room, change }, request, stands).await;
}

/// Makes an act. `stands`: whether this outcome shows that the change stands.
pub async fn act(world: &World, what: What, request: Request<'_>, stands: impl Fn(&Outcome) -> bool) -> Acted {
    // No act overlaps with the restore of the database, which would undo it.
    let _acting = world.acting.read().await;
    let limit = if what.has_password() { PASSWORD_LIMIT } else { ANSWER_LIMIT };
    let act = world.recorder.acting(what);
    let Request { account, method, path, body } = request;
    loop {
        let begun = world.recorder.now();
        let answer = timeout(limit, world.api.call(method.clone(), &path, account, body.clone())).await.ok();
        let received = answer.as_ref().and_then(|answer| answer.as_ref().ok()).filter(|answer| answer.status < 300);
        let received = received.map(|answer| answer.body.clone()).unwrap_or_default();
        let outcome = rest_outcome(answer);
        let known = stands(&outcome);
        let at = world.recorder.acted(act, begun, None, outcome, known);
        if known {
            return Acted { at, body: received };
        }
        sleep(RETRY_PAUSE).await;
    }
}
