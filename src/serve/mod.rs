//! A page, and an API, where anyone drops a poster or a trailer: `kinoprobe-serve`.
//!
//! ```text
//! request ─upload→ sniff, decode ─item→ queue ─batches→ lanes of one network ─embeddings→ poster models → answer
//! ```
//!
//! Pictures are decoded, transformed and embedded by the very functions that extraction uses, so that a poster gets the
//! features its row in a store has. Everything is bounded: bytes and pixels of a file, files of a request, seconds of a
//! video, pictures in flight; what is beyond is refused with a status and a sentence.

mod answer;
mod api;
mod export;
mod metrics;
mod page;
mod queue;
mod refusal;
mod upload;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::api::App;
pub use self::export::export;
use self::metrics::Metrics;
use self::queue::Queue;
use self::upload::Reception;
use crate::cli::Outcome;
use crate::error::{Error, Result};
use crate::models::card::Layout;
use crate::models::runtime::{Device, Network, Settings};
use crate::models::{self, Card, PreparedModel, WeightsChoice};
use crate::posters::{self, PosterModels};

/// How long requests that have begun may take to finish after the signal to stop.
const GRACE: Duration = Duration::from_secs(30);

/// What to serve, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the trained poster models.
    pub models: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// What runs the network.
    pub device: Device,
    /// Where the network's weights come from; by default where the models say.
    pub weights: Option<WeightsChoice>,
    /// Folder of the model cards.
    pub cards: PathBuf,
    /// Pictures the network runs at once; by default one on a processor (several cost memory and gain nothing there) and
    /// eight on a GPU.
    pub batch: Option<usize>,
    /// How long a picture waits for others where the device gains by that, in milliseconds.
    pub delay: u64,
    /// What is refused.
    pub limits: Limits,
}

/// What is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Files of a request
    #[arg(long, default_value_t = 16)]
    pub files: usize,
    /// Mebibytes of a request, its videos included
    #[arg(long, default_value_t = 64)]
    pub request_megabytes: usize,
    /// Mebibytes of a picture's file
    #[arg(long, default_value_t = 16)]
    pub picture_megabytes: usize,
    /// Million pixels of a picture or of a video's frame
    #[arg(long, default_value_t = 40)]
    pub megapixels: u64,
    /// Seconds of a video
    #[arg(long, default_value_t = 240)]
    pub seconds: u64,
    /// Frames of a video that are looked at: one a second, fewer where it is longer
    #[arg(long, default_value_t = 60)]
    pub frames: usize,
    /// Pictures in flight; beyond, requests are refused with 503
    #[arg(long, default_value_t = 128)]
    pub queue: usize,
}

/// Serves until SIGINT or SIGTERM; then finishes what it began. Prints the page's address first.
///
/// # Errors
/// The models, the card, the weights or the device cannot be had, or do not fit each other; the address is taken.
pub fn run(options: &Options) -> Result<Outcome> {
    let app = prepare(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::Data(format!("threads cannot be started: {error}")))?;
    runtime.block_on(listen(app, options.address))?;
    Ok(Outcome::Done)
}

/// The models and the network that made their features, found and checked.
struct Chosen {
    models: PosterModels,
    card: Card,
    prepared: PreparedModel,
}

impl Chosen {
    fn load(options: &Options) -> Result<Self> {
        let models = PosterModels::load(&options.models)?;
        let listed = options.models.join(posters::FILE);
        let wrong = |message: String| Error::Config { path: listed.clone(), message };
        let posters = &models.posters;
        let card = Card::load(&options.cards, &posters.card)?;
        if card.input.layout != Layout::Frames || card.output.dim != models.dim() {
            let (dim, card_dim) = (models.dim(), card.output.dim);
            return Err(wrong(format!(
                "its models read {dim} features of a picture, and its card {} gives {card_dim} a {}",
                card.name,
                if card.input.layout == Layout::Frames { "picture" } else { "window of pictures" }
            )));
        }
        let weights = match (&options.weights, posters.weights.as_str()) {
            (Some(choice), _) => choice.clone(),
            // The card's own file, or one that must be named: its hash tells.
            (None, "file") => WeightsChoice::Default,
            (None, named) => named.parse().expect("every text is a choice"),
        };
        let prepared = models::prepare(&card, &weights, false)?;
        if prepared.sha256 != posters.model_sha256 {
            return Err(wrong(format!(
                "was trained on another network (SHA-256 {}…) than these weights give ({}…): name the right ones with --weights",
                start(&posters.model_sha256),
                start(&prepared.sha256)
            )));
        }
        Ok(Self { models, card, prepared })
    }
}

/// Loads the models and the network.
fn prepare(options: &Options) -> Result<Arc<App>> {
    let Options { limits, .. } = *options;
    let Chosen { models, card, prepared } = Chosen::load(options)?;
    let load = |batch| {
        let settings = Settings {
            item: card.input.shape(1)[1..].to_vec(),
            dim: card.output.dim,
            batch,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            output: Some(card.output.name.clone()),
        };
        Network::load(&prepared.onnx, options.device, settings)
    };
    let single = load(1)?;
    let provider = single.provider.clone();
    let batch = options.batch.unwrap_or(if single.on_cpu() { 1 } else { 8 });
    let batched = if batch > 1 && single.gains_by_batches() { Some(load(batch)?) } else { None };

    if models.posters.untrained || prepared.untrained {
        eprintln!("serve: UNTRAINED: {} runs with seeded weights; its genres say nothing", card.name);
    }
    let models = Arc::new(models);
    let metrics = Metrics::new();
    let scored = models.clone();
    let finish = Arc::new(move |embeddings: ndarray::ArrayView2<'_, f32>| scored.scores(embeddings));
    // Where a batch gains nothing, no picture waits for others.
    let delay = Duration::from_millis(if batched.is_some() { options.delay } else { 0 });
    let queue = Queue::start(single, batched, batch, limits.queue, delay, finish, metrics.clone());
    let reception = Arc::new(Reception::new(card.input, limits));
    Ok(Arc::new(App::new(models, queue, reception, metrics, limits, provider)))
}

fn start(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

async fn listen(app: Arc<App>, address: SocketAddr) -> Result<()> {
    let wrong = |error: std::io::Error| Error::Data(format!("{address} cannot be listened at: {error}"));
    let listener = TcpListener::bind(address).await.map_err(wrong)?;
    let bound = listener.local_addr().map_err(wrong)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
    println!("http://{bound}/");
    let _ = std::io::stdout().flush(); // whoever reads the address may have closed it
    if !bound.ip().is_loopback() {
        eprintln!("serve: everyone who reaches {bound} can use it: there is no login");
    }

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let told = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let graceful = told(stopped.clone());
    let patience = told(stopped);
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        eprintln!("serve: finishing what has begun (again to stop at once)");
        let _ = stop.send(true);
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        std::process::exit(130);
    });
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true); // an answer is one write: waiting to fill a packet only delays it
    });
    let serving = axum::serve(listener, api::router(app)).with_graceful_shutdown(graceful);
    tokio::select! {
        served = serving => served.map_err(wrong),
        () = async { patience.await; tokio::time::sleep(GRACE).await } => {
            eprintln!("serve: some requests did not finish within {} s", GRACE.as_secs());
            Ok(())
        }
    }
}
