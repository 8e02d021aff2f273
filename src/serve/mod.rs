//! A web page and an HTTP API that predict the genres of posters and trailers, or the classes of a run: `kinoprobe-serve`.
//!
//! ```text
//! request ─upload→ sniff, decode ─item→ queue ─batches→ lanes of one network ─embeddings→ poster models → response
//! ```
//!
//! Images are decoded, transformed and embedded by the functions that extraction uses, so that a poster has the same
//! features as in a store. All resources are bounded: bytes and pixels per file, files per request, seconds per video,
//! images in flight. A request that exceeds a limit is rejected with an HTTP status and a message.

mod api;
mod api_error;
mod export;
mod metrics;
mod page;
mod prediction;
mod queue;
mod upload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::sync::oneshot;

use self::api::AppState;
pub use self::export::export;
use self::metrics::Metrics;
use self::queue::InferenceQueue;
use self::upload::UploadReader;
use crate::cancel::CancellationToken;
use crate::error::{Error, Result};
use crate::extract::Extractor;
use crate::models::input::InputLayout;
use crate::models::runtime::{self, Device, Session, SessionOptions};
use crate::models::{self, BatchSize, Card, PreparedModel, WeightsChoice};
use crate::posters::{self, PosterModels};
use crate::progress::{Event, ProgressSink};
use crate::runs::TrainedRun;
use crate::value_parsers;

/// Maximum time for requests in progress to finish after the shutdown signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of the server and of the exported site.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the trained poster models, or of a run of a classifier on features of images.
    pub models: PathBuf,
    /// Address to listen on; port 0 selects a free port.
    pub address: SocketAddr,
    /// Device that runs the network.
    pub device: Device,
    /// Origin of the network's weights; by default the one listed in posters.json.
    pub weights: Option<WeightsChoice>,
    /// Directory of the model cards.
    pub cards: PathBuf,
    /// Batch size of the network; by default 1 on a CPU, where batches cost memory and save no time, and 8 on a GPU.
    pub batch: Option<usize>,
    /// How long an image waits for a batch to fill up, in milliseconds; `None`: [`DEFAULT_DELAY`] on devices on which batches save
    /// time.
    pub delay: Option<u64>,
    /// Limits of requests.
    pub limits: Limits,
}

/// Batch size on a GPU by default.
const GPU_BATCH: usize = 8;
/// Number of images for which the faster device is chosen: the start of the server does not matter.
const EXPECTED_IMAGES: u64 = 1_000_000;
/// Milliseconds that an image waits for a batch to fill up.
const DEFAULT_DELAY: u64 = 3;

/// Limits of requests. A request that exceeds one is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Files per request
    #[arg(long, default_value_t = 16, value_parser = value_parsers::at_least(1_usize))]
    pub files: usize,
    /// Mebibytes per request, including videos
    #[arg(long, default_value_t = 64, value_parser = value_parsers::at_least(1_usize))]
    pub request_megabytes: usize,
    /// Mebibytes per image file
    #[arg(long, default_value_t = 16, value_parser = value_parsers::between(1_usize, upload::MAX_BUFFERED_MEBIBYTES))]
    pub image_megabytes: usize,
    /// Million pixels per image or video frame
    #[arg(long, default_value_t = 40, value_parser = value_parsers::at_least(1_u64))]
    pub megapixels: u64,
    /// Seconds per video
    #[arg(long, default_value_t = 240, value_parser = value_parsers::at_least(1_u64))]
    pub seconds: u64,
    /// Frames per video: sampled at one per second, less often in longer videos
    #[arg(long, default_value_t = 60, value_parser = value_parsers::at_least(1_usize))]
    pub frames: usize,
    /// Images in flight; further requests are rejected with status 503
    #[arg(long, default_value_t = 128, value_parser = value_parsers::at_least(1_usize))]
    pub queue: usize,
}

/// A server that is bound to its address.
pub struct Server {
    state: Arc<AppState>,
    listener: std::net::TcpListener,
    address: SocketAddr,
    progress: Arc<dyn ProgressSink>,
}

impl Server {
    /// Loads the models and the network and binds the address. Clients can connect from then on; [`Server::run`]
    /// answers them. Warnings and internal errors of requests go to `progress`.
    ///
    /// # Errors
    /// Returns an error if the models, the card, the weights or the device are not available or do not fit each other,
    /// or if the address is in use.
    pub fn bind(options: &Options, progress: Arc<dyn ProgressSink>) -> Result<Self> {
        let state = load_state(options, &progress)?;
        let bind = || {
            let listener = std::net::TcpListener::bind(options.address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bind().map_err(listen_error(options.address))?;
        if !address.ip().is_loopback() {
            let warning = format!("anyone who can reach {address} can use the server: there is no authentication");
            progress.report(Event::Warning(&warning));
        }
        Ok(Self { state, listener, address, progress })
    }

    /// Returns the address the server is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `shutdown` completes, then finishes the requests in progress.
    ///
    /// # Errors
    /// Returns an error if connections cannot be accepted.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(listen_error(self.address))?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true); // a response is a single write: Nagle's algorithm would only delay it
        });
        let (sender, receiver) = oneshot::channel();
        let shutdown = async move {
            shutdown.await;
            let _ = sender.send(()); // fails only if the server has ended
        };
        let timeout = async {
            let _ = receiver.await;
            tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
        };
        tokio::select! {
            result = axum::serve(listener, api::router(self.state)).with_graceful_shutdown(shutdown) => {
                result.map_err(listen_error(self.address))
            }
            () = timeout => {
                let warning = format!("some requests did not finish within {} s", SHUTDOWN_TIMEOUT.as_secs());
                self.progress.report(Event::Warning(&warning));
                Ok(())
            }
        }
    }
}

fn listen_error(address: SocketAddr) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Data(format!("cannot listen on {address}: {error}"))
}

/// The poster models and the network that computes their features.
struct ServedModels {
    models: PosterModels,
    card: Card,
    prepared: PreparedModel,
}

impl ServedModels {
    /// Loads the models and prepares the network.
    ///
    /// # Errors
    /// Returns an error if the models, the card or the weights are not available or do not fit each other.
    fn load(options: &Options, progress: &dyn ProgressSink) -> Result<Self> {
        let (models, card) = load_models(options)?;
        let file = if models.is_run { "" } else { posters::INDEX_FILE };
        let config_error = |message| Error::Config { path: options.models.join(file), message };
        let posters = &models.posters;
        if card.input.layout != InputLayout::Frames {
            return Err(config_error(format!(
                "the network of the card {} expects windows of several frames, not images: kinoprobe-predict applies its models",
                card.name
            )));
        }
        if card.output.dim != models.dim() {
            let (dim, card_dim) = (models.dim(), card.output.dim);
            return Err(config_error(format!(
                "the models expect {dim} features per image, but the card {} yields {card_dim}",
                card.name
            )));
        }
        let is_trained_network = card.directory == options.models;
        let weights = match &options.weights {
            Some(_) if is_trained_network => {
                return Err(config_error("--weights does not apply: the run contains its network".into()));
            }
            Some(choice) => choice.clone(),
            None if is_trained_network => WeightsChoice::Default,
            None => WeightsChoice::recorded(&posters.identity.weights),
        };
        runtime::check_device(options.device, posters.precision)?;
        let prepared =
            models::prepare(&card, &weights, models.posters.precision, progress, &CancellationToken::default())?;
        if !is_trained_network {
            prepared.check_sha256(&posters.identity.model_sha256)?;
        }
        Ok(Self { models, card, prepared })
    }
}

/// Loads a set of poster models, or the model of a single run, and the card of their network.
///
/// # Errors
/// Returns an error if a file cannot be read, or a run cannot be served: its model reads sequences, or features other than those of
/// a network for images.
fn load_models(options: &Options) -> Result<(PosterModels, Card)> {
    let directory = &options.models;
    if directory.join(posters::INDEX_FILE).is_file() || !TrainedRun::is_run(directory) {
        let models = PosterModels::load(directory)?;
        let card = Card::load(&options.cards, &models.posters.card)?;
        return Ok((models, card));
    }
    let run = TrainedRun::load(directory)?;
    let refused = |reason: &str| Error::Config {
        path: directory.clone(),
        message: format!("{reason}: the server scores single images; kinoprobe-predict applies the model to clips"),
    };
    if !run.members.is_empty() {
        return Err(refused("the model fuses the scores of several runs"));
    }
    if run.saved.model.reads_sequences() {
        return Err(refused("the model reads sequences of frames"));
    }
    let [source] = run.sources()[..] else {
        return Err(refused("the model fuses the features of several methods"));
    };
    let Extractor::Network { card, precision, .. } = run.settings(source)?.extractor else {
        return Err(refused("the model reads histograms of SIFT descriptors"));
    };
    let card = match run.network {
        Some(card) => card,
        None => Card::load(&options.cards, &card)?,
    };
    Ok((PosterModels::of_run(run.saved, card.name.clone(), precision), card))
}

/// Loads the models and the network and starts the queue.
fn load_state(options: &Options, progress: &Arc<dyn ProgressSink>) -> Result<Arc<AppState>> {
    let limits = options.limits;
    let ServedModels { models, card, prepared } = ServedModels::load(options, progress.as_ref())?;
    let precision = models.posters.precision;
    let session_options = SessionOptions::for_card(&card, 1, precision);
    let batch = BatchSize::Items(options.batch.unwrap_or(GPU_BATCH));
    let choice =
        runtime::choose(&prepared.onnx, options.device, batch, &session_options, EXPECTED_IMAGES, progress.as_ref())?;
    choice.reason.iter().for_each(|reason| progress.report(Event::Info(reason)));
    let load_network =
        |batch| Session::load(&prepared.onnx, choice.device, SessionOptions::for_card(&card, batch, precision));
    let single = load_network(1)?;
    let provider = single.provider.clone();
    let batch = options.batch.unwrap_or(if single.on_cpu() { 1 } else { GPU_BATCH });
    if !single.benefits_from_batching() && (options.batch.is_some_and(|batch| batch > 1) || options.delay.is_some()) {
        let warning = format!("--batch and --delay have no effect on {provider}, which computes one image at a time");
        progress.report(Event::Warning(&warning));
    }
    let batched = if batch > 1 && single.benefits_from_batching() { Some(load_network(batch)?) } else { None };

    if models.posters.identity.untrained || prepared.untrained {
        let warning = format!("UNTRAINED: {} has seeded weights; the predictions are meaningless", card.name);
        progress.report(Event::Warning(&warning));
    }
    if models.precision() != single.precision() {
        let (trained, served) = (models.precision(), single.precision());
        let warning =
            format!("the models were fitted to features computed in {trained}; here the network runs in {served}");
        progress.report(Event::Warning(&warning));
    }
    let models = Arc::new(models);
    let metrics = Metrics::new();
    let heads = models.clone();
    let postprocess = Arc::new(move |embeddings: ndarray::ArrayView2<'_, f32>| heads.scores(embeddings));
    let max_delay = batched.as_ref().map_or(0, |_| options.delay.unwrap_or(DEFAULT_DELAY));
    let queue = InferenceQueue::start(
        single,
        batched,
        batch,
        limits.queue,
        Duration::from_millis(max_delay),
        postprocess,
        metrics.clone(),
    );
    let uploads = Arc::new(UploadReader::new(card.input, limits));
    Ok(Arc::new(AppState::new(models, queue, uploads, metrics, limits, &provider, progress.clone())))
}
