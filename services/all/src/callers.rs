//! Every method of the contract has a row in the table of callers, and verifies the user that its request names.

use std::collections::BTreeSet;

use confab_common::grpc::{CALLERS, Role};
use prost::Message;
use prost_types::FileDescriptorSet;

#[test]
fn every_method_has_callers() {
    let contract = FileDescriptorSet::decode(confab_proto::DESCRIPTORS).unwrap();
    let services = contract.file.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    let methods = services.flat_map(|(package, service)| {
        service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
    });
    let methods = methods.collect::<BTreeSet<_>>();
    assert!(methods.len() > 20, "{methods:?}");
    let rows = CALLERS.iter().map(|(method, _)| method.to_string()).collect::<BTreeSet<_>>();
    assert_eq!(rows, methods, "the rows in services/common/src/grpc/roles.rs, and the methods of the contract");
    assert!(CALLERS.iter().all(|(_, roles)| !roles.is_empty()));
}

/// Methods whose request names a user without a claim to act for the user.
const WITHOUT_CLAIM: [&str; 4] = [
    // A new account; what a token of an issuer says; the room service's answer to other services.
    "Signup",
    "EnsureUser",
    "CheckAccess",
    // From the auth service.
    "RemoveUser",
];

#[test]
fn every_request_of_a_user_is_verified() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let lines = read("identity/src/calls.rs");
    let contract = FileDescriptorSet::decode(confab_proto::DESCRIPTORS).unwrap();
    let messages = contract.file.iter().flat_map(|file| &file.message_type).collect::<Vec<_>>();
    let mut verified = 0;
    for file in &contract.file {
        let Some(service) = file.package().strip_prefix("confab.").and_then(|rest| rest.strip_suffix(".v1")) else {
            continue;
        };
        for method in file.service.iter().flat_map(|service| &service.method) {
            let input = method.input_type().rsplit('.').next().unwrap();
            let message = messages.iter().find(|message| message.name() == input).unwrap();
            let names = ["caller", "reader", "readers", "reading", "actor", "user_id"];
            let is_of_user = message.field.iter().any(|field| names.contains(&field.name()));
            // Only other services call the rest.
            let path = format!("/{}.{}/{}", file.package(), file.service[0].name(), method.name());
            let is_of_gateway = CALLERS.iter().any(|(known, roles)| *known == path && roles.contains(&Role::Gateway));
            if !is_of_user || !is_of_gateway || WITHOUT_CLAIM.contains(&method.name()) {
                continue;
            }
            let handlers = read(&format!("{service}/src/grpc.rs"));
            let begin = handlers
                .find(&format!("async fn {}(", snake(method.name())))
                .unwrap_or_else(|| panic!("{}", method.name()));
            let handler = handlers[begin + 1..].split("async fn ").next().unwrap();
            let checks = handler.contains("verified(request)") || handler.contains("Claim::of(&request)");
            assert!(checks, "the handler of {path} receives its message with `verified(request)`");
            let has_line = lines.contains(&format!("::{input}, [")) || handler.contains("Claim::of(&request)");
            assert!(has_line, "services/identity/src/calls.rs has a line for {input}");
            verified += 1;
        }
    }
    assert!(verified > 25, "only {verified} methods");
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}
