use std::sync::Arc;

use confab_common::Code;
use confab_common::grpc::{Peer, Role};
use confab_proto::auth::v1::UserRef;
use confab_proto::room::v1::GetRoomRequest;
use http::HeaderValue;
use parking_lot::Mutex;
use serde_json::json;
use tower::service_fn;

use super::*;
use crate::testing::{auth, callers, claims, identity, signed};

/// What the server behind the guard has received: its headers, and whether the claim proves the user 7.
type Received = Arc<Mutex<Option<(HeaderMap, bool)>>>;

/// Calls a guarded server with these headers. Returns the code of the guard's refusal.
async fn call(received: &Received, headers: &[(&'static str, &str)]) -> Option<tonic::Code> {
    let receiving = received.clone();
    let server = service_fn(move |request: Request<Body>| {
        let receiving = receiving.clone();
        async move {
            let headers = request.headers().clone();
            let (head, _) = request.into_parts();
            let mut call = tonic::Request::new(());
            *call.extensions_mut() = head.extensions;
            let caller = Some(UserRef { username: String::new(), ..identity().user });
            let proves = Claim::of(&call).check(&mut GetRoomRequest { caller, ..GetRoomRequest::default() }).is_ok();
            *receiving.lock() = Some((headers, proves));
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(Peer::with(Role::Gateway));
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    let answer = Guarded::new(server, callers(auth())).oneshot(request).await.unwrap();
    Status::from_header_map(answer.headers()).map(|status| status.code())
}

#[tokio::test]
async fn the_server_receives_the_claim_and_not_the_token() {
    let (received, token) = (Received::default(), signed(1, &claims(json!({}))));
    assert_eq!(call(&received, &[(USER, &token), ("x-other", "1")]).await, None);
    let (headers, proves) = received.lock().take().unwrap();
    assert!(proves && headers.contains_key("x-other") && !headers.contains_key(USER));
    assert_eq!(call(&received, &[]).await, None);
    assert!(!received.lock().take().unwrap().1, "a call without a token proves nothing");
}

#[tokio::test]
async fn a_call_with_an_invalid_credential_does_not_reach_the_server() {
    let received = Received::default();
    let valid = signed(1, &claims(json!({})));
    let [forged, expired] = [signed(2, &claims(json!({}))), signed(1, &claims(json!({"exp": 1_000_000_000})))];
    for headers in [
        vec![(USER, &*forged)],
        vec![(USER, &*expired)],
        vec![(USER, "")],
        vec![(USER, &*valid), (USER, &*valid)],
        vec![(USER, &*valid), (KEY, "cfk_x")],
        vec![(KEY, "cfk_x")],
        vec![(ACTING_FOR, "0193a4c0-7d50-7cc3-98a5-2f6b8e1d0c01")],
    ] {
        assert_eq!(call(&received, &headers).await, Some(tonic::Code::Unauthenticated), "{headers:?}");
        assert!(received.lock().is_none());
    }
    assert_eq!(Credential::of_parts(None, None, Some("x")).unwrap_err().code, Code::Unauthorized);
}
