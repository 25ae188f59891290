//! Fail points of test builds: places where [`failpoint!`](crate::failpoint!) can make a program fail, controlled through the
//! admin port: `POST /failpoints/NAME` with `on`, `abort` or `off`, `GET` for the number of hits since.

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

/// Passes a fail point: ends the process at once, or returns whether to fail.
pub fn hit(name: &str) -> bool {
    let mut points = points();
    let Some(point) = points.get_mut(name).filter(|point| point.action != Action::Off) else { return false };
    point.hits += 1;
    if point.action == Action::Abort {
        std::process::abort();
    }
    true
}

/// The routes of the admin port.
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
