//! Standardization of features around any classifier.

use std::sync::Arc;

use ndarray::Array2;

use super::{Classifier, Exporter, FitContext, FitOutput, LinearModel, Model, Tensor, Tensors};
use crate::dataset::{Dataset, Standardizer};
use crate::error::{Error, Result};

const MEAN: &str = "standardize.mean";
const DEVIATION: &str = "standardize.deviation";

/// Restores the standardizer of a saved model; `None` if the model has none.
///
/// # Errors
/// Returns an error if only one of the two tensors exists, or a shape is wrong.
pub(super) fn restore_standardizer(tensors: &Tensors) -> Result<Option<Arc<Standardizer>>> {
    if !tensors.contains(MEAN) && !tensors.contains(DEVIATION) {
        return Ok(None);
    }
    let mean = tensors.vector(MEAN)?;
    let deviation = tensors.vector_of(DEVIATION, mean.len())?;
    Ok(Some(Arc::new(Standardizer { mean, deviation })))
}

/// Checks that the number of features is the one a model was fitted to.
pub(super) fn check_dim(found: usize, fitted: usize) -> Result<()> {
    if found == fitted {
        return Ok(());
    }
    Err(Error::Data(format!(
        "the features have {found} dimensions, but the model was fitted to {fitted}; use a store of the same method"
    )))
}

/// A classifier that is fitted to standardized features.
pub struct Standardize(pub Box<dyn Classifier>);

impl Classifier for Standardize {
    fn fit(&self, train: &Dataset, valid: &Dataset, context: &mut FitContext<'_>) -> Result<FitOutput> {
        let standardizer = Arc::new(Standardizer::fit(train)?);
        let valid = if valid.is_empty() { valid.clone() } else { valid.standardized(&standardizer)? };
        let fitted = self.0.fit(&train.standardized(&standardizer)?, &valid, context)?;
        Ok(FitOutput { model: Box::new(Standardized { standardizer, model: fitted.model }), ..fitted })
    }
}

/// A model that reads standardized features.
pub struct Standardized {
    /// Applied to the features first.
    pub standardizer: Arc<Standardizer>,
    /// The model that was fitted to standardized features.
    pub model: Box<dyn Model>,
}

impl Model for Standardized {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        self.model.scores(&data.standardized(&self.standardizer)?)
    }

    fn output_layer(&self, data: &Dataset) -> Result<Option<(Array2<f32>, LinearModel)>> {
        self.model.output_layer(&data.standardized(&self.standardizer)?)
    }

    fn with_output_layer(&self, layer: LinearModel) -> Option<Box<dyn Model>> {
        let model = self.model.with_output_layer(layer)?;
        Some(Box::new(Standardized { standardizer: self.standardizer.clone(), model }))
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = self.model.tensors();
        tensors.push(Tensor::vector(MEAN, self.standardizer.mean.view()));
        tensors.push(Tensor::vector(DEVIATION, self.standardizer.deviation.view()));
        tensors
    }

    fn reads_sequences(&self) -> bool {
        self.model.reads_sequences()
    }

    fn reads_all_rows(&self) -> bool {
        self.model.reads_all_rows()
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let mean = graph.constant(Tensor::vector(MEAN, self.standardizer.mean.view()));
        let deviation = graph.constant(Tensor::vector(DEVIATION, self.standardizer.deviation.view()));
        let centered = graph.node("Sub", &[features, &mean]);
        let standardized = graph.node("Div", &[&centered, &deviation]);
        self.model.export(graph, &standardized)
    }
}
