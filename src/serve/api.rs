//! Routes and handlers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Limits;
use super::api_error::ApiError;
use super::metrics::Metrics;
use super::page;
use super::prediction::{self, Prediction};
use super::queue::{InferenceQueue, Slot};
use super::upload::{ByteBudget, Decoded, Upload, UploadReader, invalid_multipart, with_stall_timeout};
use crate::error::Result as KinoprobeResult;
use crate::posters::{PosterModels, Scores};
use crate::progress::{Event, ProgressSink};

/// How long the remaining body of a rejected request is read. Many clients read the response only after they have sent
/// the body.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of form fields other than `file`, which are ignored.
const MAX_IGNORED_FIELDS: usize = 16;

/// OpenAPI description of the API.
const OPENAPI: &str = include_str!("openapi.json");

/// Response to a prediction request.
#[derive(Serialize)]
struct Predictions<'a> {
    results: Vec<Prediction>,
    model: &'a Value,
}

/// State shared by the handlers.
pub struct AppState {
    models: Arc<PosterModels>,
    queue: InferenceQueue<Scores>,
    uploads: Arc<UploadReader>,
    metrics: Arc<Metrics>,
    limits: Limits,
    progress: Arc<dyn ProgressSink>,
    /// Summary of the models in every prediction response.
    model_summary: Value,
    /// Response to `GET /api/models`.
    models_response: Value,
}

impl AppState {
    /// Creates the state of a server whose network runs behind `queue` on `provider`. Internal errors go to `progress`.
    pub fn new(
        models: Arc<PosterModels>,
        queue: InferenceQueue<Scores>,
        uploads: Arc<UploadReader>,
        metrics: Arc<Metrics>,
        limits: Limits,
        provider: &str,
        progress: Arc<dyn ProgressSink>,
    ) -> Self {
        let model_summary = prediction::model_summary(&models, provider);
        let models_response = json!({ "models": [prediction::model_description(&models, provider)], "limits": limits });
        Self { models, queue, uploads, metrics, limits, progress, model_summary, models_response }
    }

    /// Decodes a file, runs the network on its images and assembles the prediction.
    async fn predict_file(&self, upload: Upload, slot: Slot) -> Result<Prediction, ApiError> {
        let (name, decoded) = self.uploads.decode(upload).await?;
        match decoded {
            Decoded::Image(item) => {
                let scores = receive_scores(self.queue.submit(slot, item)).await?;
                Ok(Prediction::for_image(&self.models, name, &scores))
            }
            Decoded::Video { seconds, items } => {
                let mut receivers = Vec::with_capacity(seconds.len());
                let mut first_slot = Some(slot);
                for item in items.chunks_exact(items.len() / seconds.len()) {
                    let slot = match first_slot.take() {
                        Some(slot) => slot,
                        None => self.queue.acquire_slot().await,
                    };
                    receivers.push(self.queue.submit(slot, item.to_vec()));
                }
                let mut frames = Vec::with_capacity(receivers.len());
                for receiver in receivers {
                    frames.push(receive_scores(receiver).await?);
                }
                Ok(Prediction::for_video(&self.models, name, &seconds, &frames))
            }
        }
    }
}

async fn receive_scores(receiver: oneshot::Receiver<KinoprobeResult<Scores>>) -> Result<Scores, ApiError> {
    let result = receiver.await.map_err(|error| ApiError::internal(&error))?;
    result.map_err(|error| ApiError::internal(&error))
}

/// Returns the router with all routes.
pub fn router(state: Arc<AppState>) -> Router {
    let mut router = Router::new()
        .route("/api/predict", post(predict))
        .route("/api/models", get(models))
        .route("/api/openapi.json", get(openapi))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics));
    for asset in &page::ASSETS {
        router = router.route(asset.path, get(move || async { asset.response() }));
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::disable()) // ByteBudget limits predictions; no other handler reads a body
        .layer(middleware::from_fn_with_state(state.clone(), count_and_add_headers))
        .with_state(state)
}

/// Counts the response and sets its security and caching headers.
async fn count_and_add_headers(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    state.metrics.count_response(&route, response.status().as_u16());
    for (name, value) in page::SECURITY_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let caching = if route.starts_with("/api") || route == "/metrics" { "no-store" } else { "no-cache" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

async fn predict(
    State(state): State<Arc<AppState>>,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Response, ApiError> {
    let start = Instant::now();
    let mut multipart = multipart.map_err(|_| missing_file())?;
    let results = match predict_files(&state, &mut multipart).await {
        Ok(results) => results,
        Err(error) => {
            if let Some(cause) = &error.cause {
                state.progress.report(Event::Warning(cause));
            }
            let drain = async { while let Ok(Some(_)) = multipart.next_field().await {} };
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, drain).await;
            return Err(error);
        }
    };
    state.metrics.observe_prediction(start.elapsed());
    Ok(Json(Predictions { results, model: &state.model_summary }).into_response())
}

/// Returns one prediction per file, in the order of the files. If the client disconnects, this future is dropped and
/// with it all work on the request.
async fn predict_files(state: &Arc<AppState>, multipart: &mut Multipart) -> Result<Vec<Prediction>, ApiError> {
    let slot = state.queue.try_acquire_slot().ok_or_else(|| ApiError::busy("the server is at capacity"))?;
    let mut first_slot = Some(slot);
    let mut budget = ByteBudget::new(&state.limits);
    let mut tasks = JoinSet::new();
    let (mut files, mut ignored) = (0, 0);
    while let Some(field) = with_stall_timeout(multipart.next_field()).await?.map_err(invalid_multipart)? {
        if field.name() != Some("file") {
            ignored += 1;
            if ignored > MAX_IGNORED_FIELDS {
                return Err(ApiError::new(StatusCode::BAD_REQUEST, "too many form fields other than `file`"));
            }
            continue;
        }
        if files == state.limits.files {
            return Err(ApiError::too_large(format!("too many files: the limit is {files} per request")));
        }
        let upload = state.uploads.read(field, &mut budget).await?;
        let slot = match first_slot.take() {
            Some(slot) => slot,
            None => state.queue.acquire_slot().await,
        };
        let (state, index) = (state.clone(), files);
        tasks.spawn(async move { state.predict_file(upload, slot).await.map(|prediction| (index, prediction)) });
        files += 1;
    }
    if files == 0 {
        return Err(missing_file());
    }
    let mut results = Vec::with_capacity(files);
    while let Some(result) = tasks.join_next().await {
        results.push(result.map_err(|error| ApiError::internal(&error))??);
    }
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, prediction)| prediction).collect())
}

fn missing_file() -> ApiError {
    let message = "send one or more files as multipart/form-data, each in a field named `file`";
    ApiError::new(StatusCode::BAD_REQUEST, message)
}

async fn models(State(state): State<Arc<AppState>>) -> Json<Value> {
    Json(state.models_response.clone())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], state.metrics.encode(state.queue.free_slots())).into_response()
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("no resource at {}; see /api/openapi.json", uri.path()))
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; see /api/openapi.json")
}
