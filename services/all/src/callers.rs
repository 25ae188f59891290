//! Every method of the contract has a row in the table of callers.

use std::collections::BTreeSet;

use confab_common::grpc::CALLERS;
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
