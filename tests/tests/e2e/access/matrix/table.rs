//! Reads `matrix.txt`.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};

/// The text of the table.
pub const TEXT: &str = include_str!("matrix.txt");

/// The table: a section for REST operations, one for socket events, and one for gRPC methods.
pub type Table = BTreeMap<String, Section>;

#[derive(Debug, Default)]
pub struct Section {
    pub callers: Vec<String>,
    pub rows: Vec<Row>,
}

/// A request with the expected answers.
#[derive(Debug)]
pub struct Row {
    pub request: String,
    /// The act in `docs/who-may-what.md`.
    pub act: Option<String>,
    pub lines: Vec<Line>,
}

/// The expected answers in one kind of room, one for each caller.
#[derive(Debug)]
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
    } else if !line.starts_with(' ') {
        // A gRPC method and its answers are on one line.
        let (request, cells) = if name == "grpc" { line.split_once(' ').unwrap_or((line, "")) } else { (line, "") };
        section.rows.push(Row { request: request.to_owned(), act: None, lines: Vec::new() });
        if name == "grpc" {
            expect(section, Kind::Any, cells)?;
        }
    } else {
        let (word, rest) = line.trim_start().split_once(' ').context("a line has two parts")?;
        if word == "doc" {
            let row = section.rows.last_mut().context("a request must come first")?;
            row.act = Some(rest.trim().to_owned());
        } else {
            expect(section, Kind::parse(word)?, rest)?;
        }
    }
    Ok(())
}

fn expect(section: &mut Section, kind: Kind, cells: &str) -> anyhow::Result<()> {
    let cells = words(cells);
    ensure!(cells.len() == section.callers.len(), "{} cells for {} callers", cells.len(), section.callers.len());
    let row = section.rows.last_mut().context("a request must come first")?;
    ensure!(row.lines.iter().all(|line| line.kind != kind), "a second line for these rooms");
    row.lines.push(Line { kind, cells });
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().filter(|word| *word != "|").map(str::to_owned).collect()
}

#[test]
fn a_table_is_read() {
    let text = "# x\n[rest]\ncallers a | b\nGET /x {\"y\":\"z\"}\n  doc read x\n  any 200 | 401\n[grpc]\ncallers c\np.S/M yes\n";
    let table = parse(text).unwrap();
    let row = &table["rest"].rows[0];
    assert_eq!((&*row.request, row.act.as_deref()), ("GET /x {\"y\":\"z\"}", Some("read x")));
    assert_eq!((row.lines[0].kind, &row.lines[0].cells[..]), (Kind::Any, &["200".to_owned(), "401".to_owned()][..]));
    assert_eq!((table["rest"].column("b").unwrap(), table["rest"].column("c").is_err()), (1, true));
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
