//! The exported site.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{Server, program};
use crate::support::assert_code;

/// Returns a working directory with placeholder files of ONNX Runtime Web.
pub fn dir_with_runtime() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().join("third_party/onnxruntime-web");
    fs::create_dir_all(&runtime).unwrap();
    for name in ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "LICENSE"] {
        fs::write(runtime.join(name), name).unwrap();
    }
    fs::write(runtime.join("VERSION"), "1.2.3\n").unwrap();
    dir
}

#[test]
fn exported_site_contains_page_runtime_and_models() {
    let server = Server::start(&[]);
    let dir = dir_with_runtime();
    let site = dir.path().join("a/site");
    let export = || program(server.models.path()).current_dir(&dir).arg("--export").arg(&site).output().unwrap();
    assert_code(&export(), 0);

    let read = |name: &str| fs::read_to_string(site.join(name)).unwrap();
    for name in ["app.js", "view.js", "download.js", "style.css", "icon.svg"] {
        assert_eq!(read(name), server.get(&format!("/{name}")).text, "{name}");
    }
    let policy = "script-src 'self' 'wasm-unsafe-eval'";
    assert!(read("index.html").contains(policy) && !server.get("/").text.contains(policy));
    assert!(read("predict.js").contains("worker.js") && !read("predict.js").contains("api/predict"));
    assert_eq!(read("onnxruntime/ort-wasm.js"), "ort-wasm-simd-threaded.mjs");

    let site_models: Value = serde_json::from_str(&read("models.json")).unwrap();
    let mut description = server.get("/api/models").json()["models"][0].take();
    description["provider"] = json!("ONNX Runtime 1.2.3 in the browser");
    assert_eq!(site_models["models"][0], description);
    let resize = &site_models["network"]["input"]["resize"];
    assert_eq!((resize, &site_models["network"]["output"]), (&json!({"size": [64, 64]}), &json!("code")));
    let heads = site_models["heads"].as_array().unwrap();
    let files: Vec<&str> = heads.iter().map(|head| head["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["heads/2004.onnx", "heads/2005.onnx", "heads/2006.onnx", "heads/all.onnx"]);
    for part in heads.iter().chain([&site_models["network"]]) {
        let length = fs::metadata(site.join(part["file"].as_str().unwrap())).unwrap().len();
        assert_eq!(part["bytes"], json!(length));
    }

    // An existing site is overwritten, but not a directory with other files.
    assert_code(&export(), 0);
    fs::remove_file(site.join("models.json")).unwrap();
    let rejected = export();
    assert_code(&rejected, 1);
    assert!(String::from_utf8_lossy(&rejected.stderr).contains("not an exported site: choose another one"));
}
