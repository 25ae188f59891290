//! The schemas of a document, applied strictly: undeclared fields are forbidden.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{anyhow, ensure};
use jsonschema::Validator;
use parking_lot::Mutex;
use serde_json::{Map, Value};

/// The schemas used so far, compiled.
#[derive(Default)]
pub(super) struct Schemas(Mutex<HashMap<String, Arc<Validator>>>);

impl Schemas {
    /// Checks a value against a schema of the document.
    pub fn check(&self, document: &Value, schema: &Value, value: &Value) -> anyhow::Result<()> {
        let mut compiled = self.0.lock();
        let validator = match compiled.get(&schema.to_string()) {
            Some(validator) => validator.clone(),
            None => {
                let validator = Arc::new(compile(&closed(document, schema))?);
                compiled.insert(schema.to_string(), validator.clone());
                validator
            }
        };
        drop(compiled);
        let faults =
            validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect::<Vec<_>>();
        ensure!(faults.is_empty(), "{}", faults.join("; "));
        Ok(())
    }
}

fn compile(schema: &Value) -> anyhow::Result<Validator> {
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(schema)
        .map_err(|error| anyhow!("a bad schema: {error}"))
}

/// Returns a schema with all references resolved, which forbids additional fields.
pub fn closed(document: &Value, schema: &Value) -> Value {
    let mut schema = written_out(document, schema);
    if let Value::Object(object) = &mut schema
        && (object.contains_key("properties") || object.contains_key("allOf"))
    {
        object.insert("unevaluatedProperties".into(), false.into());
    }
    schema
}

/// Like [`closed`], but the top level permits additional fields: a part of an `allOf` must permit the fields of the
/// other parts.
fn written_out(document: &Value, schema: &Value) -> Value {
    let Value::Object(object) = resolve(document, schema) else { return schema.clone() };
    let written = object.iter().map(|(key, value)| {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => properties
                .iter()
                .map(|(name, schema)| (name.clone(), closed(document, schema)))
                .collect::<Map<_, _>>()
                .into(),
            ("items", schema) => closed(document, schema),
            ("oneOf" | "anyOf", Value::Array(schemas)) => {
                schemas.iter().map(|schema| closed(document, schema)).collect()
            }
            ("allOf", Value::Array(schemas)) => schemas.iter().map(|schema| written_out(document, schema)).collect(),
            _ => value.clone(),
        };
        (key.clone(), value)
    });
    written.collect::<Map<_, _>>().into()
}

/// Resolves a reference; returns any other value itself.
pub(super) fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let target = value["$ref"].as_str().and_then(|target| document.pointer(target.strip_prefix('#')?));
    target.unwrap_or(value)
}
