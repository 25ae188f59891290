//! Kubernetes manifests as rendered by kustomize or Helm: objects by kind and name, and their effect on a pod.

mod pod;

pub use pod::{Mount, Pod};

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::certificates;

/// The label that names a pod's program.
pub const COMPONENT: &str = "app.kubernetes.io/component";

#[derive(Debug, Clone)]
pub struct Manifests(Vec<Value>);

impl Manifests {
    /// Renders an overlay of `k8s/` with these components, and the Secrets that are created beside it.
    ///
    /// # Errors
    /// When kustomize is not installed or reports an error.
    pub fn overlay(name: &str, components: &[&str], secrets: &str) -> anyhow::Result<Self> {
        // kustomize needs a directory for each combination, with paths relative to it.
        let directory = std::env::temp_dir().canonicalize()?.join(format!("kustomization-{}", uuid::Uuid::new_v4()));
        let up = "../".repeat(directory.components().count() - 1);
        let k8s = format!("{up}{}", root().canonicalize()?.join("k8s").display().to_string().trim_start_matches('/'));
        let components = components.iter().map(|component| format!("{k8s}/components/{component}")).collect::<Vec<_>>();
        let text = serde_json::json!({"resources": [format!("{k8s}/overlays/{name}")], "components": components});
        fs::create_dir(&directory)?;
        fs::write(directory.join("kustomization.yaml"), text.to_string())?;
        let rendered = Self::rendered(Command::new(tool("kubectl")).arg("kustomize").arg(&directory), secrets);
        fs::remove_dir_all(directory)?;
        rendered.with_context(|| name.to_owned())
    }

    /// Renders the Helm chart with the values of a file in its `ci/`, without the chart's test, and the Secrets that
    /// are created beside it.
    ///
    /// # Errors
    /// When Helm is not installed or reports an error.
    pub fn chart(values: &str, secrets: &str) -> anyhow::Result<Self> {
        let file = root().join(format!("deploy/helm/confab/ci/{values}.yaml"));
        let script = root().join("scripts/helm.py");
        let mut chart =
            Self::rendered(Command::new(tool("python")).arg(script).args(["template", "-f"]).arg(file), secrets)?;
        chart.0.retain(|object| object["metadata"]["annotations"]["helm.sh/hook"] != "test");
        Ok(chart)
    }

    fn rendered(command: &mut Command, secrets: &str) -> anyhow::Result<Self> {
        let output = command.output();
        let output = output.with_context(|| format!("cannot run {command:?}; scripts/ensure-checks.sh installs it"))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut objects = documents(std::str::from_utf8(&output.stdout)?)?;
        objects.extend(documents(secrets)?);
        Ok(Self(objects))
    }

    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    /// Returns the object with this kind and name.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn get(&self, kind: &str, name: &str) -> anyhow::Result<&Value> {
        let found = self.0.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
        found.with_context(|| format!("there is no {kind} {name}"))
    }

    pub fn pods(&self) -> Vec<Pod<'_>> {
        let makers = self
            .0
            .iter()
            .filter(|object| ["Deployment", "StatefulSet", "Job"].iter().any(|kind| object["kind"] == *kind));
        makers.map(Pod::of).collect()
    }

    /// Returns the pods that a label selector matches.
    pub fn selected(&self, selector: &Value) -> Vec<Pod<'_>> {
        self.pods().into_iter().filter(|pod| selects(selector, pod.labels())).collect()
    }

    /// Returns the Service with this name, and its pods.
    ///
    /// # Errors
    /// When there is no such Service.
    pub fn service(&self, name: &str) -> anyhow::Result<(&Value, Vec<Pod<'_>>)> {
        let service = self.get("Service", name)?;
        let labels = serde_json::json!({"matchLabels": service["spec"]["selector"]});
        Ok((service, self.selected(&labels)))
    }

    /// Returns a value of a Secret.
    ///
    /// # Errors
    /// When there is no such Secret or key.
    pub fn secret(&self, name: &str, key: &str) -> anyhow::Result<String> {
        let secret = match self.get("Secret", name) {
            Ok(secret) => secret,
            Err(missing) => return self.issued(name, key).unwrap_or(Err(missing)),
        };
        if let Some(plain) = secret["stringData"][key].as_str() {
            return Ok(plain.into());
        }
        let encoded = secret["data"][key].as_str().with_context(|| format!("Secret {name} has no {key}"))?;
        let encoded = encoded.split_whitespace().collect::<String>();
        Ok(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?)
    }

    /// Returns a value of the Secret that cert-manager creates for a Certificate.
    fn issued(&self, secret: &str, key: &str) -> Option<anyhow::Result<String>> {
        let certificate = self.all("Certificate").find(|certificate| certificate["spec"]["secretName"] == secret)?;
        let program = certificate["spec"]["dnsNames"][0].as_str()?.strip_suffix(".confab")?;
        let files = certificates::files(program);
        Some(files.and_then(|files| files.get(key).cloned().with_context(|| format!("Secret {secret} has no {key}"))))
    }

    /// Returns a copy with one value replaced; `null` removes the value.
    ///
    /// # Panics
    /// When there is no such value.
    #[must_use]
    pub fn but(&self, kind: &str, name: &str, pointer: &str, value: Value) -> Self {
        let mut copy = self.clone();
        // Names that kustomize generates end in a hash.
        let named = |object: &&mut Value| {
            let is = object["metadata"]["name"].as_str().unwrap_or_default();
            object["kind"] == kind
                && (is == name || is.rsplit_once('-').is_some_and(|(stem, hash)| stem == name && hash.len() == 10))
        };
        let object = copy.0.iter_mut().find(named).unwrap_or_else(|| panic!("no {kind} {name}"));
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let key = key.replace("~1", "/");
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{kind} {name} has no {parent}"));
        match parent {
            Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value,
            parent if value.is_null() => {
                _ = parent.as_object_mut().and_then(|object| object.remove(&key)).expect("a value to remove")
            }
            parent => parent[key.as_str()] = value,
        }
        copy
    }
}

/// Returns the path of a program that scripts/ensure-checks.sh installs.
fn tool(name: &str) -> PathBuf {
    root().join(".tools/checks/bin").join(name)
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Parses the documents of a YAML stream.
///
/// # Errors
/// When it is malformed.
pub fn documents(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let documents = serde_saphyr::from_multiple::<Value>(yaml)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Returns whether a label selector matches these labels.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    exact.into_iter().all(|(key, value)| labels[key] == *value)
        && expressions.into_iter().all(|expression| {
            assert_eq!(expression["operator"], "In", "only the operator In is supported here");
            let key = expression["key"].as_str().unwrap_or_default();
            expression["values"].as_array().is_some_and(|values| values.contains(&labels[key]))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors() {
        let labels = json!({"a": "1", "b": "2"});
        assert!(selects(&json!({}), &labels));
        assert!(selects(&json!({"matchLabels": {"a": "1"}}), &labels));
        assert!(!selects(&json!({"matchLabels": {"a": "1", "c": "3"}}), &labels));
        let one_of = |values: Value| json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "In", "values": values}]});
        assert!(selects(&one_of(json!(["2", "3"])), &labels));
        assert!(!selects(&one_of(json!(["3"])), &labels));
    }
}
