//! A network in training: its definition, its heads and its parameters.

use std::path::Path;

use kinoprobe::cancel::CancellationToken;
use kinoprobe::error::{Error, Result};
use kinoprobe::models::Card;
use kinoprobe::models::graph::{Mode, Parameter};
use kinoprobe::models::nets::Architecture;
use kinoprobe::models::nets::head::Head;
use kinoprobe::models::prepare;
use kinoprobe::progress::ProgressSink;
use tch::{Device, Tensor};

use super::augment::ORIENTATIONS;
use super::recipe::TrainRecipe;
use super::recipe::settings::HeadSettings;
use super::torch::{TorchGraph, TorchParameters, preferred_format, torch};

/// Name of the head of the rotation task of SESEMI.
const ROTATION_HEAD: &str = "rotations";
/// Name of the projection head of SimCLR.
const PROJECTION_HEAD: &str = "projection";

/// A network with its heads and parameters.
pub struct TrainNetwork {
    /// The card of the network, with the input of the recipe.
    pub card: Card,
    /// The definition.
    pub architecture: Architecture,
    /// The classifier; `None` in contrastive pre-training.
    pub classifier: Option<Head>,
    /// The head of the self-supervised task, if any.
    pub auxiliary: Option<Head>,
    /// The parameters of the network and its heads.
    pub parameters: TorchParameters,
    /// Origin of the initial weights: `none` (default initialization), `published`, `registry`, `file` or `seeded`.
    pub weights: String,
}

impl TrainNetwork {
    /// Creates the network of a recipe for a number of classes, with its initial weights. `models` is the directory of the cards.
    ///
    /// # Errors
    /// Returns an error if there is no such card, its network cannot be trained or does not fit the input of the recipe, the weights
    /// cannot be read, or a prefix of the recipe matches no parameter.
    pub fn new(
        recipe: &TrainRecipe,
        models: &Path,
        classes: usize,
        device: Device,
        progress: &dyn ProgressSink,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let mut card = Card::load(models, &recipe.network.card)?;
        let invalid = |message: String| Error::Config { path: card.path(), message };
        let architecture = card
            .architecture
            .ok_or_else(|| invalid("the card names no architecture: an ONNX file cannot be trained".into()))?;
        let name = architecture.head().ok_or_else(|| invalid(format!("{} cannot be trained", architecture.name())))?;
        let input = recipe.input.spec(recipe.window_length());
        architecture
            .check_card(&input, architecture.dim())
            .map_err(|message| invalid(format!("the input of the recipe does not fit: {message}")))?;
        card.input = input;
        let dim = architecture.dim();
        let classifier = recipe.contrastive.is_none().then(|| recipe.network.head.layers(name, dim, classes));
        let auxiliary = match (&recipe.rotations, &recipe.contrastive) {
            (Some(rotations), _) => Some(rotations.head.layers(ROTATION_HEAD, dim, ORIENTATIONS)),
            (None, Some(contrastive)) => {
                let hidden = if contrastive.hidden == 0 { dim } else { contrastive.hidden };
                Some(HeadSettings { hidden, dropout: 0.0 }.layers(PROJECTION_HEAD, dim, contrastive.dim))
            }
            (None, None) => None,
        };
        let mut parameters = TorchParameters::new(device);
        let backbone = architecture.parameters(&card.input);
        let weights = match recipe.network.initial_weights() {
            None => {
                parameters.initialize(Some(architecture), &backbone, recipe.seed)?;
                "none"
            }
            Some(choice) => {
                let (source, weights) = prepare::parameters(&card, architecture, &choice, progress, cancel)?;
                parameters.read(&backbone, source.as_ref())?;
                weights
            }
        };
        freeze(&mut parameters, &backbone, recipe)?;
        for head in classifier.iter().chain(&auxiliary) {
            parameters.initialize(None, &head.parameters(), recipe.seed)?;
        }
        Ok(Self { card, architecture, classifier, auxiliary, parameters, weights: weights.into() })
    }

    /// Computes embeddings (M, D) of windows (M, 3, [T,] H, W), in the element type of the parameters.
    ///
    /// # Errors
    /// Returns the error of libtorch, such as too little memory.
    pub fn embedding(&self, windows: &Tensor, mode: Mode) -> Result<Tensor> {
        let windows = preferred_format(torch(windows.f_to_kind(self.parameters.kind()))?)?;
        self.architecture.build(&mut TorchGraph::new(&self.parameters, mode), &windows, &self.card.input)
    }

    /// Applies a head to embeddings (M, D).
    ///
    /// # Errors
    /// Returns the error of libtorch, such as too little memory.
    pub fn apply(&self, head: &Head, embedding: Tensor, mode: Mode) -> Result<Tensor> {
        head.build(&mut TorchGraph::new(&self.parameters, mode), embedding)
    }

    /// Returns the names and values of the parameters of the network and its classifier.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let auxiliary = |name: &str| self.auxiliary.as_ref().is_some_and(|head| is_of(&head.name, name));
        self.parameters.tensors().into_iter().filter(|(name, _)| !auxiliary(name)).collect()
    }

    /// Returns `true` if features of the network are those of untrained layers: seeded weights that are frozen.
    pub fn is_untrained(&self) -> bool {
        let frozen = |parameter: &Parameter| !self.parameters.is_trainable(&parameter.name).unwrap_or(true);
        let weights = |parameter: &&Parameter| parameter.name.ends_with(".weight");
        self.weights == "seeded" && self.architecture.parameters(&self.card.input).iter().filter(weights).any(frozen)
    }
}

/// Returns `true` if a parameter belongs to a head.
pub(super) fn is_of(head: &str, name: &str) -> bool {
    name.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'))
}

/// Freezes the parameters that the recipe does not train.
fn freeze(parameters: &mut TorchParameters, backbone: &[Parameter], recipe: &TrainRecipe) -> Result<()> {
    // A prefix that matches no parameter is an error.
    let network = &recipe.network;
    parameters.check_prefixes(network.trainable.iter().chain(&network.frozen))?;
    let frozen: Vec<String> =
        backbone.iter().map(|parameter| &parameter.name).filter(|name| !network.is_trainable(name)).cloned().collect();
    parameters.freeze(&frozen)
}
