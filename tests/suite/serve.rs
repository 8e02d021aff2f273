//! kinoprobe-serve over HTTP, with the tiny network and classifiers trained on noise.

mod export;
mod load;
mod models;
mod page;
mod predictions;
mod runs;
mod server;
mod shutdown;
mod startup;
mod uploads;

use std::fs;

use serde_json::{Value, json};

use crate::support::fixture;

fn openapi() -> Value {
    serde_json::from_str(include_str!("../../src/serve/openapi.json")).unwrap()
}

/// Asserts that `value` matches the schema of this name in the OpenAPI description.
#[track_caller]
fn assert_schema(schema: &str, value: &Value) {
    let mut root = openapi();
    root["$ref"] = json!(format!("#/components/schemas/{schema}"));
    let validator = jsonschema::draft202012::new(&root).unwrap();
    let errors: Vec<String> = validator.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{schema}: {errors:?}\n{value:#}");
}

fn media(name: &str) -> Vec<u8> {
    fs::read(fixture("media").join(name)).unwrap()
}
