//! A replica of an earlier release after the log was raised to a newer format.

#![allow(clippy::unwrap_used)]

use confab_common::bus::Bus;
use confab_common::grpc::{Services, in_process};
use confab_common::pg::PostgresConfig;
use confab_common::process::Process;
use confab_common::store::StorageConfig;
use confab_common::{Code, Error, Secret, testing};
use confab_message::{MessageConfig, Switch};
use confab_proto::message::v1::message_service_client::MessageServiceClient;
use confab_proto::message::v1::{AppendRequest, GetHeadsRequest, ListEventsRequest};
use tokio_postgres::NoTls;
use uuid::Uuid;

#[tokio::test]
async fn an_outdated_replica_becomes_unready_and_rejects_calls() {
    let url = testing::database().await;
    let config = MessageConfig { message_store: Some(url.clone()), partitions: 8, search: Switch::On };
    let postgres = PostgresConfig { postgres_connections: 4, ..PostgresConfig::default() };
    let storage = StorageConfig { data_dir: testing::directory(), postgres };
    let bus = Bus::open(&Secret::from("local:"), None).unwrap();
    let process = Process::new();
    let log = confab_message::start(&config, &storage, bus, Services::none(), &process).await.unwrap();
    process.readiness.started();
    assert_eq!(process.readiness.missing(), None);
    let mut client = MessageServiceClient::new(testing::patient(in_process(log.server())));
    client.append(AppendRequest::default()).await.unwrap();

    let (database, connection) = tokio_postgres::connect(url.expose(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let raise = async |format: i32| {
        database.execute("UPDATE message.log SET format = $1", &[&format]).await.unwrap();
    };
    raise(99).await;
    testing::eventually(|| process.readiness.missing().is_some()).await;
    assert_eq!(process.readiness.missing().unwrap(), "waiting for a program of the log's format");
    let notes = process.readiness.notes();
    assert!(notes.contains("the log has format 99, and this program has format 5"), "{notes}");
    let rejected = client.append(AppendRequest::default()).await.unwrap_err();
    assert_eq!(Error::from(rejected).code, Code::Unavailable);
    let list = ListEventsRequest { room_id: Uuid::now_v7().to_string(), limit: 1, ..ListEventsRequest::default() };
    assert_eq!(Error::from(client.list_events(list).await.unwrap_err()).code, Code::Unavailable);
    // Gateways of the newer release may ask every replica for the heads.
    client.get_heads(GetHeadsRequest::default()).await.unwrap();

    raise(3).await;
    testing::eventually(|| process.readiness.missing().is_none()).await;
    assert_eq!(process.readiness.notes(), "");
    client.append(AppendRequest::default()).await.unwrap();
}
