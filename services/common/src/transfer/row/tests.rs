use super::*;

const TABLE: Table = Table::new(
    "t",
    1,
    &[
        ("id", Kind::Id),
        ("n", Kind::Number),
        ("f", Kind::Flag),
        ("t", Kind::Text),
        ("b", Kind::Bytes),
        ("z", Kind::Text),
    ],
);

#[test]
fn rows_round_trip() {
    let text = "\"\\\n\u{7f}\u{1F375}\u{2028}é".to_owned();
    let row = vec![
        Value::Id(Uuid::from_u128(7)),
        Value::Number(i64::MIN),
        Value::Flag(true),
        Value::Text(text),
        Value::Bytes(vec![0, 255]),
        Value::Null,
    ];
    let written = line(&row).unwrap();
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert!(written.starts_with(br#"["00000000-0000-0000-0000-000000000007",-9223372036854775808,true,"#));
    assert!(written.ends_with(b"\"AP8=\",null]\n"));
    assert_eq!(rows(&TABLE, &written[..]).collect::<anyhow::Result<Vec<_>>>().unwrap(), [row]);
}

#[test]
fn malformed_row_is_named() {
    for bad in [
        "",
        "{}",
        "[]",
        r#"["x",1,true,"","",null]"#,
        r#"["00000000-0000-0000-0000-000000000007",1.5,true,"","",null]"#,
    ] {
        let error = rows(&TABLE, format!("{bad}\n").as_bytes()).next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "row 1 of table t", "{bad}");
    }
}
