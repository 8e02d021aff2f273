//! Routes, their description and their headers.

use std::fs;

use serde_json::json;

use super::server::{Server, read_response};
use super::{assert_schema, openapi};
use crate::support::root;

#[test]
fn routes_match_the_openapi_description_and_have_security_headers() {
    let server = Server::start(&[]);
    let mut described: Vec<String> = openapi()["paths"].as_object().unwrap().keys().cloned().collect();
    described.sort();
    let mut served = vec!["/api/predict".to_string()];
    for path in described.iter().filter(|path| *path != "/api/predict") {
        let response = server.get(path);
        assert_eq!(response.status, 200, "{path}");
        let content_types = &openapi()["paths"][path]["get"]["responses"]["200"]["content"];
        let content_type = response.headers["content-type"].to_str().unwrap();
        let is_described =
            content_types.as_object().unwrap().keys().any(|described| content_type.starts_with(described));
        assert!(is_described, "{path}: {content_type}");
        served.push(path.clone());
    }
    served.sort();
    assert_eq!(served, described);

    let page = server.get("/").text;
    for attribute in ["src=\"", "href=\""] {
        for link in page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(described.contains(&format!("/{link}")), "the page links to {link}");
        }
    }
    assert!(
        !page.contains("style=") && !page.contains("onclick") && !page.contains("http"),
        "inline styles or scripts, or resources of other hosts"
    );
    let api = openapi();
    for source in ["api.rs", "upload.rs", "api_error.rs"] {
        // Every status in the code is described.
        let code = fs::read_to_string(root().join("src/serve").join(source)).unwrap();
        for (name, status) in [
            ("BAD_REQUEST", "400"),
            ("REQUEST_TIMEOUT", "408"),
            ("PAYLOAD_TOO_LARGE", "413"),
            ("UNSUPPORTED_MEDIA_TYPE", "415"),
            ("UNPROCESSABLE_ENTITY", "422"),
            ("TOO_MANY_REQUESTS", "429"),
            ("INTERNAL_SERVER_ERROR", "500"),
            ("SERVICE_UNAVAILABLE", "503"),
        ] {
            let described = api["paths"]["/api/predict"]["post"]["responses"].get(status).is_some();
            assert!(described || !code.contains(name), "{status} of {source}");
        }
    }

    assert!(server.get("/nowhere").error(404).contains("/nowhere"));
    assert!(server.get("/../Cargo.toml").error(404).contains("no resource at"));
    server.get("/api/predict").error(405);
    read_response(server.agent.post(server.url("/healthz")).send_empty().unwrap()).error(405);
    assert_schema("Models", &server.get("/api/models").json());
    assert_eq!(server.get("/api/openapi.json").json(), openapi());
    assert_eq!(server.get("/healthz").json(), json!({"status": "ok"}));

    for path in ["/", "/app.js", "/nowhere", "/api/models"] {
        let headers = server.get(path).headers;
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(
            (header("x-content-type-options"), header("referrer-policy")),
            ("nosniff".into(), "no-referrer".into())
        );
    }
}
