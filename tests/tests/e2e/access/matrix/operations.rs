//! The operations of the contract, from `docs/openapi.json`, `docs/asyncapi.json` and `proto/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use confab_tests::contract;
use serde_json::Value;

const OPENAPI: &str = include_str!("../../../../../docs/openapi.json");
const ASYNCAPI: &str = include_str!("../../../../../docs/asyncapi.json");

/// The first packet of a socket, which is not an event.
pub const CONNECT: &str = "CONNECT";

/// The health protocol, which every service has in addition to its own methods.
pub const HEALTH: &str = "grpc.health.v1.Health/Check";

/// Returns the operations of the HTTP API as `METHOD /path/{with}/{parameters}`.
pub fn rest() -> BTreeSet<String> {
    let document = serde_json::from_str::<Value>(OPENAPI).unwrap();
    let operations = contract::operations(&document).into_iter();
    operations.map(|(method, path, _)| format!("{} {path}", method.to_uppercase())).collect()
}

/// Returns the events that clients send.
pub fn events() -> BTreeSet<String> {
    let document = serde_json::from_str::<Value>(ASYNCAPI).unwrap();
    let received = document["operations"].as_object().unwrap().values().filter(|it| it["action"] == "receive");
    let channel = |it: &Value| it["channel"]["$ref"].as_str().unwrap().trim_start_matches('#').to_owned();
    let name = |path: String| document.pointer(&path).unwrap()["address"].as_str().unwrap().to_owned();
    received.map(|it| name(channel(it))).chain([CONNECT.to_owned()]).collect()
}

/// Returns the methods of the services as `package.Service/Method`.
pub fn methods() -> BTreeSet<String> {
    let mut methods = BTreeSet::from([HEALTH.to_owned()]);
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/confab"), &mut methods);
    methods
}

fn read(directory: &Path, methods: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, methods);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            methods.extend(of_file(&fs::read_to_string(&path).unwrap()));
        }
    }
}

fn of_file(text: &str) -> Vec<String> {
    let (mut package, mut service, mut methods) = (String::new(), String::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split([' ', ';', '(', '{']).filter(|word| !word.is_empty());
        match (words.next(), words.next()) {
            (Some("package"), Some(name)) => name.clone_into(&mut package),
            (Some("service"), Some(name)) => name.clone_into(&mut service),
            (Some("rpc"), Some(name)) => methods.push(format!("{package}.{service}/{name}")),
            _ => {}
        }
    }
    methods
}

/// Returns the operation that answers `METHOD /path?query`. A path without parameters takes precedence.
pub fn answering<'a>(operations: &'a BTreeSet<String>, request: &str) -> Option<&'a String> {
    let path = request.split('?').next().unwrap_or_default();
    let found = operations.iter().filter(|operation| fits(operation, path));
    found.min_by_key(|operation| operation.matches("{").count())
}

fn fits(operation: &str, request: &str) -> bool {
    let (operation, request) = (operation.split('/').collect::<Vec<_>>(), request.split('/').collect::<Vec<_>>());
    let one = |(operation, part): (&&str, &&str)| operation == part || (operation.starts_with('{') && !part.is_empty());
    operation.len() == request.len() && operation.iter().zip(&request).all(one)
}

#[test]
fn operations_are_found() {
    let operations = BTreeSet::from(["GET /a", "GET /a/{b}", "GET /a/c", "PUT /a/{b}/{c}"].map(String::from));
    let found = |request| answering(&operations, request).map(String::as_str);
    assert_eq!(found("GET /a?q=/x"), Some("GET /a"));
    assert_eq!((found("GET /a/c"), found("GET /a/{d}")), (Some("GET /a/c"), Some("GET /a/{b}")));
    assert_eq!((found("PUT /a/{x}/me?y"), found("PUT /a"), found("GET /a/")), (Some("PUT /a/{b}/{c}"), None, None));
}

#[test]
fn methods_of_a_contract() {
    let text =
        "package a.v1;\n// rpc Old(X)\nservice S {\n  rpc One(X) returns (Y);\n  rpc Two(stream X) returns (Y);\n}\n";
    assert_eq!(of_file(text), ["a.v1.S/One", "a.v1.S/Two"]);
}
