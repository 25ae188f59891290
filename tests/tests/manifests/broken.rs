//! Tests of the checks: each finds its fault in manifests that were broken on purpose.

use serde_json::{Value, json};

use crate::{complaints, development, production};

const CONTAINER: &str = "/spec/template/spec/containers/0";

/// The broken object, the change, and the expected complaint.
type Breakage = (&'static str, &'static str, String, Value, &'static str);

fn breakages() -> Vec<Breakage> {
    let of = |rest: &str| format!("{CONTAINER}{rest}");
    let pod = |rest: &str| format!("/spec/template/spec{rest}");
    let is = |path: &str| path.to_owned();
    vec![
        // Names, labels and ports.
        ("Service", "auth", is("/spec/selector"), json!({"app": "auth"}), "has 0 kinds of pods"),
        ("Service", "auth", is("/spec/ports/0/targetPort"), json!("http"), "has no port"),
        ("Service", "room", is("/spec/ports/0/port"), json!(50051), "is called at 50051 and listens on 50052"),
        ("Service", "room", is("/spec/ports/0/appProtocol"), json!("http"), "gRPC is HTTP/2"),
        ("Service", "room", is("/spec/clusterIP"), Value::Null, "balanced by its callers"),
        ("Service", "gateway-peers", is("/spec/publishNotReadyAddresses"), Value::Null, "a gateway that leaves cannot be found"),
        ("Service", "file", is("/metadata/labels"), json!({}), "Deployment file is scraped 0 times"),
        ("Deployment", "auth", is("/spec/selector/matchLabels"), json!({"app.kubernetes.io/part-of": "confab"}), "its own pods alone"),
        ("PodDisruptionBudget", "auth", is("/spec/selector/matchLabels"), json!({"app.kubernetes.io/component": "room"}), "other pods"),
        ("HTTPRoute", "confab", is("/spec/rules/0/backendRefs/0/port"), json!(80), "the HTTPRoute leads nowhere"),
        // Settings.
        ("ConfigMap", "gateway", is("/data/CONFAB_AUTH_URL"), json!("http://auth:50052"), "CONFAB_AUTH_URL leads nowhere"),
        ("ConfigMap", "gateway", is("/data/CONFAB_AUTH_URL"), json!("http://room:50052"), "CONFAB_AUTH_URL leads nowhere"),
        ("ConfigMap", "gateway", is("/data/CONFAB_AUTH_URL"), Value::Null, "Deployment gateway: CONFAB_AUTH_URL is missing"),
        ("ConfigMap", "message", is("/data/CONFAB_LISTENN"), json!("x"), "confab-message does not know CONFAB_LISTENN"),
        ("ConfigMap", "room", is("/data/CONFAB_PARTITIONS"), json!("64"), "confab-room does not know CONFAB_PARTITIONS"),
        ("Deployment", "auth", of("/env/1/value"), json!("0.0.0.0:50059"), "CONFAB_LISTEN is"),
        ("Deployment", "auth", of("/env/2/value"), json!("auto"), "cannot migrate"),
        ("Deployment", "gateway", of("/env/4/value"), json!("$(PODIP):7250"), "its address for other gateways is $(PODIP):7250"),
        ("Deployment", "room", of("/env/5/value"), json!("/etc/confab/stores"), "names /etc/confab/stores, wh"),
        ("Deployment", "room", pod("/volumes/0/projected/sources/0/secret/items/0/key"), json!("uri"), "Secret room-store has no uri"),
        ("Deployment", "room", pod("/volumes/0/projected/sources/0/secret/name"), json!("rooms"), "there is no Secret rooms"),
        ("Job", "migrate-room", of("/args"), json!(["migrations"]), "has no subcommand"),
        ("Job", "migrate-room", of("/env"), json!([]), "Job migrate-room: CONFAB_ROOM_STORE is missing"),
        // Pods.
        ("Deployment", "file", pod("/terminationGracePeriodSeconds"), json!(89), "it needs Some(90s) to leave and has Some(89s)"),
        ("Deployment", "file", of("/lifecycle"), Value::Null, "it needs None to leave"),
        ("Deployment", "gateway", of("/readinessProbe/httpGet/path"), json!("/ready"), "readinessProbe leads nowhere"),
        ("Deployment", "gateway", of("/livenessProbe/httpGet/port"), json!("http"), "livenessProbe leads nowhere"),
        ("Deployment", "message", of("/startupProbe/grpc/port"), json!(9464), "startupProbe leads nowhere"),
        ("Deployment", "message", of("/image"), json!("confab-message:latest"), "another version"),
        ("Deployment", "message", pod("/securityContext/runAsNonRoot"), json!(false), "it may run as root"),
        ("Deployment", "message", pod("/securityContext/seccompProfile"), Value::Null, "every system call"),
        ("Job", "migrate-room", of("/securityContext/readOnlyRootFilesystem"), json!(false), "root file system"),
        ("Job", "migrate-room", of("/securityContext/capabilities"), Value::Null, "capabilities"),
        ("Job", "migrate-room", of("/securityContext/allowPrivilegeEscalation"), json!(true), "more rights"),
        ("Deployment", "auth", pod("/enableServiceLinks"), Value::Null, "named after Services"),
        ("Deployment", "auth", pod("/automountServiceAccountToken"), json!(true), "a token"),
        ("Deployment", "auth", of("/resources/limits/memory"), Value::Null, "resources"),
        ("Deployment", "auth", is("/spec/strategy/rollingUpdate/maxUnavailable"), json!("25%"), "a rollout takes one away"),
        ("Deployment", "auth", pod("/topologySpreadConstraints/0/topologyKey"), json!("zone"), "not spread"),
        ("Namespace", "confab", is("/metadata/labels/pod-security.kubernetes.io~1enforce"), json!("baseline"), "not restricted"),
        // Numbers.
        ("Deployment", "auth", is("/spec/replicas"), json!(2), "undo what its autoscaler did"),
        ("PodDisruptionBudget", "auth", is("/spec/maxUnavailable"), json!(3), "of Some(3) there may be Some(3) away"),
        ("HorizontalPodAutoscaler", "auth", is("/spec/scaleTargetRef/name"), json!("auths"), "nothing to scale"),
        ("HorizontalPodAutoscaler", "auth", is("/spec/behavior/scaleDown/stabilizationWindowSeconds"), json!(0), "too many away"),
        ("HorizontalPodAutoscaler", "gateway", is("/spec/metrics/1/pods/metric/name"), json!("sockets"), "something else"),
        // The network.
        ("NetworkPolicy", "default-deny", is("/spec/policyTypes"), json!(["Ingress"]), "traffic without a policy"),
        ("NetworkPolicy", "auth", is("/spec/ingress/0/ports/0/port"), json!(50052), "ingress is closed: (\"gateway\", \"auth\", 50051)"),
        ("NetworkPolicy", "room", is("/spec/egress"), json!([]), "egress is closed: (\"room\", \"message\", 50053)"),
        ("NetworkPolicy", "file", is("/spec/podSelector"), json!({}), "is open but not needed"),
        ("NetworkPolicy", "to-redis", is("/spec/egress/0/to"), Value::Null, "to anywhere"),
        (
            "NetworkPolicy",
            "to-redis",
            is("/spec/podSelector/matchExpressions/0/values"),
            json!(["gateway", "auth"]),
            "(\"message\", \"outside\", 6379)",
        ),
        ("NetworkPolicy", "metrics", is("/spec/ingress/0/ports/0/port"), json!("grpc"), "has no port"),
        ("ConfigMap", "room", is("/data/CONFAB_MESSAGE_URL"), json!("http://auth:50051"), "egress is closed: (\"room\", \"auth\", 50051)"),
    ]
}

#[test]
fn each_fault_is_found() {
    let manifests = production();
    for (kind, name, pointer, value, expected) in breakages() {
        let found = complaints(&manifests.but(kind, name, &pointer, value.clone()));
        assert!(found.iter().any(|complaint| complaint.contains(expected)), "{kind} {name} {pointer} {value}: {found:?}");
    }
}

#[test]
fn each_fault_in_development_is_found() {
    let manifests = development();
    for (kind, name, pointer, value, expected) in [
        ("Ingress", "confab", "/spec/rules/0/http/paths/0/backend/service/port/name", json!("https"), "the Ingress leads nowhere"),
        ("Service", "postgres", "/spec/ports/0/port", json!(5433), "is called at 5433 and listens on 5432"),
        ("Secret", "bus", "/data/url", json!("cmVkaXM6Ly9yZWRpcw=="), ""),
        ("NetworkPolicy", "postgres", "/spec/ingress", json!([]), "ingress is closed: (\"auth\", \"postgres\", 5432)"),
        ("Deployment", "auth", "/spec/replicas", json!(1), "of Some(1) there may be Some(1) away"),
    ] {
        let found = complaints(&manifests.but(kind, name, pointer, value));
        match expected {
            // Another way to write the same.
            "" => assert_eq!(found, [""; 0], "{kind} {name} {pointer}"),
            _ => assert!(found.iter().any(|complaint| complaint.contains(expected)), "{kind} {name} {pointer}: {found:?}"),
        }
    }
}
