//! One kind of pod in the manifests, as the kubelet interprets it.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{COMPONENT, Manifests};

/// A Deployment, StatefulSet or Job, and its pods.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    pub object: &'a Value,
    pub spec: &'a Value,
    pub container: &'a Value,
}

/// A value of a Secret that is mounted as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its path in the container.
    pub path: String,
    pub secret: String,
    pub key: String,
}

impl<'a> Pod<'a> {
    pub(super) fn of(object: &'a Value) -> Self {
        let spec = &object["spec"]["template"]["spec"];
        Self { object, spec, container: &spec["containers"][0] }
    }

    /// Returns its kind and name.
    pub fn name(&self) -> String {
        format!("{} {}", text(&self.object["kind"]), text(&self.object["metadata"]["name"]))
    }

    pub fn labels(&self) -> &'a Value {
        &self.object["spec"]["template"]["metadata"]["labels"]
    }

    pub fn component(&self) -> &'a str {
        text(&self.labels()[COMPONENT])
    }

    /// Returns the Confab program that it runs, according to its image; `None` for a foreign image.
    pub fn program(&self) -> Option<&'a str> {
        let image = text(&self.container["image"]);
        let name = image.rsplit('/').next()?.split(':').next()?;
        name.starts_with("confab").then_some(name)
    }

    /// Returns whether it serves, instead of running once.
    pub fn serves(&self) -> bool {
        self.object["kind"] != "Job"
    }

    pub fn arguments(&self) -> Vec<String> {
        self.container["args"].as_array().into_iter().flatten().map(|argument| text(argument).to_owned()).collect()
    }

    pub fn ports(&self) -> BTreeMap<&'a str, u64> {
        let ports = self.container["ports"].as_array().into_iter().flatten();
        ports.map(|port| (text(&port["name"]), port["containerPort"].as_u64().unwrap_or_default())).collect()
    }

    /// Returns the number of a port given by its name or its number.
    pub fn port(&self, given: &Value) -> Option<u64> {
        match given {
            Value::String(name) => self.ports().get(name.as_str()).copied(),
            number => number.as_u64().filter(|number| self.ports().values().any(|port| port == number)),
        }
    }

    /// Returns the environment in a pod with this address.
    ///
    /// # Errors
    /// When a referenced object is missing.
    pub fn environment(&self, manifests: &Manifests, address: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let mut environment = BTreeMap::new();
        for source in self.container["envFrom"].as_array().into_iter().flatten() {
            let name = source["configMapRef"]["name"].as_str().with_context(|| format!("not understood: {source}"))?;
            let data = manifests.get("ConfigMap", name)?["data"].as_object().context("a ConfigMap has data")?;
            environment.extend(data.iter().map(|(key, value)| (key.clone(), text(value).to_owned())));
        }
        for variable in self.container["env"].as_array().into_iter().flatten() {
            let value = match (&variable["value"], &variable["valueFrom"]["fieldRef"]["fieldPath"]) {
                (Value::String(value), _) => expanded(value, &environment),
                (_, Value::String(path)) if path == "status.podIP" => address.to_owned(),
                _ => bail!("not understood: {variable}"),
            };
            environment.insert(text(&variable["name"]).to_owned(), value);
        }
        Ok(environment)
    }

    /// Returns the mounted values of Secrets.
    ///
    /// # Errors
    /// When a volume is missing or of an unknown kind.
    pub fn mounts(&self) -> anyhow::Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        for mount in self.container["volumeMounts"].as_array().into_iter().flatten() {
            let volumes = self.spec["volumes"].as_array().into_iter().flatten();
            let Some(volume) = volumes.into_iter().find(|volume| volume["name"] == mount["name"]) else {
                let claimed = self.object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
                let claimed = claimed.into_iter().any(|claim| claim["metadata"]["name"] == mount["name"]);
                ensure!(claimed, "{}: there is no volume {}", self.name(), mount["name"]);
                continue;
            };
            for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
                for item in source["secret"]["items"].as_array().with_context(|| format!("not understood: {source}"))? {
                    let path = format!("{}/{}", text(&mount["mountPath"]), text(&item["path"]));
                    let (secret, key) = (text(&source["secret"]["name"]).to_owned(), text(&item["key"]).to_owned());
                    mounts.push(Mount { path, secret, key });
                }
            }
        }
        Ok(mounts)
    }

    /// Returns the URLs that it connects to, by setting: from its environment and from files that its environment
    /// names.
    ///
    /// # Errors
    /// When a referenced object is missing.
    pub fn urls(&self, manifests: &Manifests) -> anyhow::Result<Vec<(String, String)>> {
        let mounts = self.mounts()?;
        let mut urls = Vec::new();
        for (name, value) in self.environment(manifests, "")? {
            let setting = name.strip_suffix("_FILE").unwrap_or(&name);
            if !leads_out(setting) {
                continue;
            }
            let value = if setting == name {
                value
            } else {
                let mount = mounts.iter().find(|mount| mount.path == value);
                let mount = mount
                    .with_context(|| format!("{}: {name} names {value}, where no volume is mounted", self.name()))?;
                manifests.secret(&mount.secret, &mount.key)?
            };
            urls.extend(value.split(',').map(|url| (setting.to_owned(), url.trim().to_owned())));
        }
        Ok(urls)
    }
}

/// Returns whether a setting's values are URLs that its program connects to.
fn leads_out(setting: &str) -> bool {
    ["_URL", "_STORE", "_BUS", "_ENDPOINT"].iter().any(|end| setting.ends_with(end))
}

/// Expands `$(NAME)` for variables that were defined earlier.
fn expanded(value: &str, known: &BTreeMap<String, String>) -> String {
    known.iter().fold(value.to_owned(), |value, (name, known)| value.replace(&format!("$({name})"), known))
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_after_their_definition() {
        let known = BTreeMap::from([("POD_IP".to_owned(), "10.0.0.1".to_owned())]);
        assert_eq!(expanded("$(POD_IP):7250", &known), "10.0.0.1:7250");
        assert_eq!(expanded("$(LATER):7250", &known), "$(LATER):7250");
    }
}
