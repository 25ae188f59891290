//! Reads `matrix.txt`.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

/// The text of the table.
pub const TEXT: &str = include_str!("matrix.txt");

/// The table: a section for REST operations, one for socket events, one for gRPC methods, and one for credentials.
pub type Table = BTreeMap<String, Section>;

#[derive(Debug, Default)]
pub struct Section {
    pub callers: Vec<String>,
    pub rows: Vec<Row>,
    /// The first row of the last block.
    block: usize,
}

/// A request with the expected answers.
#[derive(Debug, Default)]
pub struct Row {
    pub request: String,
    /// The act in the table of rights in `docs/who-may-what.md`.
    pub act: Option<String>,
    /// The act in its table of server keys.
    pub act_of_key: Option<String>,
    /// The act in its table about finding users.
    pub act_of_finding: Option<String>,
    pub lines: Vec<Line>,
}

/// The expected answers in one kind of room, one for each caller.
#[derive(Debug, Clone)]
pub struct Line {
    pub kind: Kind,
    pub cells: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Private,
    Public,
    /// The request concerns no room.
    Any,
}

impl Kind {
    fn parse(word: &str) -> anyhow::Result<Self> {
        Ok(match word {
            "private" => Self::Private,
            "public" => Self::Public,
            "any" => Self::Any,
            _ => bail!("{word:?} is no kind of room"),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::Any => "any",
        }
    }

    /// The visibility of the rooms of this kind.
    pub fn visibility(self) -> &'static str {
        if self == Self::Public { "public" } else { "private" }
    }

    /// The visibility of other rooms.
    pub fn opposite(self) -> &'static str {
        if self == Self::Public { "private" } else { "public" }
    }
}

impl Section {
    /// The rows of the last block.
    fn block(&mut self) -> anyhow::Result<&mut [Row]> {
        let rows = self.rows.get_mut(self.block..).filter(|rows| !rows.is_empty());
        rows.context("a request must come first")
    }

    /// Returns the column of a caller.
    ///
    /// # Errors
    /// When the caller has no column.
    pub fn column(&self, caller: &str) -> anyhow::Result<usize> {
        self.callers.iter().position(|name| name == caller).with_context(|| format!("there is no column {caller}"))
    }
}

/// Parses a table.
///
/// # Errors
/// When a line is malformed; the message contains its number.
pub fn parse(text: &str) -> anyhow::Result<Table> {
    let (mut table, mut name) = (Table::new(), String::new());
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_end();
        let taken = match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            _ if line.is_empty() || line.starts_with('#') => Ok(()),
            Some(section) => {
                section.clone_into(&mut name);
                table.insert(name.clone(), Section::default());
                Ok(())
            }
            None => table.get_mut(&name).context("a section must come first").and_then(|it| take(it, &name, line)),
        };
        taken.with_context(|| format!("line {}: {line}", at + 1))?;
    }
    Ok(table)
}

fn take(section: &mut Section, name: &str, line: &str) -> anyhow::Result<()> {
    if let Some(callers) = line.strip_prefix("callers ") {
        section.callers = words(callers);
    } else if line.starts_with(' ') {
        let (word, rest) = line.trim_start().split_once(' ').context("a line has two parts")?;
        let act = Some(rest.trim().to_owned());
        match word {
            "doc" => section.block()?.iter_mut().for_each(|row| row.act.clone_from(&act)),
            "key" => section.block()?.iter_mut().for_each(|row| row.act_of_key.clone_from(&act)),
            "find" => section.block()?.iter_mut().for_each(|row| row.act_of_finding.clone_from(&act)),
            kind => expect(section, Kind::parse(kind)?, rest)?,
        }
    } else if name == "grpc" {
        // A method and its answers are on one line.
        let (method, cells) = line.split_once(' ').unwrap_or((line, ""));
        request(section, method);
        expect(section, Kind::Any, cells)?;
    } else {
        request(section, line);
    }
    Ok(())
}

/// Adds a request, to the last block if that has no answers yet.
fn request(section: &mut Section, text: &str) {
    let has_act = |row: &Row| [&row.act, &row.act_of_key, &row.act_of_finding].iter().any(|act| act.is_some());
    let ends = |row: &Row| has_act(row) || !row.lines.is_empty();
    if section.rows.last().is_none_or(ends) {
        section.block = section.rows.len();
    }
    section.rows.push(Row { request: text.to_owned(), ..Row::default() });
}

fn expect(section: &mut Section, kind: Kind, cells: &str) -> anyhow::Result<()> {
    let cells = words(cells);
    ensure!(cells.len() == section.callers.len(), "{} cells for {} callers", cells.len(), section.callers.len());
    let line = Line { kind, cells };
    for row in section.block()? {
        ensure!(row.lines.iter().all(|line| line.kind != kind), "a second line for these rooms");
        row.lines.push(line.clone());
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().filter(|word| *word != "|").map(str::to_owned).collect()
}

#[test]
fn a_table_is_read() {
    let text = "# x
[rest]
callers a | b
GET /w {\"y\":\"z\"}
GET /x
  doc read x
  key read y
  find z
  any 200 | 401
GET /y
  public 200 404
[grpc]
callers c
p.S/M yes
";
    let table = parse(text).unwrap();
    let rest = &table["rest"];
    for (row, request) in rest.rows.iter().zip([r#"GET /w {"y":"z"}"#, "GET /x"]) {
        assert_eq!((&*row.request, row.act.as_deref()), (request, Some("read x")));
        assert_eq!((row.act_of_key.as_deref(), row.act_of_finding.as_deref()), (Some("read y"), Some("z")));
        assert_eq!((row.lines.len(), row.lines[0].kind), (1, Kind::Any));
        assert_eq!(row.lines[0].cells, ["200", "401"]);
    }
    assert_eq!((rest.rows[2].act.as_deref(), rest.rows[2].lines[0].kind), (None, Kind::Public));
    assert_eq!((rest.column("b").unwrap(), rest.column("c").is_err()), (1, true));
    assert_eq!((&*table["grpc"].rows[0].request, &*table["grpc"].rows[0].lines[0].cells[0]), ("p.S/M", "yes"));
}

#[test]
fn malformed_lines_are_rejected() {
    for (text, why) in [
        ("GET /x\n", "line 1"),
        ("[rest]\ncallers a b\nGET /x\n  any 200\n", "1 cells for 2 callers"),
        ("[rest]\ncallers a\nGET /x\n  some 200\n", "no kind of room"),
        ("[rest]\ncallers a\n  any 200\n", "a request must come first"),
        ("[rest]\ncallers a\nGET /x\n  any 200\n  any 200\n", "a second line"),
    ] {
        let error = format!("{:#}", parse(text).unwrap_err());
        assert!(error.contains(why), "{text:?}: {error}");
    }
}
