//! Evaluation of settings on held-out clips, to select among them. The test split has no part in it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::cross_validation::Folds;
use super::loss::score;
use super::{FitContext, FitSettings, WarmStart, build};
use crate::dataset::{Dataset, DatasetSplits};
use crate::error::Result;
use crate::ordered::ordered;
use crate::store::Pooling;

/// Settings to evaluate.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The settings of the fit.
    pub settings: FitSettings,
    /// Pooling of the features.
    pub pooling: Pooling,
}

/// Evaluation of a candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Scores, accuracy or mAP in [0, 1], of each held-out part of each plan; or why there are none.
    pub scores: std::result::Result<Vec<Vec<f64>>, String>,
    /// Duration of the fits in seconds.
    pub seconds: f64,
}

/// Clips of the training and validation splits.
#[derive(Debug, Clone, PartialEq)]
enum Clips {
    /// The clips to train on.
    Training,
    /// The validation split.
    Validation,
    /// These clips of the training split.
    Selected(Vec<usize>),
}

impl Clips {
    fn of<'a>(&self, data: &'a DatasetSplits) -> Cow<'a, Dataset> {
        match self {
            Self::Training => Cow::Borrowed(data.training_set()),
            Self::Validation => Cow::Borrowed(&data.val),
            Self::Selected(indices) => Cow::Owned(data.train.select(indices)),
        }
    }
}

/// The clips of one fit of each candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    fit: Clips,
    /// For early stopping; may be empty.
    stop: Clips,
    /// Parts to score.
    held_out: Vec<Clips>,
}

impl Plan {
    /// Fits to the training split and scores on the validation split, as a run does.
    pub fn on_validation() -> Self {
        Self { fit: Clips::Training, stop: Clips::Validation, held_out: vec![Clips::Validation] }
    }

    /// Returns one plan per fold f of a repetition, with the scores of f. `trained` classifiers use the next fold for early stopping, as
    /// [`cross_validation::run`](super::cross_validation::run) does.
    pub fn on_folds(folds: &Folds, repetition: usize, trained: bool) -> Vec<Self> {
        let of_fold = |fold| Self::without(folds, repetition, &[fold], trained.then_some((fold + 1) % folds.count));
        (0..folds.count).map(of_fold).collect()
    }

    /// Returns one plan per pair of folds of a repetition, [`fold_pairs`], that leaves out both, with the scores of both. The scores of b in the
    /// pairs with a are a cross-validation of the clips that are not in a. `trained` classifiers use the first of the other folds for
    /// early stopping.
    pub fn on_fold_pairs(folds: &Folds, repetition: usize, trained: bool) -> Vec<Self> {
        let of_pair = |(a, b)| {
            let other = (0..folds.count).find(|&fold| fold != a && fold != b);
            Self::without(folds, repetition, &[a, b], other.filter(|_| trained))
        };
        fold_pairs(folds.count).into_iter().map(of_pair).collect()
    }

    fn without(folds: &Folds, repetition: usize, held_out: &[usize], stop: Option<usize>) -> Self {
        let of_clip = &folds.of_clip[repetition];
        let select = |keep: &dyn Fn(usize) -> bool| {
            Clips::Selected((0..of_clip.len()).filter(|&clip| keep(of_clip[clip])).collect())
        };
        Self {
            fit: select(&|fold| !held_out.contains(&fold) && Some(fold) != stop),
            stop: select(&|fold| Some(fold) == stop),
            held_out: held_out.iter().map(|&held_out| select(&|fold| fold == held_out)).collect(),
        }
    }
}

/// Returns the pairs a < b of numbers below `count`.
pub fn fold_pairs(count: usize) -> Vec<(usize, usize)> {
    (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect()
}

/// Evaluates each candidate with each plan, with the seed 0. Plans and candidates are evaluated in parallel. Candidates that differ only in
/// the penalty start from each other's results, from the highest penalty to the lowest. Scores do not depend on `threads`.
///
/// `data` returns the features with a pooling. `progress` is called with the number of finished and of all fits, from several threads.
///
/// # Errors
/// Returns an error if no candidate can be fitted.
pub fn evaluate<'a>(
    candidates: &[Candidate],
    plans: &[Plan],
    data: &(dyn Fn(Pooling) -> &'a DatasetSplits + Sync),
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Evaluated>> {
    let chains = chains(candidates);
    let tasks: Vec<(&Plan, &Vec<usize>)> =
        plans.iter().flat_map(|plan| chains.iter().map(move |chain| (plan, chain))).collect();
    let workers = threads.min(tasks.len()).max(1);
    let (finished, count) = (AtomicUsize::new(0), plans.len() * candidates.len());
    let on_fit = || progress(finished.fetch_add(1, Ordering::Relaxed) + 1, count);
    let run = |(plan, chain): (&Plan, &Vec<usize>)| {
        let chain: Vec<&Candidate> = chain.iter().map(|&candidate| &candidates[candidate]).collect();
        evaluate_chain(&chain, plan, data(chain[0].pooling), threads / workers, &on_fit)
    };
    let results: Vec<Vec<ChainResult>> =
        std::thread::scope(|scope| ordered(scope, tasks.iter().copied(), vec![&run; workers], workers).collect());

    let mut evaluated = vec![Evaluated { scores: Ok(vec![]), seconds: 0.0 }; candidates.len()];
    let mut first_error = None;
    for ((_, chain), results) in tasks.iter().zip(results) {
        for (&candidate, (scores, seconds)) in chain.iter().zip(results) {
            let evaluated = &mut evaluated[candidate];
            evaluated.seconds += seconds;
            match scores {
                Ok(scores) => drop(evaluated.scores.as_mut().map(|all| all.push(scores))),
                Err(error) => {
                    evaluated.scores = Err(error.to_string());
                    first_error.get_or_insert(error);
                }
            }
        }
    }
    match first_error {
        Some(error) if evaluated.iter().all(|evaluated| evaluated.scores.is_err()) => Err(error),
        _ => Ok(evaluated),
    }
}

/// Returns the best candidate by its mean score in `select`ed held-out parts, (plan, part). Ties: the higher penalty, then the first.
/// `None` if all failed, or no score is a number.
pub fn best(candidates: &[Candidate], evaluated: &[Evaluated], select: &dyn Fn(usize, usize) -> bool) -> Option<usize> {
    let mean = |evaluated: &Evaluated| evaluated.mean(select).filter(|mean| !mean.is_nan());
    let penalty =
        |candidate: usize| candidates[candidate].settings.classifier.clone().penalty_mut().map_or(0.0, |p| *p);
    let mut best: Option<(f64, usize)> = None;
    for (candidate, mean) in evaluated.iter().enumerate().filter_map(|(i, evaluated)| Some((i, mean(evaluated)?))) {
        let better =
            |(highest, of): (f64, usize)| mean > highest || mean == highest && penalty(candidate) > penalty(of);
        if best.is_none_or(better) {
            best = Some((mean, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

impl Evaluated {
    /// Returns the mean score of the held-out parts (plan, part) that `select` selects.
    fn mean(&self, select: &dyn Fn(usize, usize) -> bool) -> Option<f64> {
        let plans = self.scores.as_ref().ok()?.iter().enumerate();
        let parts =
            plans.flat_map(|(plan, parts)| parts.iter().enumerate().map(move |(part, score)| ((plan, part), *score)));
        let scores: Vec<f64> = parts.filter(|((plan, part), _)| select(*plan, *part)).map(|(_, score)| score).collect();
        Some(scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// Groups the candidates that differ only in the penalty, in the order of their first one; each group in descending order of it.
fn chains(candidates: &[Candidate]) -> Vec<Vec<usize>> {
    let mut chains: Vec<(Candidate, Vec<(usize, f64)>)> = Vec::new();
    for (i, candidate) in candidates.iter().enumerate() {
        let mut key = candidate.clone();
        let penalty = key.settings.classifier.penalty_mut().map(|penalty| std::mem::replace(penalty, 0.0));
        match chains.iter_mut().find(|(known, _)| *known == key) {
            Some((_, chain)) => chain.push((i, penalty.unwrap_or(0.0))),
            None => chains.push((key, vec![(i, penalty.unwrap_or(0.0))])),
        }
    }
    let sorted = |(_, mut chain): (_, Vec<(usize, f64)>)| {
        chain.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        chain.into_iter().map(|(i, _)| i).collect()
    };
    chains.into_iter().map(sorted).collect()
}

/// Scores of the held-out parts, and the seconds of the fit.
type ChainResult = (Result<Vec<f64>>, f64);

fn evaluate_chain(
    chain: &[&Candidate],
    plan: &Plan,
    data: &DatasetSplits,
    threads: usize,
    finished: &dyn Fn(),
) -> Vec<ChainResult> {
    let (fit, stop) = (plan.fit.of(data), plan.stop.of(data));
    let held_out: Vec<Cow<'_, Dataset>> = plan.held_out.iter().map(|part| part.of(data)).collect();
    let mut warm_start = WarmStart::default();
    let mut scores = |candidate: &Candidate| -> Result<Vec<f64>> {
        let mut ignore = |_: &_| {};
        let context = FitContext::new(0, data.task, threads, &mut ignore);
        let mut context = FitContext { warm_start: Some(&mut warm_start), ..context };
        let fitted = build(&candidate.settings).fit(&fit, &stop, &mut context)?;
        held_out.iter().map(|part| Ok(score(data.task, &fitted.model.scores(part)?, &part.targets))).collect()
    };
    let timed = |candidate: &&Candidate| {
        let start = Instant::now();
        let scores = scores(candidate);
        finished();
        (scores, start.elapsed().as_secs_f64())
    };
    chain.iter().map(timed).collect()
}
