//! The tables for people say what the matrix says: the rights in `docs/who-may-what.md`, and the callers in
//! `docs/grpc.md`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

use super::grpc;
use super::operations;
use super::rest::MISSING;
use super::table::{Kind, Line, Section, TEXT, parse};

const RIGHTS: &str = include_str!("../../../../../docs/who-may-what.md");
const GRPC: &str = include_str!("../../../../../docs/grpc.md");

/// The columns of the matrix and the kinds of rooms that a column of the table of rights is about.
const COLUMNS: [(&str, &[&str], &[Kind]); 7] = [
    ("anonymous", &["ano"], BOTH),
    ("anonymous, with the setting", &["opn"], BOTH),
    ("other user or removed member, public room", &["str", "rem", "iss"], &[Kind::Public]),
    ("other user or removed member, private room", &["str", "rem", "iss"], &[Kind::Private]),
    ("member", &["mem", "ism"], BOTH),
    ("admin", &["adm"], BOTH),
    ("owner", &["own"], BOTH),
];
const BOTH: &[Kind] = &[Kind::Private, Kind::Public];
/// The columns of the server keys without a user, in order.
const KEYS: [&str; 6] = ["usr", "tok", "key", "aud", "roo", "msg"];

/// The columns of the matrix that a column of the table about finding users is about. At the servers of the matrix, users
/// find the users of common rooms.
const FINDING: [(&str, &[&str]); 4] = [
    ("anonymous, also with the setting", &["ano", "opn"]),
    ("user, `CONFAB_USER_DIRECTORY=all`", &[]),
    ("user, `CONFAB_USER_DIRECTORY=shared`", &["str", "rem", "mem", "adm", "own", "iss", "ism"]),
    ("key without a user", &["usr"]),
];
/// The columns of the members of the room in which the wanted user is.
const MEMBERS: [&str; 4] = ["mem", "adm", "own", "ism"];

/// Returns the rows below the header of a table, without the lines that only structure it.
fn rows(text: &str, header: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(header));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        cells.collect::<Vec<_>>()
    };
    let rows = lines.take_while(|line| line.starts_with('|')).map(cells);
    rows.filter(|row| !row[0].starts_with("**") && !row[0].starts_with("---")).collect()
}

/// Returns whether a cell of the table of rights says what a cell of the matrix says.
fn agrees(said: &str, kind: Kind, cell: &str) -> anyhow::Result<bool> {
    let (is_public, succeeds) = (kind == Kind::Public, cell.starts_with('2'));
    // What follows a semicolon is about other objects.
    Ok(match said.split(';').next().unwrap_or_default() {
        "yes" | "no change" => succeeds,
        "not listed" => cell == MISSING,
        "public rooms" if is_public => succeeds,
        "public rooms" => cell == MISSING,
        "public rooms, else 404" if is_public => succeeds,
        "public rooms, else 404" => cell == "404",
        status if status.parse::<u16>().is_ok() => cell == status,
        other => bail!("{other:?} has no meaning"),
    })
}

/// Compares one act of the table of rights with a row of the matrix.
fn compare(section: &Section, rights: &[String], lines: &[Line]) -> anyhow::Result<()> {
    for ((name, columns, kinds), said) in COLUMNS.iter().zip(&rights[1..]) {
        for line in lines.iter().filter(|line| kinds.contains(&line.kind)) {
            for column in *columns {
                let cell = &line.cells[section.column(column)?];
                ensure!(agrees(said, line.kind, cell)?, "{name}: {said:?}, but {column} gets {cell} ({:?})", line.kind);
            }
        }
    }
    Ok(())
}

#[test]
fn the_table_of_rights_agrees() {
    let table = parse(TEXT).unwrap();
    let rights = rows(RIGHTS, "| act | anonymous | anonymous, with the setting |");
    let header = rights[0][1..].to_vec();
    assert_eq!(header, COLUMNS.map(|(name, _, _)| name), "the columns of the table in docs/who-may-what.md");
    let rights = rights[1..].iter().map(|row| (&*row[0], row)).collect::<BTreeMap<_, _>>();
    let (mut named, mut wrong) = (BTreeSet::new(), Vec::new());
    for section in [&table["rest"], &table["socket"]] {
        for (row, act) in section.rows.iter().filter_map(|row| Some((row, row.act.as_deref()?))) {
            named.insert(act);
            let compared =
                rights.get(act).context("there is no such act").and_then(|it| compare(section, it, &row.lines));
            wrong.extend(compared.err().map(|error| format!("{act}: {}: {error:#}", row.request)));
        }
    }
    assert!(wrong.is_empty(), "docs/who-may-what.md and the matrix differ:\n{}", wrong.join("\n"));
    assert_eq!(
        named,
        rights.keys().copied().collect::<BTreeSet<_>>(),
        "the acts in the matrix and in docs/who-may-what.md"
    );
}

/// Returns whether a cell of the table of server keys says what a cell of the matrix says.
fn agrees_on_keys(said: &str, kind: Kind, cell: &str) -> anyhow::Result<bool> {
    let (is_public, succeeds) = (kind == Kind::Public, cell.starts_with('2'));
    Ok(match said.split([' ', ';', ':', ',']).next().unwrap_or_default() {
        "yes" => succeeds,
        "public" if is_public => succeeds,
        "public" => cell == MISSING,
        status if status.parse::<u16>().is_ok() => cell == status,
        other => bail!("{other:?} has no meaning"),
    })
}

/// Compares one act of the table of server keys with a row of the matrix: with the answers to the keys whose scope
/// covers the request.
fn compare_keys(section: &Section, said: &str, lines: &[Line]) -> anyhow::Result<()> {
    let first = section.column(KEYS[0])?;
    for line in lines {
        let answers = KEYS.iter().zip(&line.cells[first..]).filter(|(_, cell)| *cell != "403").collect::<Vec<_>>();
        ensure!(!answers.is_empty(), "no key has the scope");
        for (key, cell) in answers {
            ensure!(agrees_on_keys(said, line.kind, cell)?, "{said:?}, but {key} gets {cell} ({:?})", line.kind);
        }
    }
    Ok(())
}

#[test]
fn the_table_of_server_keys_agrees() {
    let table = parse(TEXT).unwrap();
    let documented = rows(RIGHTS, "| act | key without a user |");
    let documented = documented[1..].iter().map(|row| (&*row[0], &*row[1])).collect::<BTreeMap<_, _>>();
    let (mut named, mut wrong) = (BTreeSet::new(), Vec::new());
    for section in [&table["rest"], &table["socket"]] {
        for (row, act) in section.rows.iter().filter_map(|row| Some((row, row.act_of_key.as_deref()?))) {
            named.insert(act);
            let said = documented.get(act).context("there is no such act");
            let compared = said.and_then(|said| compare_keys(section, said, &row.lines));
            wrong.extend(compared.err().map(|error| format!("{act}: {}: {error:#}", row.request)));
        }
    }
    assert!(wrong.is_empty(), "docs/who-may-what.md and the matrix differ:\n{}", wrong.join("\n"));
    assert_eq!(named, documented.keys().copied().collect::<BTreeSet<_>>(), "the acts of server keys");
}

/// Returns the answer that a cell of the table about finding users documents for a caller.
fn documented_finding(said: &str, is_in_common_room: bool) -> anyhow::Result<&'static str> {
    Ok(match said {
        "401" => "401",
        "yes" | "all users" => "200",
        "oneself and users of common rooms" | "oneself and users of common rooms, else 404" if is_in_common_room => {
            "200"
        }
        "oneself and users of common rooms" => MISSING,
        "oneself and users of common rooms, else 404" => "404",
        other => bail!("{other:?} has no meaning"),
    })
}

#[test]
fn the_table_about_finding_users_agrees() {
    let table = parse(TEXT).unwrap();
    let documented = rows(RIGHTS, "| act | anonymous, also with the setting |");
    assert_eq!(documented[0][1..], FINDING.map(|(name, _)| name), "the columns of the table in docs/who-may-what.md");
    let documented = documented[1..].iter().map(|row| (&*row[0], &row[1..])).collect::<BTreeMap<_, _>>();
    let (section, mut named) = (&table["rest"], BTreeSet::new());
    for (row, act) in section.rows.iter().filter_map(|row| Some((row, row.act_of_finding.as_deref()?))) {
        named.insert(act);
        for ((_, columns), said) in FINDING.iter().zip(documented[act]) {
            for (line, column) in row.lines.iter().flat_map(|line| columns.iter().map(move |column| (line, column))) {
                let cell = &line.cells[section.column(column).unwrap()];
                let expected = documented_finding(said, MEMBERS.contains(column)).unwrap();
                assert_eq!(cell, expected, "{act}: {said:?}, {} by {column} ({:?})", row.request, line.kind);
            }
        }
    }
    assert_eq!(named, documented.keys().copied().collect::<BTreeSet<_>>(), "the acts of finding users");
}

/// Returns the documented callers of each method.
fn documented_callers() -> BTreeMap<String, BTreeSet<String>> {
    let methods = operations::methods();
    let mut callers = BTreeMap::new();
    for row in rows(GRPC, "| calls | callers |").iter().skip(1) {
        let words = row[0].split('`').skip(1).step_by(2).collect::<Vec<_>>();
        let roles = row[1].split(", ").map(str::to_owned).collect::<BTreeSet<_>>();
        let Some((service, names)) = words.split_first() else { continue };
        let of_service = methods.iter().filter(|method| method.contains(&format!(".{service}/")));
        for method in of_service {
            let is_named = names.iter().any(|name| method.ends_with(&format!("/{name}")));
            // The row with all others follows those with names.
            if is_named || (names.is_empty() && !callers.contains_key(method)) {
                callers.insert(method.clone(), roles.clone());
            }
        }
    }
    callers
}

#[test]
fn the_table_of_grpc_callers_agrees() {
    let table = parse(TEXT).unwrap();
    let section = &table["grpc"];
    let mut callers = BTreeMap::new();
    for row in section.rows.iter().filter(|row| row.request != operations::HEALTH) {
        let yes = grpc::CALLERS.iter().zip(&row.lines[0].cells).filter(|(_, word)| *word == "yes");
        callers.insert(row.request.clone(), yes.map(|(caller, _)| (*caller).to_owned()).collect::<BTreeSet<_>>());
    }
    assert_eq!(callers, documented_callers(), "the callers in the matrix and in docs/grpc.md");
}

#[test]
fn differences_are_found() {
    let private = Kind::Private;
    for (said, kind, cell, same) in [
        ("yes; 403 for the owner's role", private, "200", true),
        ("no change", private, "404", false),
        ("public rooms, else 404", private, "404", true),
        ("public rooms, else 404", Kind::Public, "404", false),
        ("public rooms", private, MISSING, true),
        ("not listed", private, "200", false),
        ("403", private, "404", false),
    ] {
        assert_eq!(agrees(said, kind, cell).unwrap(), same, "{said} {cell}");
    }
    assert!(agrees("perhaps", private, "200").is_err());
    for (said, cell, same) in
        [("yes, with `roomId`; without it 400", "200", true), ("400: it needs a user", "403", false)]
    {
        assert_eq!(agrees_on_keys(said, private, cell).unwrap(), same, "{said} {cell}");
    }
    assert!(agrees_on_keys("public rooms only", private, MISSING).unwrap());
}
