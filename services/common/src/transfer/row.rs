//! The canonical form of a row: a JSON array of its values on one line, which does not depend on the kind of store.

use std::io::BufRead;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Kind, Table};

/// The values of a row, in the order of the table's columns.
pub type Row = Vec<Value>;

/// The value of a column. The comments name the JSON type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// A string.
    Id(Uuid),
    Number(i64),
    Flag(bool),
    Text(String),
    /// Base64 in a string.
    Bytes(Vec<u8>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Id(id) => id.serialize(serializer),
            Self::Number(number) => number.serialize(serializer),
            Self::Flag(flag) => flag.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::Bytes(bytes) => BASE64_STANDARD.encode(bytes).serialize(serializer),
        }
    }
}

impl Value {
    fn read(kind: Kind, json: serde_json::Value) -> anyhow::Result<Self> {
        use serde_json::Value::{Bool, Null, Number, String};
        Ok(match (kind, json) {
            (_, Null) => Self::Null,
            (Kind::Id, String(text)) => Self::Id(text.parse()?),
            (Kind::Number, Number(number)) => Self::Number(number.as_i64().context("not a whole number of 64 bits")?),
            (Kind::Flag, Bool(flag)) => Self::Flag(flag),
            (Kind::Text | Kind::Local, String(text)) => Self::Text(text),
            (Kind::Bytes, String(text)) => Self::Bytes(BASE64_STANDARD.decode(text)?),
            (kind, _) => bail!("not of kind {kind:?}"),
        })
    }
}

/// Encodes a row as a line.
pub(super) fn line(row: &Row) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    Ok(line)
}

fn read(table: &Table, line: &str) -> anyhow::Result<Row> {
    let values = serde_json::from_str::<Vec<serde_json::Value>>(line)?;
    anyhow::ensure!(values.len() == table.columns.len(), "{} values for {} columns", values.len(), table.columns.len());
    let read = |((name, kind), value): (&super::Column, _)| Value::read(*kind, value).context(*name);
    table.columns.iter().zip(values).map(read).collect()
}

/// Parses the rows in the lines of a table.
pub fn rows(table: &Table, lines: impl BufRead) -> impl Iterator<Item = anyhow::Result<Row>> {
    lines.lines().enumerate().map(move |(n, line)| {
        let row = line.map_err(Into::into).and_then(|line| read(table, &line));
        row.with_context(|| format!("row {} of table {}", n + 1, table.name))
    })
}

#[cfg(test)]
mod tests;
