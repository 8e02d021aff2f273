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
use tokio::task::JoinSet;

use super::Limits;
use super::answer::{self, Prediction};
use super::metrics::Metrics;
use super::page;
use super::queue::{Place, Queue};
use super::refusal::Refusal;
use super::upload::{Decoded, Reception, Room, Upload, patiently, unreadable};
use crate::error::Result as KinoprobeResult;
use crate::posters::{PosterModels, Scores};

/// How long the rest of a refused request is read, so that its client comes to read the refusal.
const DRAIN: Duration = Duration::from_secs(5);

/// Fields of a request that are ignored, at the most.
const MOST_OTHERS: usize = 16;

/// The description of the API.
const OPENAPI: &str = include_str!("openapi.json");

/// The answer to a request for predictions.
#[derive(Serialize)]
struct Predictions<'a> {
    results: Vec<Prediction>,
    model: &'a Value,
}

/// What the handlers share.
pub struct App {
    models: Arc<PosterModels>,
    queue: Queue<Scores>,
    reception: Arc<Reception>,
    metrics: Arc<Metrics>,
    limits: Limits,
    /// Said of the models with every prediction.
    model: Value,
    /// Said of the models when asked.
    described: Value,
}

impl App {
    /// A server of these models, its network behind `queue`, run by `provider`.
    pub fn new(
        models: Arc<PosterModels>,
        queue: Queue<Scores>,
        reception: Arc<Reception>,
        metrics: Arc<Metrics>,
        limits: Limits,
        provider: String,
    ) -> Self {
        let model = answer::model(&models, &provider);
        let described = json!({ "models": [answer::described(&models, &provider)], "limits": limits });
        Self { models, queue, reception, metrics, limits, model, described }
    }

    /// Decodes a file, sends its pictures to the network and puts the answer together.
    async fn predict(&self, upload: Upload, place: Place) -> Result<Prediction, Refusal> {
        let (name, decoded) = self.reception.decode(upload).await?;
        match decoded {
            Decoded::Picture(item) => {
                let scores = scores(self.queue.submit(place, item).await)?;
                Ok(answer::of_picture(&self.models, name, &scores))
            }
            Decoded::Video { seconds, items } => {
                let mut answers = Vec::with_capacity(seconds.len());
                let mut place = Some(place);
                for item in items.chunks_exact(items.len() / seconds.len()) {
                    let place = match place.take() {
                        Some(place) => place,
                        None => self.queue.wait_for_place().await,
                    };
                    answers.push(self.queue.submit(place, item.to_vec()));
                }
                let mut frames = Vec::with_capacity(answers.len());
                for answer in answers {
                    frames.push(scores(answer.await)?);
                }
                Ok(answer::of_video(&self.models, name, &seconds, &frames))
            }
        }
    }
}

fn scores<E: std::fmt::Display>(answer: Result<KinoprobeResult<Scores>, E>) -> Result<Scores, Refusal> {
    match answer {
        Ok(Ok(scores)) => Ok(scores),
        Ok(Err(error)) => Err(Refusal::failed(&error)),
        Err(error) => Err(Refusal::failed(&error)),
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
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
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::disable()) // predictions count for themselves; nothing else reads a body
        .layer(middleware::from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// Counts the answer and gives it the headers that keep browsers safe.
async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let mut response = next.run(request).await;
    app.metrics.answered(&route, response.status().as_u16());
    for (name, value) in page::SECURITY {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let caching = if route.starts_with("/api") || route == "/metrics" { "no-store" } else { "no-cache" };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

async fn predict(
    State(app): State<Arc<App>>,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Response, Refusal> {
    let began = Instant::now();
    let mut multipart = multipart.map_err(|_| no_file())?;
    let results = match predictions(&app, &mut multipart).await {
        Ok(results) => results,
        Err(refusal) => {
            let rest = async { while let Ok(Some(_)) = multipart.next_field().await {} };
            let _ = tokio::time::timeout(DRAIN, rest).await;
            return Err(refusal);
        }
    };
    app.metrics.predicted(began.elapsed());
    Ok(Json(Predictions { results, model: &app.model }).into_response())
}

/// A prediction for each file, in their order. Where this is dropped, because the client has gone, so is all its work.
async fn predictions(app: &Arc<App>, multipart: &mut Multipart) -> Result<Vec<Prediction>, Refusal> {
    let mut first =
        Some(app.queue.place().ok_or_else(|| Refusal::busy("the server has all the pictures it can take"))?);
    let mut room = Room::new(&app.limits);
    let mut work = JoinSet::new();
    let (mut files, mut others) = (0, 0);
    while let Some(field) = patiently(multipart.next_field()).await?.map_err(unreadable)? {
        if field.name() != Some("file") {
            others += 1;
            if others > MOST_OTHERS {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "too many fields that are not called file"));
            }
            continue;
        }
        if files == app.limits.files {
            return Err(Refusal::too_large(format!("at most {files} files a request")));
        }
        let upload = app.reception.receive(field, &mut room).await?;
        let place = match first.take() {
            Some(place) => place,
            None => app.queue.wait_for_place().await,
        };
        let (app, index) = (app.clone(), files);
        work.spawn(async move { app.predict(upload, place).await.map(|prediction| (index, prediction)) });
        files += 1;
    }
    if files == 0 {
        return Err(no_file());
    }
    let mut results = Vec::with_capacity(files);
    while let Some(result) = work.join_next().await {
        results.push(result.map_err(|error| Refusal::failed(&error))??);
    }
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, prediction)| prediction).collect())
}

fn no_file() -> Refusal {
    let sentence = "send one or several files as multipart/form-data, each in a field called file";
    Refusal::new(StatusCode::BAD_REQUEST, sentence)
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.described.clone())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text(app.queue.free())).into_response()
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {}; see /api/openapi.json", uri.path()))
}

async fn not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method; see /api/openapi.json")
}
