//! Prints the document of the HTTP API, for `docs/openapi.json`.

fn main() -> serde_json::Result<()> {
    print!("{}", confab_gateway::rest::document()?);
    Ok(())
}
