//! The authorisation matrix: every operation of the HTTP API, every socket event and every gRPC method, by every kind
//! of caller, and the gRPC calls on behalf of users with every kind of credential. `matrix/matrix.txt` has the expected
//! answers. The operations are those of the contract: an operation without a row fails, and so does a row without an
//! operation.
//!
//! A new operation needs a block in `matrix.txt`: its request, and a line of answers for each kind of room. If the
//! request needs an object that no row has used yet, `objects.rs` creates it. A new gRPC method needs a line and, if its
//! request names a user or a server key, a row in the section about credentials.

mod callers;
mod credentials;
mod documents;
mod grpc;
mod objects;
mod operations;
mod people;
mod rest;
mod servers;
mod sockets;
mod stage;
mod table;

use std::collections::BTreeSet;

use confab_tests::plan::Role;

use callers::CALLERS;
use credentials::Credentials;
use rest::Request;
use servers::Servers;
use stage::{Stage, all};
use table::{Section, Table, parse};

fn table() -> Table {
    parse(table::TEXT).unwrap()
}

/// Fails if the answers differ from the table.
#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} answers differ from matrix.txt:\n{}", wrong.len(), wrong.join("\n"));
}

async fn rest(servers: &'static Servers) {
    let (table, stage) = (table(), Stage::at(servers).await.unwrap());
    let cells = rest::Cell::of(&table["rest"].rows, &stage).unwrap();
    none(&all(cells.into_iter().map(|cell| cell.test(stage.clone())).collect()).await);
}

async fn sockets(servers: &'static Servers) {
    let (table, stage) = (table(), Stage::at(servers).await.unwrap());
    let cells = sockets::Cell::of(&table["socket"].rows, &stage).unwrap();
    none(&all(cells.into_iter().map(|cell| cell.test(stage.clone())).collect()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rest_on_the_embedded_server() {
    rest(Servers::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rest_between_two_gateways() {
    rest(Servers::cluster().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rest_with_anonymous_reads() {
    rest(Servers::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sockets_on_the_embedded_server() {
    sockets(Servers::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sockets_between_two_gateways() {
    sockets(Servers::cluster().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sockets_with_anonymous_reads() {
    sockets(Servers::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn grpc_in_the_cluster() {
    let (table, cluster) = (table(), Servers::cluster().await.programs());
    let programs = grpc::Callers::of(cluster).await.unwrap();
    let mut wrong = Vec::new();
    for (column, caller) in grpc::CALLERS.iter().enumerate() {
        let expected = grpc::expected(&table["grpc"], column);
        for role in Role::SERVICES {
            let of_service = expected.iter().filter(|((service, _), _)| *service == role);
            let (methods, words) =
                of_service.map(|((_, method), word)| (*method, *word)).unzip::<_, _, Vec<_>, Vec<_>>();
            let answers = programs.call(cluster, role, caller, &methods).await.unwrap();
            let rows = methods.iter().zip(words).zip(answers);
            let differ = rows.filter(|((_, word), answer)| word != answer);
            wrong.extend(differ.map(|((method, word), answer)| {
                format!("{method} of {} by {caller}: expected {word}, got {answer}", role.name())
            }));
        }
    }
    none(&wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn credentials_in_the_cluster() {
    let (mut table, credentials) = (table(), Credentials::of(Servers::cluster().await).await.unwrap());
    let rows = table.remove("credential").unwrap().rows;
    none(&all(rows.into_iter().map(|row| credentials.clone().test(row)).collect()).await);
}

#[test]
fn every_operation_has_a_row() {
    let table = table();
    assert_eq!(table.keys().collect::<Vec<_>>(), ["credential", "grpc", "rest", "socket"]);
    let (known, mut rows) = (operations::rest(), BTreeSet::new());
    for row in &table["rest"].rows {
        let request = Request::parse(&row.request).unwrap_or_else(|error| panic!("{}: {error:#}", row.request));
        let operation = operations::answering(&known, &request.line());
        rows.insert(operation.unwrap_or_else(|| panic!("no operation answers {}", row.request)).clone());
    }
    assert_eq!(rows, known, "the rows of matrix.txt and the operations of docs/openapi.json");
    let events = table["socket"].rows.iter().map(|row| sockets::event(&row.request).0.to_owned());
    assert_eq!(events.collect::<BTreeSet<_>>(), operations::events(), "the events of docs/asyncapi.json");
    let methods = table["grpc"].rows.iter().map(|row| row.request.clone()).collect::<Vec<_>>();
    let unique = methods.iter().cloned().collect::<BTreeSet<_>>();
    for row in &table["credential"].rows {
        let method = credentials::call(&row.request).map(|(method, _)| method);
        assert!(method.is_some_and(|method| unique.contains(method)), "there is no method of {}", row.request);
    }
    assert_eq!((unique.len(), unique), (methods.len(), operations::methods()), "the methods of proto/");
}

#[test]
fn every_caller_has_a_column() {
    let table = table();
    let is_complete = |section: &Section| section.rows.iter().all(|row| !row.lines.is_empty());
    for name in ["rest", "socket"] {
        assert_eq!(table[name].callers, CALLERS.map(|(name, _)| name), "the callers of [{name}]");
        assert!(is_complete(&table[name]), "a request of [{name}] has no line");
    }
    assert_eq!(table["grpc"].callers, grpc::CALLERS);
    assert_eq!(table["credential"].callers, credentials::CALLERS);
    assert!(is_complete(&table["credential"]), "a call of [credential] has no line");
}
