//! The metrics in rules, dashboard and runbook exist with their labels, and each alert has its section. Prometheus's
//! own tool tests when the rules fire, see scripts/check-alerts.sh.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use confab_tests::exposition::{Row, documented, histogram_of, keys, root};
use serde_json::Value;

/// Labels that Prometheus adds.
const ADDED: [&str; 4] = ["job", "instance", "le", "namespace"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the faults in an expression's metrics.
fn faults(expression: &str, rows: &BTreeMap<String, Row>) -> Vec<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut faults = Vec::new();
    let mut rest = expression;
    while let Some(start) = ["confab_", "process_"].into_iter().filter_map(|prefix| rest.find(prefix)).min() {
        let end = rest[start..].find(|c| !is_of_name(c)).map_or(rest.len(), |length| start + length);
        let (name, behind) = (&rest[start..end], &rest[end..]);
        rest = behind;
        let is_histogram = |base: &str| rows.get(base).is_some_and(|row| row.metric.kind == "histogram");
        let base = histogram_of(name, is_histogram);
        let Some(row) = rows.get(base.unwrap_or(name)).filter(|row| base.is_some() || row.metric.kind != "histogram")
        else {
            faults.push(format!("{name} is not in docs/metrics.md"));
            continue;
        };
        let selector = behind.strip_prefix('{').map(keys).unwrap_or_default();
        let unknown = selector.into_iter().filter(|key| !ADDED.contains(key) && !row.metric.labels.contains(*key));
        faults.extend(unknown.map(|key| format!("{name} has no label {key}")));
    }
    faults
}

/// Collects every `expr` of a dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

fn named<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(mark)).map(str::trim).collect()
}

#[test]
fn rules_and_dashboard_use_only_exposed_metrics() {
    let rows = documented().unwrap();
    let rules = read("deploy/prometheus/rules.yml");
    assert_eq!(faults(&rules, &rows), [""; 0]);
    for tests in ["rules_test", "rules_namespaces_test"] {
        assert_eq!(faults(&read(&format!("deploy/prometheus/{tests}.yml")), &rows), [""; 0]);
    }

    let dashboard = serde_json::from_str(&read("deploy/grafana/dashboards/confab.json")).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 20, "{}", found.len());
    let recorded = named(&rules, "- record: ");
    for expression in found {
        assert_eq!(faults(&expression, &rows), [""; 0], "{expression}");
        let used = expression
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .filter(|word| word.starts_with("confab:"));
        used.for_each(|name| assert!(recorded.contains(name), "{name} is not recorded"));
    }
}

#[test]
fn wrong_names_and_labels_are_found() {
    let rows = documented().unwrap();
    assert_eq!(faults("rate(confab_deliveries_total{instance=\"a\"}[5m])", &rows), [""; 0]);
    assert_eq!(faults("confab_event_seconds", &rows).len(), 1, "a histogram has no series with only its name");
    assert_eq!(faults("confab_deliveries_count + process_nothing", &rows).len(), 2);
    assert_eq!(
        faults("confab_event_seconds_count{le=\"1\", outcom=~\"a,b\"}", &rows),
        ["confab_event_seconds_count has no label outcom"]
    );
}

#[test]
fn each_alert_has_a_section_in_the_runbook() {
    let rules = read("deploy/prometheus/rules.yml");
    let alerts = named(&rules, "- alert: ");
    assert!(alerts.len() > 20);
    let runbook = read("docs/runbook.md");
    let sections =
        named(&runbook, "## ").into_iter().filter(|title| title.starts_with("Confab")).collect::<BTreeSet<_>>();
    assert_eq!(alerts, sections);
    let anchors =
        alerts.iter().map(|alert| format!("docs/runbook.md#{}", alert.to_lowercase())).collect::<BTreeSet<_>>();
    assert_eq!(named(&rules, "runbook_url: "), anchors.iter().map(String::as_str).collect::<BTreeSet<_>>());
    // Each section describes the meaning of the alert, the investigation, the remedy, and the end.
    for section in runbook.split("\n## ").skip(1).filter(|section| section.starts_with("Confab")) {
        for part in ["**Means:**", "**Look:**", "**Do:**", "**Over:**"] {
            assert_eq!(section.matches(part).count(), 1, "{part} in {section}");
        }
    }
}
