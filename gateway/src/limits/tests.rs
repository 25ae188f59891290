use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use confab_common::{Code, Error};
use confab_socketio::net::ClientAddress;
use tokio::time::{Instant, advance, timeout};
use uuid::Uuid;

use super::*;
use crate::config::limits::LimitsConfig;
use crate::problem::Problem;
use crate::testing::{Answer, bus, send, send_body};

#[derive(clap::Parser)]
struct Settings {
    #[command(flatten)]
    limits: LimitsConfig,
}

fn limits(settings: &[&str]) -> Arc<Limits> {
    let config = Settings::parse_from(["test"].iter().chain(settings)).limits;
    Arc::new(Limits::open(&config, &bus(), None))
}

fn address(text: &str) -> ClientAddress {
    text.parse::<IpAddr>().unwrap().into()
}

async fn signup(limits: RequestLimits, address: ClientAddress) -> Result<StatusCode, Problem> {
    limits.check(Act::Signup, address).await?;
    Ok(StatusCode::CREATED)
}

/// The password is the path.
async fn login(limits: RequestLimits, address: ClientAddress, uri: Uri) -> Response {
    let answer = async {
        limits.check(Act::Login, address).await?;
        let attempt = limits.attempt("Ada", address).await?;
        match uri.path() {
            "/login/right" => attempt.succeeded().await,
            "/login/wrong" => {
                attempt.failed().await;
                return Err(Problem(Error::new(Code::InvalidCredentials, "wrong username or password")));
            }
            _ => return Err(Problem(Error::unavailable("the auth service"))),
        }
        Ok(StatusCode::OK)
    };
    answer.await.into_response()
}

fn routes(settings: &[&str]) -> Router {
    let send = |limits: RequestLimits| async move {
        limits.take(Act::Send, Uuid::from_u128(7)).map(|()| StatusCode::CREATED).map_err(Problem)
    };
    let routes = Router::new()
        .route("/signup", post(signup))
        .route("/login/{password}", post(login))
        .route("/send", post(send))
        .route("/free", get(|| async { "free" }));
    routes.layer(from_fn_with_state(limits(settings), apply))
}

async fn post_to(routes: &Router, path: &str) -> Answer {
    send(routes, Request::post(path)).await
}

fn fields(headers: &HeaderMap) -> (Vec<&str>, Vec<&str>) {
    let lines = |name: &str| headers.get_all(name).iter().map(|line| line.to_str().unwrap()).collect::<Vec<_>>();
    (lines("RateLimit-Policy"), lines("RateLimit"))
}

#[tokio::test(start_paused = true)]
async fn responses_state_the_limit_and_when_to_retry() {
    let routes = routes(&["--limit-signup", "2,1/m"]);
    let policy = || vec!["\"signup\";q=2;w=120"];
    let answer = post_to(&routes, "/signup").await;
    assert_eq!((answer.status, fields(&answer.headers)), (201, (policy(), vec!["\"signup\";r=1;t=60"])));
    assert!(!answer.headers.contains_key(RETRY_AFTER));
    advance(Duration::from_millis(500)).await;
    let answer = post_to(&routes, "/signup").await;
    assert_eq!((answer.status, fields(&answer.headers)), (201, (policy(), vec!["\"signup\";r=0;t=60"])));
    let answer = post_to(&routes, "/signup").await;
    assert_eq!((answer.status, fields(&answer.headers)), (429, (policy(), vec!["\"signup\";r=0;t=60"])));
    let answer = send(&routes, Request::get("/free")).await;
    assert_eq!((answer.status, fields(&answer.headers)), (200, (vec![], vec![])));
}

#[tokio::test(start_paused = true)]
async fn rejections_carry_the_time_to_wait() {
    let limits = limits(&["--limit-create-room", "1,10/m"]);
    let user = Uuid::from_u128(1);
    limits.check(Act::CreateRoom, user).await.unwrap();
    limits.check(Act::CreateRoom, Uuid::from_u128(2)).await.unwrap();
    advance(Duration::from_millis(1500)).await;
    let error = limits.check(Act::CreateRoom, user).await.unwrap_err();
    assert_eq!((error.code, error.detail.as_str()), (Code::RateLimited, "too many new rooms; try again in 5 s"));
    assert_eq!(error.retry_after, Some(Duration::from_millis(4500)));
    let rendered = crate::problem::render(Problem(error).into_response(), "r1", true);
    assert_eq!(rendered.headers()[RETRY_AFTER], "5");
    advance(Duration::from_millis(4500)).await;
    limits.check(Act::CreateRoom, user).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn only_wrong_passwords_count_and_each_limit_has_a_line() {
    let routes = routes(&["--limit-wrong-password", "2,2/m", "--limit-login", "100,1/s"]);
    for path in ["/login/right", "/login/unavailable", "/login/right", "/login/unavailable"] {
        let answer = post_to(&routes, path).await;
        let (policies, states) = fields(&answer.headers);
        assert_eq!(policies, ["\"login\";q=100;w=100", "\"wrong_password\";q=2;w=60"]);
        assert_eq!(states[1], "\"wrong_password\";r=2;t=0", "{path}");
    }
    for left in ["\"wrong_password\";r=1;t=30", "\"wrong_password\";r=0;t=30"] {
        let answer = post_to(&routes, "/login/wrong").await;
        assert_eq!((answer.status, fields(&answer.headers).1[1]), (401, left));
    }
    assert_eq!(post_to(&routes, "/login/right").await.status, 429);
    advance(Duration::from_secs(30)).await;
    assert_eq!(post_to(&routes, "/login/right").await.status, 200);
    for _ in 0..2 {
        assert_eq!(post_to(&routes, "/login/wrong").await.status, 401);
    }
    assert_eq!(post_to(&routes, "/login/wrong").await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn rejections_of_acts_without_a_token_are_delayed() {
    let routes =
        routes(&["--limit-signup=1,1/h", "--limit-login=4,1/h", "--limit-wrong-password=1,1/m", "--limit-send=1,1/h"]);
    let seconds = async |path: &str| {
        let begun = Instant::now();
        (post_to(&routes, path).await.status, begun.elapsed().as_secs())
    };
    assert_eq!([seconds("/signup").await, seconds("/signup").await], [(201, 0), (429, 1)]);
    // The wrong password leaves no further attempt, but is not a rejection itself.
    assert_eq!([seconds("/login/wrong").await, seconds("/login/right").await], [(401, 0), (429, 1)]);
    advance(Duration::from_secs(60)).await;
    assert_eq!([seconds("/login/unavailable").await, seconds("/login/right").await], [(503, 0), (200, 0)]);
    assert_eq!(seconds("/login/right").await, (429, 1), "the fifth login of the address");
    assert_eq!([seconds("/send").await, seconds("/send").await], [(201, 0), (429, 0)]);
}

#[tokio::test(start_paused = true)]
async fn guesses_of_others_do_not_delay_a_known_address() {
    let limits = limits(&["--limit-account-password", "2,1/m"]);
    let routes = Router::new().route("/login/{password}", post(login)).layer(from_fn_with_state(limits, apply));
    let seconds = async |host: &str, path: &str| {
        let (begun, request) = (Instant::now(), Request::post(path).extension(address(host)));
        (send(&routes, request).await.status, begun.elapsed().as_secs())
    };
    assert_eq!(seconds("203.0.113.1", "/login/right").await, (200, 0));
    for guesser in ["203.0.113.2", "203.0.113.3"] {
        assert_eq!(seconds(guesser, "/login/wrong").await, (401, 0));
    }
    assert_eq!(seconds("203.0.113.4", "/login/right").await, (429, 1));
    assert_eq!(seconds("203.0.113.1", "/login/right").await, (200, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_rejection_holds_no_body() {
    async fn echo(limits: RequestLimits, address: ClientAddress, body: Bytes) -> Result<Bytes, Problem> {
        limits.check(Act::Login, address).await?;
        Ok(body)
    }
    let routes = Router::new().route("/login", post(echo));
    let routes = routes.layer(from_fn_with_state(limits(&["--limit-login", "1,1/h"]), apply));
    let body = Arc::<[u8]>::from([b'x'; 10_000]);
    let send = || send_body(&routes, Request::post("/login"), Bytes::from_owner(body.clone()));
    assert_eq!(send().await.status, 200);
    let mut rejected = Box::pin(send());
    assert!(timeout(LATE / 2, &mut rejected).await.is_err(), "the rejection is delayed");
    assert_eq!(Arc::strong_count(&body), 1);
    assert_eq!(rejected.await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn subjects_have_buckets_of_their_own() {
    let limits = limits(&["--limit-search", "1,1/m", "--limit-send", "1,1/m"]);
    let user = Uuid::from_u128(1);
    for subject in [user.into(), Uuid::from_u128(2).into(), Subject::of(None, address("203.0.113.7"))] {
        limits.check(Act::Search, subject).await.unwrap();
        assert_eq!(limits.check(Act::Search, subject).await.unwrap_err().code, Code::RateLimited);
    }
    limits.take(Act::Send, user).unwrap();
    assert!(limits.take(Act::Send, user).is_err());
    // A subscriber has all addresses of an IPv6 network.
    limits.check(Act::Search, address("2001:db8:1:2::1")).await.unwrap();
    assert!(limits.check(Act::Search, address("2001:db8:1:2:ffff::9")).await.is_err());
    limits.check(Act::Search, address("2001:db8:1:3::1")).await.unwrap();
}

#[tokio::test]
async fn zero_turns_a_limit_off() {
    let routes = routes(&["--limit-send", "0", "--limit-wrong-password", "0"]);
    for _ in 0..100 {
        let answer = post_to(&routes, "/send").await;
        assert_eq!((answer.status, fields(&answer.headers)), (201, (vec![], vec![])));
    }
    assert_eq!(fields(&post_to(&routes, "/login/wrong").await.headers).0, ["\"login\";q=300;w=60"]);
}

#[test]
fn settings_and_policies_have_the_same_names() {
    let command = <Settings as clap::CommandFactory>::command();
    let settings = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str());
    let settings = settings.map(|name| name.trim_start_matches("CONFAB_LIMIT_").to_lowercase()).collect::<Vec<_>>();
    assert_eq!(settings, Act::ALL.map(Act::name));
    assert!(Act::ALL.iter().enumerate().all(|(at, act)| *act as usize == at));
}
