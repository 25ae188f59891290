//! Certificates: each program has one for its role, from an authority that the manifests define.

use confab_tests::manifests::{Manifests, Pod};
use serde_json::Value;

pub fn complaints(manifests: &Manifests) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for pod in manifests.pods().iter().filter(|pod| pod.program().is_some() && pod.serves()) {
        let mounts = pod.mounts()?;
        let mounted = mounts.iter().find(|mount| mount.key == "tls.crt");
        let Some(secret) = mounted.map(|mount| &mount.secret) else {
            wrong.push(format!("{}: it has no certificate", pod.name()));
            continue;
        };
        // Without cert-manager, the operator creates the Secret.
        let issued = manifests.all("Certificate").find(|certificate| certificate["spec"]["secretName"] == **secret);
        if let Some(certificate) = issued {
            certificate_complaints(manifests, pod, &certificate["spec"], &mut wrong);
        }
    }
    Ok(wrong)
}

fn certificate_complaints(manifests: &Manifests, pod: &Pod<'_>, certificate: &Value, wrong: &mut Vec<String>) {
    let mut must = |what: &str, holds: bool| {
        if !holds {
            wrong.push(format!("{}: {what}", pod.name()));
        }
    };
    let names = certificate["dnsNames"].as_array().map(Vec::as_slice).unwrap_or_default();
    must("its certificate has another role", matches!(names, [name] if *name == format!("{}.confab", pod.component())));
    let usages = certificate["usages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let both = ["server auth", "client auth"].iter().all(|usage| usages.iter().any(|given| given == usage));
    must("its certificate is not for both sides of a connection", both);
    let issuer = &certificate["issuerRef"];
    let issuer = manifests.get("Issuer", issuer["name"].as_str().unwrap_or_default()).ok();
    let authority = issuer.map_or(&Value::Null, |issuer| &issuer["spec"]["ca"]["secretName"]);
    let mut certificates = manifests.all("Certificate").map(|certificate| &certificate["spec"]);
    must("its certificate has no issuer", issuer.is_some());
    must(
        "the issuer of its certificate has no authority",
        certificates.any(|certificate| certificate["isCA"] == true && certificate["secretName"] == *authority),
    );
}
