//! Calibration of scores: a map from the scores of a classifier to probabilities, fitted to the predictions of the validation split.
//!
//! The map is a part of the model ([`Calibrated`]): everything that reads the model, and its ONNX file, has calibrated scores.

mod isotonic;
mod platt;
mod temperature;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

pub use isotonic::IsotonicCurves;

use super::{Exporter, Model, Tensor, Tensors, loss};
use crate::dataset::{Dataset, Task};
use crate::error::{Error, Result};
use crate::evaluate::Predictions;
use crate::evaluate::multi_label::thresholds::MIN_CLIPS;
use crate::manifest::Split;

/// Methods of calibration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationMethod {
    /// The scores of the classifier.
    #[default]
    None,
    /// One label per clip: softmax of the logits divided by one temperature.
    Temperature,
    /// Several labels per clip: the logistic function of a·z + b, where z is the logit of the score, with an a and a b per label.
    Platt,
    /// Several labels per clip: isotonic regression of each label; needs some hundred validation clips.
    Isotonic,
}

impl CalibrationMethod {
    /// `true` for [`CalibrationMethod::None`].
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Checks that the method applies to a task.
    ///
    /// # Errors
    /// Returns an error that names the methods of the task.
    pub fn check(self, task: Task) -> Result<()> {
        let message = match (self, task) {
            (Self::None, _)
            | (Self::Temperature, Task::SingleLabel)
            | (Self::Platt | Self::Isotonic, Task::MultiLabel) => return Ok(()),
            (Self::Temperature, Task::MultiLabel) => {
                "classify.calibrate: temperature applies to single-label tasks; choose platt or isotonic"
            }
            (Self::Platt | Self::Isotonic, Task::SingleLabel) => {
                "classify.calibrate: platt and isotonic apply to multi-label tasks; choose temperature"
            }
        };
        Err(Error::Data(message.into()))
    }
}

/// Added to probabilities before their logarithm, for single-label tasks: scores can be 0 (nearest neighbors).
/// Source: `sklearn.calibration`, which converts probabilities to logits so.
const SOFTMAX_FLOOR: f64 = 1e-12;
/// Added to p and 1 − p before their logarithms, for multi-label tasks: the distance between 1 and the largest f32 below it, so that
/// z is in [−16.7, 16.7].
const SIGMOID_FLOOR: f64 = 1.0 / (1 << 24) as f64;

/// A fitted map of the scores (N, C) of a model to calibrated scores (N, C). NaN scores stay NaN.
#[derive(Debug, Clone, PartialEq)]
pub enum Calibration {
    /// softmax(ln(p + 1e-12) / T), for one label per clip. It preserves the order of the classes.
    ///
    /// Source: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017); equal to scikit-learn's
    /// `CalibratedClassifierCV(method="temperature")` on predicted probabilities. ln p differs from the logits by a constant per clip.
    Temperature(f32),
    /// σ(a·z + b) with z = ln(p + 2⁻²⁴) − ln(1 − p + 2⁻²⁴), for several labels per clip.
    ///
    /// Source: Platt, "Probabilistic Outputs for Support Vector Machines" (1999), fitted by the method of Lin, Lin, Weng (2007), as
    /// `CalibratedClassifierCV(method="sigmoid")` on decision values z. Scores are f32: those close to 1 have few significant digits of z.
    Platt {
        /// a, (C).
        slope: Vec<f32>,
        /// b, (C).
        intercept: Vec<f32>,
    },
    /// A non-decreasing, piecewise linear function of the score, for several labels per clip.
    ///
    /// Source: Zadrozny, Elkan (2002); equal to scikit-learn's `IsotonicRegression(out_of_bounds="clip")`.
    Isotonic(IsotonicCurves),
}

const TEMPERATURE: &str = "calibration.temperature";
const SLOPE: &str = "calibration.platt.slope";
const INTERCEPT: &str = "calibration.platt.intercept";

impl Calibration {
    /// Fits `method`, which is not `none`, to the labeled clips of the validation split. Also returns notes for the user: labels or scores
    /// that stay as they are.
    ///
    /// # Errors
    /// Returns an error if the method does not apply to the task, no clip is labeled, or a score is not a number in [0, 1].
    pub fn fit(method: CalibrationMethod, val: &Predictions) -> Result<(Self, Vec<String>)> {
        method.check(val.task)?;
        let rows = val.labeled_rows();
        let scores = val.scores.as_ref().expect("models predict scores").select(Axis(0), &rows);
        if rows.is_empty() {
            return Err(no_clips());
        }
        for (row, scores) in rows.iter().zip(scores.rows()) {
            if let Some(score) = scores.iter().find(|score| !(0.0..=1.0).contains(*score)) {
                let id = &val.ids[*row];
                return Err(Error::Data(format!("clip {id} has the score {score}: its scores cannot be calibrated")));
            }
        }
        if method == CalibrationMethod::Temperature {
            let truth: Vec<usize> = rows.iter().map(|&row| val.truth[row][0]).collect();
            let fitted = temperature::fit(logits(Task::SingleLabel, scores.view()).view(), &truth);
            let note =
                "not calibrated: the validation clips determine no temperature, such as if all are predicted correctly";
            let notes = if fitted.is_none() { vec![note.into()] } else { vec![] };
            return Ok((Self::Temperature(fitted.unwrap_or(1.0) as f32), notes));
        }
        let truth = |class: usize| rows.iter().map(|&row| val.truth[row].contains(&class)).collect::<Vec<bool>>();
        let truth: Vec<Vec<bool>> = (0..val.classes.len()).map(truth).collect();
        // The parameters of labels of few clips depend on single clips.
        let is_rare = |truth: &Vec<bool>| {
            let positives = truth.iter().filter(|&&has| has).count();
            positives.min(truth.len() - positives) < MIN_CLIPS as usize
        };
        let rare: Vec<usize> = (0..truth.len()).filter(|&class| is_rare(&truth[class])).collect();
        let names = |classes: &[usize]| classes.iter().map(|&c| val.classes[c].as_str()).collect::<Vec<_>>().join(", ");
        let mut notes = Vec::new();
        if !rare.is_empty() {
            let names = names(&rare);
            notes.push(format!(
                "not calibrated, fewer than {MIN_CLIPS} validation clips with or without the label: {names}"
            ));
        }
        if method == CalibrationMethod::Isotonic {
            let curve = |class: usize| {
                let column = scores.column(class).mapv(f64::from).to_vec();
                (!rare.contains(&class)).then(|| isotonic::fit(&column, &truth[class]))
            };
            let curves: Vec<_> = (0..truth.len()).map(curve).collect();
            return Ok((Self::Isotonic(IsotonicCurves::new(&curves)), notes));
        }
        let z = logits(Task::MultiLabel, scores.view());
        let fit = |class: usize| match rare.contains(&class) {
            true => (1.0, 0.0),
            false => platt::fit(&z.column(class).to_vec(), &truth[class]),
        };
        let (slope, intercept): (Vec<f64>, Vec<f64>) = (0..truth.len()).map(fit).unzip();
        let reversed: Vec<usize> = (0..slope.len()).filter(|&class| slope[class] < 0.0).collect();
        if !reversed.is_empty() {
            let names = names(&reversed);
            notes.push(format!(
                "calibration reverses the ranking of labels that are predicted worse than by chance: {names}"
            ));
        }
        let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        Ok((Self::Platt { slope: single(slope), intercept: single(intercept) }, notes))
    }

    /// Returns the calibrated scores, (N, C).
    pub fn apply(&self, scores: ArrayView2<'_, f32>) -> Array2<f32> {
        let calibrated = match self {
            Self::Temperature(temperature) => {
                let mut z = logits(Task::SingleLabel, scores) / f64::from(*temperature);
                loss::scores(Task::SingleLabel, z.view_mut());
                z
            }
            Self::Platt { slope, intercept } => {
                let mut z = logits(Task::MultiLabel, scores);
                for mut row in z.rows_mut() {
                    for (z, (a, b)) in row.iter_mut().zip(slope.iter().zip(intercept)) {
                        *z = *z * f64::from(*a) + f64::from(*b);
                    }
                }
                loss::scores(Task::MultiLabel, z.view_mut());
                z
            }
            Self::Isotonic(curves) => curves.apply(scores),
        };
        calibrated.mapv(|score| score as f32)
    }

    /// Returns the predictions with calibrated scores, and the classes that they predict.
    ///
    /// # Panics
    /// Panics if there are no scores.
    pub fn calibrate(&self, predictions: &Predictions) -> Predictions {
        let Predictions { task, ids, groups, truth, scores, classes, .. } = predictions.clone();
        let scores = self.apply(scores.as_ref().expect("models predict scores").view());
        Predictions::from_scores(task, ids, groups, truth, scores, classes)
    }

    /// Describes the method and its parameters.
    pub fn describe(&self) -> String {
        match self {
            Self::Temperature(temperature) => format!("temperature scaling, T = {temperature:.4}"),
            Self::Platt { slope, .. } => format!("Platt scaling of {} labels", slope.len()),
            Self::Isotonic(curves) => format!("isotonic regression of {} labels", curves.labels()),
        }
    }

    fn tensors(&self) -> Vec<Tensor> {
        let vector = |name: &str, values: &[f32]| Tensor {
            name: name.into(),
            shape: vec![values.len()],
            values: values.to_vec().into(),
        };
        match self {
            Self::Temperature(temperature) => vec![vector(TEMPERATURE, &[*temperature])],
            Self::Platt { slope, intercept } => vec![vector(SLOPE, slope), vector(INTERCEPT, intercept)],
            Self::Isotonic(curves) => curves.tensors(),
        }
    }

    /// Restores the calibration of a saved model; `None` if its scores are not calibrated.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a wrong shape.
    pub fn restore(tensors: &Tensors) -> Result<Option<Self>> {
        if tensors.contains(TEMPERATURE) {
            return Ok(Some(Self::Temperature(tensors.vector_of(TEMPERATURE, 1)?[0])));
        }
        if tensors.contains(SLOPE) {
            let slope = tensors.vector(SLOPE)?.to_vec();
            let intercept = tensors.vector_of(INTERCEPT, slope.len())?.to_vec();
            return Ok(Some(Self::Platt { slope, intercept }));
        }
        Ok(IsotonicCurves::restore(tensors)?.map(Self::Isotonic))
    }

    /// Adds the nodes that calibrate the value `scores`, in f64 as [`Calibration::apply`].
    fn export(&self, graph: &mut Exporter, scores: &str) -> String {
        let p = graph.double(scores);
        let calibrated = match self {
            Self::Temperature(temperature) => {
                let floor = graph.constant_f64("calibration.floor", &[SOFTMAX_FLOOR]);
                let temperature = graph.constant_f64(TEMPERATURE, &[f64::from(*temperature)]);
                let p = graph.node("Add", &[&p, &floor]);
                let z = graph.node("Log", &[&p]);
                let z = graph.node("Div", &[&z, &temperature]);
                graph.softmax(&z)
            }
            Self::Platt { slope, intercept } => {
                let double = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
                let floor = graph.constant_f64("calibration.floor", &[SIGMOID_FLOOR]);
                let one = graph.constant_f64("calibration.one", &[1.0]);
                let (slope, intercept) =
                    (graph.constant_f64(SLOPE, &double(slope)), graph.constant_f64(INTERCEPT, &double(intercept)));
                let q = graph.node("Sub", &[&one, &p]);
                let [log_p, log_q] = [p, q].map(|value| {
                    let value = graph.node("Add", &[&value, &floor]);
                    graph.node("Log", &[&value])
                });
                let z = graph.node("Sub", &[&log_p, &log_q]);
                let z = graph.node("Mul", &[&z, &slope]);
                let z = graph.node("Add", &[&z, &intercept]);
                graph.node("Sigmoid", &[&z])
            }
            Self::Isotonic(curves) => curves.export(graph, &p),
        };
        graph.single(&calibrated)
    }
}

/// Returns the logits of scores; see [`Calibration`].
fn logits(task: Task, scores: ArrayView2<'_, f32>) -> Array2<f64> {
    scores.mapv(|score| {
        let p = f64::from(score);
        match task {
            Task::SingleLabel => (p + SOFTMAX_FLOOR).ln(),
            Task::MultiLabel => (p + SIGMOID_FLOOR).ln() - (1.0 - p + SIGMOID_FLOOR).ln(),
        }
    })
}

fn no_clips() -> Error {
    Error::Data("classify.calibrate: there is no labeled validation clip to fit the calibration to; use none".into())
}

/// The calibration of a run.
#[derive(Debug, Clone)]
pub struct RunCalibration {
    /// The fitted map.
    pub calibration: Calibration,
    /// The predictions of each split before calibration.
    pub uncalibrated: BTreeMap<Split, Predictions>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

impl RunCalibration {
    /// Fits `method` to the predictions of val and replaces those of all splits by calibrated ones; `None`, without changes, for `none`.
    ///
    /// # Errors
    /// See [`Calibration::fit`]; also without a split val.
    pub fn fit(method: CalibrationMethod, splits: &mut BTreeMap<Split, Predictions>) -> Result<Option<Self>> {
        if method.is_none() {
            return Ok(None);
        }
        let (calibration, notes) = Calibration::fit(method, splits.get(&Split::Val).ok_or_else(no_clips)?)?;
        let uncalibrated = splits.clone();
        splits.values_mut().for_each(|part| *part = calibration.calibrate(part));
        Ok(Some(Self { calibration, uncalibrated, notes }))
    }
}

/// A model with calibrated scores.
pub struct Calibrated {
    /// Applied to the scores.
    pub calibration: Calibration,
    /// The model as it was fitted.
    pub model: Box<dyn Model>,
}

impl Model for Calibrated {
    fn scores(&self, data: &Dataset) -> Result<Array2<f32>> {
        Ok(self.calibration.apply(self.model.scores(data)?.view()))
    }

    fn tensors(&self) -> Vec<Tensor> {
        let mut tensors = self.model.tensors();
        tensors.extend(self.calibration.tensors());
        tensors
    }

    fn reads_sequences(&self) -> bool {
        self.model.reads_sequences()
    }

    fn reads_all_rows(&self) -> bool {
        self.model.reads_all_rows()
    }

    fn export(&self, graph: &mut Exporter, features: &str) -> String {
        let scores = self.model.export(graph, features);
        self.calibration.export(graph, &scores)
    }
}
