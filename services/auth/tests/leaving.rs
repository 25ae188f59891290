//! The shutdown of the program.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use confab_common::bus::{Bus, Notice};
use confab_common::grpc::{Call, connect, request};
use confab_common::testing;
use confab_proto::auth::v1::auth_service_client::AuthServiceClient;
use confab_proto::auth::v1::{LogoutRequest, Revocation};
use confab_proto::channel;
use prost::Message;
use uuid::Uuid;

#[tokio::test]
async fn last_revocation_is_published_before_exit() {
    let (session_id, user_id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let (subscriptions, mut notices) = Bus::open(&testing::redis(), None).unwrap().listen();
    subscriptions.subscribe(channel::REVOCATIONS).await;

    let in_an_hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
    let logout =
        LogoutRequest { session_id: session_id.clone(), user_id, expires_at_ms: in_an_hour.as_millis() as i64 };
    let act = async |url: &str| {
        let mut client = AuthServiceClient::new(connect(url).unwrap());
        client.logout(request(logout.clone(), Call::within(Duration::from_secs(5)))).await.is_ok()
    };
    let received = async || {
        loop {
            if let Notice::Message { payload, .. } = notices.next().await.unwrap()
                && Revocation::decode(payload).unwrap().session_id == session_id
            {
                return;
            }
        }
    };
    testing::leave_in_silence(confab_auth::run, act, received).await;
}
