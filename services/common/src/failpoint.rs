//! Failpoints of test builds: places in the code where a test makes the program fail. [`failpoint!`](crate::failpoint!)
//! marks one. The admin port controls them: `POST /failpoints/NAME` with the body `on`, `abort` or `off`; `GET` returns
//! the number of hits since.

use std::collections::HashMap;
use std::sync::OnceLock;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::{Mutex, MutexGuard};

#[derive(Default)]
struct Point {
    action: Action,
    hits: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Action {
    #[default]
    Off,
    On,
    Abort,
}

fn points() -> MutexGuard<'static, HashMap<String, Point>> {
    static POINTS: OnceLock<Mutex<HashMap<String, Point>>> = OnceLock::new();
    POINTS.get_or_init(Mutex::default).lock()
}

/// Hits a failpoint: aborts the process, or returns whether the code must fail.
pub fn hit(name: &str) -> bool {
    let mut points = points();
    let Some(point) = points.get_mut(name).filter(|point| point.action != Action::Off) else { return false };
    point.hits += 1;
    if point.action == Action::Abort {
        std::process::abort();
    }
    true
}

/// The admin port's routes for failpoints.
pub(crate) fn routes() -> Router {
    let read = async |Path(name): Path<String>| points().get(&name).map_or(0, |point| point.hits).to_string();
    let write = async |Path(name): Path<String>, body: String| {
        let action = match body.trim() {
            "on" => Action::On,
            "abort" => Action::Abort,
            "off" => Action::Off,
            _ => return StatusCode::BAD_REQUEST,
        };
        points().insert(name, Point { action, hits: 0 });
        StatusCode::NO_CONTENT
    };
    Router::new().route("/failpoints/{name}", get(read).post(write))
}
