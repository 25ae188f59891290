use reqwest::header::{HeaderMap, HeaderName};
use serde_json::json;

use super::*;

fn contract() -> Contract {
    let user =
        json!({"type": "object", "required": ["id"], "properties": {"id": {"type": "string", "format": "uuid"}}});
    let room = json!({"allOf": [{"$ref": "#/components/schemas/Named"}, {"type": "object", "properties": {"owner": {"$ref": "#/components/schemas/User"}}}]});
    let named = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}});
    let problem =
        json!({"content": {"application/problem+json": {"schema": {"type": "object"}, "examples": {"not_found": {}}}}});
    let shown = json!({"headers": {"ETag": {}}, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Room"}}}});
    Contract::new(json!({
        "paths": {
            "/rooms/{room}": {
                "get": {"operationId": "show", "responses": {"200": shown, "404": {"$ref": "#/components/responses/NotFound"}}},
                "delete": {"operationId": "delete", "responses": {"204": {}}},
            },
            "/rooms/all": {"post": {"operationId": "all", "responses": {"200": {"content": {"*/*": {}}}}}},
        },
        "components": {"schemas": {"User": user, "Room": room, "Named": named}, "responses": {"NotFound": problem}},
    }))
}

fn answer(status: u16, kind: &str, body: &str) -> Answer {
    let headers = [("content-type", kind), ("etag", "x")]
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    Answer::new(status, HeaderMap::from_iter(headers), body.into())
}

fn room(body: Value) -> Answer {
    answer(200, "application/json", &body.to_string())
}

fn problem(status: u16, code: &str) -> Answer {
    answer(status, "application/problem+json", &json!({ "code": code }).to_string())
}

#[test]
fn documented_responses_are_recorded() {
    let contract = contract();
    let id = "01a20525-1183-7c58-9e5d-6a3b0c9d8e7f";
    for (method, path, answer, seen) in [
        ("GET", "/rooms/1", room(json!({"name": "Tea", "owner": {"id": id}})), Some(("show", 200))),
        ("HEAD", "/rooms/1", answer(200, "application/json", ""), Some(("show", 200))),
        ("GET", "/rooms/1", problem(404, "not_found"), Some(("show", 404))),
        ("DELETE", "/rooms/1", answer(204, "", ""), Some(("delete", 204))),
        ("POST", "/rooms/all", answer(200, "image/png", "…"), Some(("all", 200))),
        ("GET", "/rooms/all", problem(405, "method_not_allowed"), None),
        ("GET", "/rooms/", problem(404, "not_found"), None),
        ("GET", "/docs/", answer(200, "text/html", "…"), None),
    ] {
        let seen = seen.map(|(name, status)| (name.to_owned(), status));
        assert_eq!(contract.judge(method, path, &answer).unwrap(), seen, "{method} {path}");
    }
}

#[test]
fn undocumented_responses_are_detected() {
    let contract = contract();
    let found =
        |method: &str, path: &str, answer: Answer| contract.judge(method, path, &answer).unwrap_err().to_string();
    for (body, fault) in [
        (json!({}), "required"),
        (json!({"name": 1}), "/name"),
        (json!({"name": "Tea", "new": 1}), "new"),
        (json!({"name": "Tea", "owner": {"id": "x"}}), "/owner/id"),
        (json!({"name": "Tea", "owner": {"id": "01a20525-1183-7c58-9e5d-6a3b0c9d8e7f", "new": 1}}), "new"),
    ] {
        let error = found("GET", "/rooms/1", room(body));
        assert!(error.contains(fault), "{fault}: {error}");
    }
    let mut bare = room(json!({"name": "Tea"}));
    bare.headers.remove("etag");
    for (method, path, answer, fault) in [
        ("GET", "/rooms/1", bare, "the header ETag is missing"),
        ("GET", "/rooms/1", answer(201, "application/json", "{}"), "status"),
        ("GET", "/rooms/1", answer(200, "text/plain", "{}"), "text/plain"),
        ("GET", "/rooms/1", problem(404, "forbidden"), "the code is not one of"),
        ("HEAD", "/rooms/1", room(json!({"name": "Tea"})), "with a body"),
        ("DELETE", "/rooms/1", answer(204, "", "x"), "with a body"),
        ("PUT", "/rooms/1", answer(200, "application/json", "{}"), "no such method"),
        ("GET", "/users", answer(200, "application/json", "{}"), "no such path"),
    ] {
        let error = found(method, path, answer);
        assert!(error.contains(fault), "{fault}: {error}");
    }
}
