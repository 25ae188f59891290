//! A SQLite file locked by one transaction. No other task runs meanwhile, so each call may block its thread.

use std::fs::File;
use std::path::Path;

use anyhow::bail;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use uuid::Uuid;

use super::{Kind, Row, Table, Value};
use crate::sqlite::open_alone;

pub struct Session {
    connection: Connection,
    _lock: File,
}

impl Session {
    pub fn begin(path: &Path, migrations: refinery::Runner, behavior: &str) -> anyhow::Result<Self> {
        let (connection, lock) = open_alone(path, migrations)?;
        connection.execute_batch(&format!("BEGIN {behavior}"))?;
        Ok(Self { connection, _lock: lock })
    }

    pub fn page(&self, table: &Table, after: Option<&[Value]>) -> anyhow::Result<Vec<Row>> {
        let places = after.map(|key| (1..=key.len()).map(|n| format!("?{n}")).collect());
        let sql = format!("/* page */ SELECT {} {}", table.selection(str::to_owned), table.page(places));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(after.unwrap_or_default()))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let value = |(n, (name, kind)): (usize, &super::Column)| {
                value(*kind, row.get_ref(n)?).map_err(|error| error.context(*name))
            };
            page.push(table.columns.iter().enumerate().map(value).collect::<anyhow::Result<_>>()?);
        }
        Ok(page)
    }

    pub fn add(&self, table: &Table, rows: &[Row]) -> anyhow::Result<()> {
        let places = (1..=table.columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        let sql = format!("/* add */ INSERT INTO {} ({}) VALUES ({places})", table.name, table.names());
        let mut statement = self.connection.prepare_cached(&sql)?;
        rows.iter().try_for_each(|row| statement.execute(params_from_iter(row)).map(drop))?;
        Ok(())
    }

    pub fn clear(&self, table: &Table) -> anyhow::Result<()> {
        Ok(self.connection.execute_batch(&format!("/* clear */ DELETE FROM {}", table.name))?)
    }

    pub fn commit(self) -> anyhow::Result<()> {
        Ok(self.connection.execute_batch("COMMIT")?)
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Id(id) => ValueRef::Blob(id.as_bytes()),
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Flag(flag) => ValueRef::Integer((*flag).into()),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn value(kind: Kind, value: ValueRef) -> anyhow::Result<Value> {
    Ok(match (kind, value) {
        (_, ValueRef::Null) => Value::Null,
        (Kind::Id, ValueRef::Blob(bytes)) => Value::Id(Uuid::from_slice(bytes)?),
        (Kind::Number, ValueRef::Integer(number)) => Value::Number(number),
        (Kind::Flag, ValueRef::Integer(flag @ (0 | 1))) => Value::Flag(flag == 1),
        (Kind::Text | Kind::Local, ValueRef::Text(text)) => Value::Text(String::from_utf8(text.to_vec())?),
        (Kind::Bytes, ValueRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
        (kind, value) => bail!("a value of type {} is not of kind {kind:?}", value.data_type()),
    })
}
