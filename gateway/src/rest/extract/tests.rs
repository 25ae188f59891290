use super::*;
use crate::new_message::NewMessage;

async fn params(query: &str) -> Result<Params, Problem> {
    let request = Request::builder().uri(format!("/x?{query}")).body(()).unwrap();
    Params::from_request_parts(&mut request.into_parts().0, &()).await
}

#[tokio::test]
async fn limits_and_numbers_are_validated() {
    assert_eq!(params("").await.unwrap().limit().unwrap(), 50);
    for (query, limit) in [("limit=1", 1), ("limit=200&unknown=x", 200), ("limit=007", 7)] {
        assert_eq!(params(query).await.unwrap().limit().unwrap(), limit);
    }
    for bad in ["0", "201", "-1", "1.5", "1e2", "%2B5", "", "x", "18446744073709551616", "4294967297"] {
        let error = params(&format!("limit={bad}")).await.unwrap().limit().unwrap_err();
        assert_eq!(error.fields[0].field, "limit", "{bad}");
    }
    let seqs = params("a=0&b=18446744073709551615&c=x").await.unwrap();
    assert_eq!(seqs.seq("a", 0).unwrap(), Some(0));
    assert!(seqs.seq("a", 1).is_err() && seqs.seq("c", 0).is_err());
    assert_eq!(seqs.seq("b", 1).unwrap(), Some(i64::MAX as u64));
    assert_eq!(seqs.seq("d", 1).unwrap(), None);
}

#[tokio::test]
async fn malformed_queries_are_rejected() {
    for bad in ["limit=1&limit=2", "q=%00"] {
        assert_eq!(params(bad).await.unwrap_err().0.code, Code::InvalidRequest, "{bad}");
    }
    assert_eq!(params("q=%ff%20%C3%A9").await.unwrap().text("q"), Some("\u{fffd} é"));
}

#[test]
fn bearer_tokens_are_parsed() {
    let bearer =
        |text: &'static str| confab_identity::tokens::bearer(&HeaderValue::from_static(text)).map(str::to_owned);
    let abc = || Some("abc".to_owned());
    assert_eq!((bearer("Bearer abc"), bearer("bearer  abc ")), (abc(), abc()));
    assert_eq!((bearer("Basic abc"), bearer("abc"), bearer("")), (None, None, None));
}

#[test]
fn body_errors_name_the_invalid_field() {
    let field = |body: &str| {
        let error = parse::<NewMessage>(body.as_bytes()).unwrap_err();
        (error.code, error.fields.first().map(|error| format!("{} {}", error.field, error.detail)))
    };
    let named = |text: &str| (Code::InvalidRequest, Some(text.to_owned()));
    assert_eq!(field(r#"{"roomId":"r","content":5}"#), named("content must be a string"));
    assert_eq!(field(r#"{"roomId":"r","content":null}"#), named("content must be a string"));
    assert_eq!(field(r#"{"content":"x"}"#), named("roomId must be given"));
    assert_eq!(field(r#"{"roomId":"r","content":"x","fileIds":["a",1]}"#), named("fileIds[1] must be a string"));
    assert_eq!(field(r#"{"roomId":"r","content":"x","fileIds":"a"}"#), named("fileIds must be an array"));
    let deep = format!(r#"{{"roomId":"r","content":"x","x":{}}}"#, "[".repeat(100_000));
    for bad in ["", "{", "[]", "null", "\"x\"", "{}{}", r#"{"content":"\ud800"}"#, &deep, r#"["r","x",null,null]"#] {
        assert_eq!(field(bad), (Code::InvalidRequest, None), "{bad:.40}");
    }
    assert!(parse::<NewMessage>(b"{\"roomId\":\"\xff\"}").is_err());
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let message: NewMessage = parse("\u{feff}{\"roomId\":\"r\",\"content\":\"x\"}".as_bytes()).unwrap();
    assert_eq!(message.content, "x");
    for bad in ["\u{feff}", "\u{feff}\u{feff}{}", "{}\u{feff}"] {
        assert_eq!(parse::<NewMessage>(bad.as_bytes()).unwrap_err().code, Code::InvalidRequest);
    }
}

#[test]
fn null_means_absent_and_unknown_fields_are_ignored() {
    let message: NewMessage =
        parse(br#"{"roomId":"r","content":"x","clientMessageId":null,"fileIds":null,"seq":1,"sender":{}}"#).unwrap();
    assert!(message.client_message_id.is_none() && message.file_ids.is_none());
}

mod keys;
