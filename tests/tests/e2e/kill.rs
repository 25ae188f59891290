//! The data of the embedded program after `kill -9`.

use confab_tests::api::Api;
use confab_tests::embedded::Embedded;
use serde_json::json;

#[tokio::test]
async fn all_data_survives_kill_9() {
    let confab = Embedded::start(&[]).await.unwrap();
    let api = Api::new(confab.url());
    let (account, gone) = (api.signup().await.unwrap(), api.signup().await.unwrap());
    let room = api.room(&account).await.unwrap();
    let sent = api
        .post("/api/messages", &account, json!({"roomId": room, "content": "kept"}))
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    api.get("/api/auth/logout", &gone).await.unwrap().expect(200).unwrap();
    confab.daemon().kill().await.unwrap();
    confab.up().await.unwrap();
    assert_eq!(api.history(&room, &account, 50).await.unwrap(), [sent]);
    let rejected = api.get("/api/auth/me", &gone).await.unwrap();
    assert_eq!((rejected.status, rejected.code()), (401, "unauthorized"));
}
