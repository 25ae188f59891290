//! A caller that received no answer repeats its call, with the same operation.

#![allow(clippy::unwrap_used)]

mod support;

use confab_common::testing::directory;
use confab_common::{Code, Error};
use confab_proto::auth::v1::*;
use support::*;
use tonic::{Response, Status};
use uuid::Uuid;

const PASSWORD: &str = "correct horse";

async fn code<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Option<Code> {
    answer.await.err().map(|status| Error::from(status).code)
}

#[tokio::test]
async fn operations_on_an_own_account_are_repeated() {
    let (mut client, _process) = start(directory(), bus()).await;
    let session = signup(&mut client, "", "ada", PASSWORD).await.unwrap();
    let change = ChangePasswordRequest {
        user_id: user_id(&session),
        session_id: session_id(&session),
        current_password: PASSWORD.into(),
        new_password: "another horse".into(),
        client_address: String::new(),
    };
    // The caller of the second attempt has received no answer to the first.
    let operation = Uuid::now_v7();
    client.change_password(attempt(operation, change.clone())).await.unwrap();
    let ended = revocations(&mut client).await;
    client.change_password(attempt(operation, change.clone())).await.unwrap();
    assert_eq!(revocations(&mut client).await, ended, "the repeat changes nothing");
    let other = ChangePasswordRequest { new_password: "third horse".into(), ..change.clone() };
    assert_eq!(code(client.change_password(attempt(operation, other))).await, Some(Code::Forbidden));
    assert_eq!(code(client.change_password(call(change))).await, Some(Code::Forbidden), "another operation");

    let password = "another horse".into();
    let delete = DeleteAccountRequest { user_id: user_id(&session), password, client_address: String::new() };
    let operation = Uuid::now_v7();
    for _ in 0..2 {
        client.delete_account(attempt(operation, delete.clone())).await.unwrap();
    }
    assert_eq!(code(client.delete_account(call(delete))).await, Some(Code::NotFound), "another operation");
}
