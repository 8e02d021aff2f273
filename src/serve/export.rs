//! Exports the page as a static site that runs the models in the visitor's browser: `kinoprobe-serve --export`.
//!
//! The site consists of the page's files with another `predict.js`, ONNX Runtime Web, the network, the classifier
//! heads, and `models.json`: the response of `GET /api/models` with the parameters that the browser needs to run the
//! models. It works on any static host and in any directory. It loads nothing from other hosts and sends no images.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::page::{ASSETS, Asset};
use super::{Options, ServedModels, prediction};
use crate::error::{Error, Result};
use crate::posters::Head;
use crate::progress::ProgressSink;

/// Describes the models to the browser, and marks a directory as an exported site.
const MODELS: &str = "models.json";
/// Directory of ONNX Runtime Web, relative to the working directory or to the sources.
const RUNTIME_DIR: &str = "third_party/onnxruntime-web";
/// Files of ONNX Runtime Web and their names in the site. Some hosts do not serve `.mjs` as JavaScript.
const RUNTIME_FILES: [(&str, &str); 4] = [
    ("ort.wasm.min.mjs", "ort.js"),
    ("ort-wasm-simd-threaded.mjs", "ort-wasm.js"),
    ("ort-wasm-simd-threaded.wasm", "ort-wasm.wasm"),
    ("LICENSE", "LICENSE"),
];
/// File in [`RUNTIME_DIR`] that contains the version.
const RUNTIME_VERSION: &str = "VERSION";

/// Scripts that replace or extend those of the page.
const SCRIPTS: [(&str, &str); 5] = [
    ("predict.js", include_str!("site/predict.js")),
    ("prediction.js", include_str!("site/prediction.js")),
    ("image.js", include_str!("site/image.js")),
    ("transform.js", include_str!("site/transform.js")),
    ("worker.js", include_str!("site/worker.js")),
];

/// The server's Content-Security-Policy without the directives that are invalid in a `<meta>` element, and with
/// permission to compile WebAssembly.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; \
     img-src 'self' blob: data:; connect-src 'self'; worker-src 'self'; form-action 'none'; base-uri 'none'";

/// Writes the site into the directory `dir`, which is created if it does not exist. An existing site is overwritten. Downloads
/// of weights are reported to `progress`.
///
/// # Errors
/// Returns an error if the models, the card or the weights are not available or do not fit each other, if ONNX Runtime
/// Web is missing, if `dir` contains other files, or if a file cannot be written.
pub fn export(options: &Options, dir: &Path, progress: &dyn ProgressSink) -> Result<()> {
    let ServedModels { models, card, prepared } = ServedModels::load(options, progress)?;
    let runtime = find_runtime()?;
    prepare_directory(dir)?;

    for Asset { path, content, .. } in &ASSETS {
        match *path {
            "/" => write(&dir.join("index.html"), with_security_policy(content).as_bytes())?,
            path => write(&dir.join(&path[1..]), content.as_bytes())?,
        }
    }
    for (name, content) in SCRIPTS {
        write(&dir.join(name), content.as_bytes())?;
    }
    for (name, site_name) in RUNTIME_FILES {
        copy(&runtime.join(name), &dir.join("onnxruntime").join(site_name))?;
    }
    let network_bytes = copy(&prepared.onnx, &dir.join("network.onnx"))?;
    let mut heads = Vec::new();
    let posters = &models.posters;
    let years = posters.years.iter().map(|year| &year.directory).zip(&models.years);
    for (directory, head) in years.chain(posters.overall.iter().map(|overall| &overall.directory).zip(&models.overall))
    {
        heads.push(write_head(dir, directory, head)?);
    }
    if let Some(head) = models.overall.as_ref().filter(|_| models.is_run) {
        heads.push(write_head(dir, "model", head)?);
    }

    let version_file = runtime.join(RUNTIME_VERSION);
    let version = std::fs::read_to_string(&version_file).map_err(Error::io(&version_file))?;
    let provider = format!("ONNX Runtime {} in the browser", version.trim());
    let mut description = prediction::model_description(&models, &provider);
    description["untrained"] = json!(posters.identity.untrained || prepared.untrained);
    let site = json!({
        "models": [description],
        "limits": { "image_megabytes": options.limits.image_megabytes, "megapixels": options.limits.megapixels },
        "network": { "file": "network.onnx", "bytes": network_bytes, "input": card.input, "output": card.output.name },
        "heads": heads,
    });
    // Last, so that it exists only if all models are in place.
    write(&dir.join(MODELS), format!("{site}\n").as_bytes())
}

/// Writes a model as `heads/NAME.onnx`, and returns its description.
fn write_head(dir: &Path, name: &str, head: &Head) -> Result<serde_json::Value> {
    let (file, content) = (format!("heads/{name}.onnx"), head.to_onnx());
    write(&dir.join(&file), &content)?;
    Ok(json!({ "file": file, "bytes": content.len() }))
}

/// Returns the directory of ONNX Runtime Web.
fn find_runtime() -> Result<PathBuf> {
    let candidates = [PathBuf::from(RUNTIME_DIR), Path::new(env!("CARGO_MANIFEST_DIR")).join(RUNTIME_DIR)];
    let is_installed = |dir: &PathBuf| dir.join(RUNTIME_VERSION).is_file();
    candidates.into_iter().find(is_installed).ok_or_else(|| Error::Config {
        path: RUNTIME_DIR.into(),
        message: "ONNX Runtime Web is missing: run setup/web.sh".into(),
    })
}

/// Creates the directory, or removes the heads of an earlier export, whose names may differ.
fn prepare_directory(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let is_site = dir.join(MODELS).is_file();
    let is_empty = std::fs::read_dir(dir).map_err(Error::io(dir))?.next().is_none();
    if !is_site && !is_empty {
        let message = "the directory is not empty and not an exported site: choose another one".into();
        return Err(Error::Config { path: dir.to_path_buf(), message });
    }
    let heads = dir.join("heads");
    if is_site && heads.is_dir() {
        std::fs::remove_dir_all(&heads).map_err(Error::io(&heads))?;
    }
    Ok(())
}

/// Adds the Content-Security-Policy to the page, because static hosts do not send the header.
fn with_security_policy(html: &str) -> String {
    let meta = format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{CONTENT_SECURITY_POLICY}\">");
    html.replacen("<head>\n", &format!("<head>\n{meta}\n"), 1)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    std::fs::write(path, content).map_err(Error::io(path))
}

/// Copies a file and returns its length in bytes.
fn copy(from: &Path, to: &Path) -> Result<u64> {
    let content = std::fs::read(from).map_err(Error::io(from))?;
    write(to, &content)?;
    Ok(content.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn site_loads_nothing_from_other_hosts() {
        let html = with_security_policy(ASSETS.iter().find(|asset| asset.path == "/").unwrap().content);
        assert_eq!(html.matches(CONTENT_SECURITY_POLICY).count(), 1);
        let scripts = SCRIPTS.iter().map(|(_, content)| *content).chain(ASSETS.iter().map(|asset| asset.content));
        for content in scripts.chain([html.as_str()]) {
            let content = content.replace("http://www.w3.org/2000/svg", ""); // an XML namespace, which is never fetched
            assert!(!content.contains("://"), "{content}");
        }
    }

    #[test]
    fn directories_with_other_files_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        prepare_directory(dir.path()).unwrap();
        write(&dir.path().join("thesis.txt"), b"text").unwrap();
        let error = prepare_directory(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not empty and not an exported site"), "{error}");
        write(&dir.path().join(MODELS), b"{}").unwrap();
        write(&dir.path().join("heads/1999.onnx"), b"old").unwrap();
        prepare_directory(dir.path()).unwrap();
        assert!(!dir.path().join("heads").exists());
    }
}
