//! Tests of the checks: each finds its fault in manifests that were broken on purpose.

use confab_tests::manifests::Manifests;
use serde_json::{Value, json};

use crate::{complaints, production};

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// The broken object, the change, and the expected complaint.
type Breakage = (&'static str, &'static str, String, Value, &'static str);

fn breakages() -> Vec<Breakage> {
    let of = |rest: &str| format!("{CONTAINER}{rest}");
    let pod = |rest: &str| format!("/spec/template/spec{rest}");
    let is = |path: &str| path.to_owned();
    vec![
        // Names, labels and ports.
        ("Service", "confab-auth", is("/spec/selector"), json!({"app": "auth"}), "has 0 kinds of pods"),
        ("Service", "confab-auth", is("/spec/ports/0/targetPort"), json!("http"), "has no port"),
        ("Service", "confab-room", is("/spec/ports/0/port"), json!(50051), "is called at 50051 and listens on 50052"),
        ("Service", "confab-room", is("/spec/ports/0/appProtocol"), json!("kubernetes.io/h2c"), "gRPC uses TLS"),
        ("Service", "confab-room", is("/spec/clusterIP"), Value::Null, "balanced by its callers"),
        (
            "Service",
            "confab-gateway-peers",
            is("/spec/publishNotReadyAddresses"),
            Value::Null,
            "a draining gateway cannot be reached",
        ),
        ("Service", "confab-file", is("/metadata/labels"), json!({}), "Deployment confab-file is scraped 0 times"),
        (
            "Deployment",
            "confab-auth",
            is("/spec/selector/matchLabels"),
            json!({"app.kubernetes.io/part-of": "confab"}),
            "exactly its own pods",
        ),
        (
            "PodDisruptionBudget",
            "confab-auth",
            is("/spec/selector/matchLabels"),
            json!({"app.kubernetes.io/component": "room"}),
            "other pods",
        ),
        ("HTTPRoute", "confab", is("/spec/rules/0/backendRefs/0/port"), json!(80), "the HTTPRoute has no target"),
        // Settings.
        (
            "ConfigMap",
            "confab-gateway",
            is("/data/CONFAB_AUTH_URL"),
            json!("https://confab-auth:50052"),
            "CONFAB_AUTH_URL leads nowhere",
        ),
        (
            "ConfigMap",
            "confab-gateway",
            is("/data/CONFAB_AUTH_URL"),
            json!("https://confab-room:50052"),
            "CONFAB_AUTH_URL leads nowhere",
        ),
        (
            "ConfigMap",
            "confab-gateway",
            is("/data/CONFAB_AUTH_URL"),
            Value::Null,
            "Deployment confab-gateway: CONFAB_AUTH_URL is missing",
        ),
        (
            "ConfigMap",
            "confab-message",
            is("/data/CONFAB_LISTENN"),
            json!("x"),
            "confab-message has no setting CONFAB_LISTENN",
        ),
        (
            "ConfigMap",
            "confab-room",
            is("/data/CONFAB_PARTITIONS"),
            json!("64"),
            "confab-room has no setting CONFAB_PARTITIONS",
        ),
        ("Deployment", "confab-auth", of("/env/1/value"), json!("[::]:50059"), "CONFAB_LISTEN is"),
        ("Deployment", "confab-auth", of("/env/2/value"), json!("auto"), "cannot migrate"),
        (
            "Deployment",
            "confab-gateway",
            of("/env/4/value"),
            json!("$(PODIP)"),
            "its address for other gateways is $(PODIP)",
        ),
        ("Deployment", "confab-room", of("/env/5/value"), json!("/etc/confab/stores"), "names /etc/confab/stores, wh"),
        (
            "Deployment",
            "confab-room",
            pod("/volumes/0/projected/sources/0/secret/items/0/key"),
            json!("uri"),
            "Secret confab-room-store has no uri",
        ),
        (
            "Deployment",
            "confab-room",
            pod("/volumes/0/projected/sources/0/secret/name"),
            json!("rooms"),
            "there is no Secret rooms",
        ),
        (
            "ConfigMap",
            "confab-room",
            is("/data/CONFAB_MESSAGE_URL"),
            json!("http://confab-message:50053"),
            "CONFAB_MESSAGE_URL is http://confab-message:50053",
        ),
        ("Deployment", "confab-room", of("/env/6/value"), json!("/etc/confab/tls"), "names /etc/confab/tls, wh"),
        // Certificates.
        ("Certificate", "confab-room", is("/spec/secretName"), json!("room"), "there is no Secret confab-room-tls"),
        ("Certificate", "confab-room", is("/spec/dnsNames/0"), json!("file.confab"), "has another role"),
        ("Certificate", "confab-room", is("/spec/usages"), json!(["server auth"]), "both sides of a connection"),
        ("Certificate", "confab-room", is("/spec/issuerRef/name"), json!("other"), "its certificate has no issuer"),
        ("Issuer", "confab-programs", is("/spec/ca/secretName"), json!("other"), "has no authority"),
        ("Job", "confab-migrate-room", of("/args"), json!(["migrations"]), "has no subcommand"),
        ("Job", "confab-migrate-room", of("/env"), json!([]), "Job confab-migrate-room: CONFAB_ROOM_STORE is missing"),
        // Pods.
        (
            "Deployment",
            "confab-file",
            pod("/terminationGracePeriodSeconds"),
            json!(89),
            "it needs Some(90s) to shut down and has Some(89s)",
        ),
        ("Deployment", "confab-file", of("/lifecycle"), Value::Null, "it needs None to shut down"),
        (
            "Deployment",
            "confab-gateway",
            of("/readinessProbe/httpGet/path"),
            json!("/ready"),
            "readinessProbe leads nowhere",
        ),
        (
            "Deployment",
            "confab-gateway",
            of("/livenessProbe/httpGet/port"),
            json!("http"),
            "livenessProbe leads nowhere",
        ),
        ("Deployment", "confab-message", of("/startupProbe/httpGet/port"), json!("grpc"), "startupProbe leads nowhere"),
        ("Deployment", "confab-message", of("/image"), json!("confab-message:latest"), "another version"),
        ("Deployment", "confab-message", pod("/securityContext/runAsNonRoot"), json!(false), "it may run as root"),
        ("Deployment", "confab-message", pod("/securityContext/seccompProfile"), Value::Null, "every system call"),
        ("Job", "confab-migrate-room", of("/securityContext/readOnlyRootFilesystem"), json!(false), "root file system"),
        ("Job", "confab-migrate-room", of("/securityContext/capabilities"), Value::Null, "capabilities"),
        ("Job", "confab-migrate-room", of("/securityContext/allowPrivilegeEscalation"), json!(true), "gain privileges"),
        ("Deployment", "confab-auth", pod("/enableServiceLinks"), Value::Null, "named after Services"),
        ("Deployment", "confab-auth", pod("/automountServiceAccountToken"), json!(true), "a token"),
        ("Deployment", "confab-auth", of("/resources/limits/memory"), Value::Null, "resources"),
        (
            "Deployment",
            "confab-auth",
            is("/spec/strategy/rollingUpdate/maxUnavailable"),
            json!("25%"),
            "a rollout removes one pod",
        ),
        ("Deployment", "confab-auth", pod("/topologySpreadConstraints/0/topologyKey"), json!("zone"), "not spread"),
        ("Deployment", "confab-auth", pod("/securityContext/runAsUser"), json!(65532), "requires a user"),
        (
            "Deployment",
            "confab-auth",
            pod("/volumes/0/projected/defaultMode"),
            json!(0o440),
            "another user cannot read",
        ),
        (
            "Deployment",
            "confab-auth",
            is("/spec/template/metadata/labels/app.kubernetes.io~1version"),
            json!("0.0.9"),
            "its label",
        ),
        (
            "Job",
            "confab-migrate-room",
            is("/spec/ttlSecondsAfterFinished"),
            json!(86400),
            "GitOps tools do not replace it",
        ),
        // Numbers.
        ("Deployment", "confab-auth", is("/spec/replicas"), json!(2), "undo what its autoscaler did"),
        (
            "PodDisruptionBudget",
            "confab-auth",
            is("/spec/maxUnavailable"),
            json!(3),
            "of Some(3) pods, Some(3) may be away",
        ),
        ("HorizontalPodAutoscaler", "confab-auth", is("/spec/scaleTargetRef/name"), json!("auths"), "has no target"),
        (
            "HorizontalPodAutoscaler",
            "confab-auth",
            is("/spec/behavior/scaleDown/stabilizationWindowSeconds"),
            json!(0),
            "removes too many pods",
        ),
        (
            "HorizontalPodAutoscaler",
            "confab-gateway",
            is("/spec/metrics/0/resource/name"),
            json!("memory"),
            "another metric",
        ),
        // The network.
        (
            "NetworkPolicy",
            "confab-default-deny",
            is("/spec/policyTypes"),
            json!(["Ingress"]),
            "traffic without a policy",
        ),
        (
            "NetworkPolicy",
            "confab-auth",
            is("/spec/ingress/0/ports/0/port"),
            json!(50052),
            "ingress is closed: (\"gateway\", \"auth\", 50051)",
        ),
        (
            "NetworkPolicy",
            "confab-room",
            is("/spec/egress"),
            json!([]),
            "egress is closed: (\"room\", \"message\", 50053)",
        ),
        ("NetworkPolicy", "confab-file", is("/spec/podSelector"), json!({}), "is open but not needed"),
        ("NetworkPolicy", "confab-to-redis", is("/spec/egress/0/to"), Value::Null, "to anywhere"),
        (
            "NetworkPolicy",
            "confab-to-redis",
            is("/spec/podSelector/matchExpressions/0/values"),
            json!(["gateway", "auth"]),
            "(\"message\", \"outside\", 6379)",
        ),
        ("NetworkPolicy", "confab-metrics", is("/spec/ingress/0/ports/0/port"), json!("grpc"), "has no port"),
        (
            "ConfigMap",
            "confab-room",
            is("/data/CONFAB_MESSAGE_URL"),
            json!("https://confab-file:50054"),
            "egress is closed: (\"room\", \"file\", 50054)",
        ),
    ]
}

#[test]
fn each_fault_is_detected() {
    let manifests = production();
    for (kind, name, pointer, value, expected) in breakages() {
        let found = complaints(&manifests.but(kind, name, &pointer, value.clone()));
        assert!(
            found.iter().any(|complaint| complaint.contains(expected)),
            "{kind} {name} {pointer} {value}: {found:?}"
        );
    }
}

#[test]
fn each_fault_in_development_is_detected() {
    let manifests = Manifests::overlay("dev", &["ingress"], "").expect("the overlay is rendered");
    for (kind, name, pointer, value, expected) in [
        (
            "Namespace",
            "confab-dev",
            "/metadata/labels/pod-security.kubernetes.io~1enforce",
            json!("baseline"),
            "not restricted",
        ),
        (
            "Ingress",
            "confab",
            "/spec/rules/0/http/paths/0/backend/service/port/name",
            json!("https"),
            "the Ingress has no target",
        ),
        ("Service", "postgres", "/spec/ports/0/port", json!(5433), "is called at 5433 and listens on 5432"),
        ("Secret", "confab-bus", "/data/url", json!("cmVkaXM6Ly9yZWRpcw=="), ""),
        ("NetworkPolicy", "postgres", "/spec/ingress", json!([]), "ingress is closed: (\"auth\", \"postgres\", 5432)"),
        ("Deployment", "confab-auth", "/spec/replicas", json!(1), "of Some(1) pods, Some(1) may be away"),
    ] {
        let found = complaints(&manifests.but(kind, name, pointer, value));
        match expected {
            // Another way to write the same value.
            "" => assert_eq!(found, [""; 0], "{kind} {name} {pointer}"),
            _ => assert!(
                found.iter().any(|complaint| complaint.contains(expected)),
                "{kind} {name} {pointer}: {found:?}"
            ),
        }
    }
}
