//! The search of a run: evaluates the trials of `[classify.search]` and selects the settings of the run.

use std::sync::Arc;

use crate::classify::cross_validation::{FoldFit, Folds};
use crate::classify::search::{Candidate, Evaluated, Plan, best, evaluate, fold_pairs};
use crate::classify::training::score_name;
use crate::dataset::{Dataset, DatasetSplits, Task};
use crate::error::{Error, Result};
use crate::recipe::{Classify, Recipe, SearchSettings, Trial};
use crate::report::search::{SearchReport, TrialReport};
use crate::store::Pooling;

/// The outcome of a search.
pub struct Searched {
    /// The recipe with the selected values, and with its search.
    pub recipe: Recipe,
    /// The data with the selected pooling.
    pub data: DatasetSplits,
    /// The models that were selected without a fold, (repetition, fold), if the search is nested.
    pub of_fold: Vec<Vec<FoldFit>>,
    /// The table of trials.
    pub report: SearchReport,
}

/// Evaluates the trials of `recipe.classify.search` on the training and validation splits of `data`, and selects the best.
///
/// Without `folds`, trials are scored on the validation split. With `classify.search.folds`, they are scored by a cross-validation. With
/// `classify.folds`, the search is nested: the settings for the clips of a fold are selected by a cross-validation over the other folds, and
/// those of the final model by one over all. `load` returns the data with another pooling, with the same clips. `progress` is called with the number of
/// finished and of all fits, from several threads.
///
/// # Errors
/// Returns an error if the recipe has no valid search, data cannot be loaded, or no trial can be fitted.
pub fn search(
    recipe: &Recipe,
    data: DatasetSplits,
    folds: Option<&Folds>,
    load: &dyn Fn(Pooling) -> Result<DatasetSplits>,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Searched> {
    let classify = &recipe.classify;
    let settings = classify.search.as_ref().ok_or_else(|| Error::Data("the recipe has no search".into()))?;
    classify.calibrate.check(data.task)?;
    let trials = settings.trials(classify).map_err(Error::Data)?;
    let candidates: Vec<Candidate> = trials
        .iter()
        .map(|Trial { classify, .. }| Candidate { settings: classify.fit_settings(), pooling: classify.pooling })
        .collect();
    if folds.is_none() && data.val.is_empty() {
        return Err(Error::Data(
            "a search scores its trials on val, which has no labeled clip: add validation clips, or pass --search-folds".into(),
        ));
    }
    let task = data.task;
    let mut loaded = vec![(classify.pooling, data)];
    for candidate in &candidates {
        if loaded.iter().all(|(pooling, _)| *pooling != candidate.pooling) {
            loaded.push((candidate.pooling, load(candidate.pooling)?));
        }
    }
    let data_of = |pooling: Pooling| {
        let found = loaded.iter().find(|(loaded, _)| *loaded == pooling);
        &found.expect("the data of every candidate are loaded").1
    };
    let trained = classify.classifier.capabilities().trained;
    let nested = folds.filter(|_| classify.folds.is_some());
    let plans = match folds {
        None => vec![Plan::on_validation()],
        Some(folds) => Plan::on_folds(folds, 0, trained),
    };
    let pair_plans: Vec<Plan> = nested.map_or(vec![], |folds| {
        (0..folds.of_clip.len()).flat_map(|repetition| Plan::on_fold_pairs(folds, repetition, trained)).collect()
    });
    let count = plans.len();
    let all_plans = [plans, pair_plans].concat();
    let evaluated = evaluate(&candidates, &all_plans, &data_of, threads, progress)?;
    let select = |keep: &dyn Fn(usize, usize) -> bool| {
        best(&candidates, &evaluated, keep).ok_or_else(|| {
            Error::Data("no trial of the search has a score: a held-out part has no positive label".into())
        })
    };
    let selected = select(&|plan, _| plan < count)?;
    let of_fold: Vec<Vec<usize>> = match nested {
        None => vec![],
        Some(folds) => {
            let pairs = fold_pairs(folds.count);
            let of_fold = |repetition: usize, fold: usize| {
                let first = count + repetition * pairs.len();
                select(&|plan, part| {
                    let pair = plan.checked_sub(first).and_then(|pair| pairs.get(pair));
                    pair.is_some_and(|&(a, b)| if part == 0 { b == fold } else { a == fold })
                })
            };
            let of_repetition = |repetition| (0..folds.count).map(|fold| of_fold(repetition, fold)).collect();
            (0..folds.of_clip.len()).map(of_repetition).collect::<Result<_>>()?
        }
    };
    let report = report(recipe, task, &trials, &evaluated, count, selected, of_fold.clone());
    let train_of: Vec<(Pooling, Arc<Dataset>)> = match nested {
        None => vec![],
        Some(_) => loaded.iter().map(|(pooling, data)| (*pooling, Arc::new(data.train.clone()))).collect(),
    };
    let fold_fit = |trial: &usize| {
        let Candidate { settings, pooling } = &candidates[*trial];
        let found = train_of.iter().find(|(loaded, _)| loaded == pooling);
        FoldFit { settings: settings.clone(), train: found.expect("the data of every candidate are loaded").1.clone() }
    };
    let selected_data = loaded.iter().position(|(pooling, _)| *pooling == candidates[selected].pooling);
    let data = loaded.swap_remove(selected_data.expect("the data of every candidate are loaded")).1;
    Ok(Searched {
        recipe: with_values(recipe, &trials[selected], classify.search.clone(), classify.folds),
        data,
        of_fold: of_fold.iter().map(|of_fold| of_fold.iter().map(fold_fit).collect()).collect(),
        report,
    })
}

/// Returns the recipe with the values of a trial.
fn with_values(recipe: &Recipe, trial: &Trial, search: Option<SearchSettings>, folds: Option<usize>) -> Recipe {
    Recipe { classify: Classify { search, folds, ..trial.classify.clone() }, ..recipe.clone() }
}

/// Describes the search. The scores of a trial are those of the first `plans` plans.
fn report(
    recipe: &Recipe,
    task: Task,
    trials: &[Trial],
    evaluated: &[Evaluated],
    plans: usize,
    best: usize,
    of_fold: Vec<Vec<usize>>,
) -> SearchReport {
    let Classify { folds, search, .. } = &recipe.classify;
    let settings = search.as_ref().expect("the recipe has a search");
    let folds = folds.or(settings.folds);
    let report = |(trial, evaluated): (&Trial, &Evaluated)| TrialReport {
        values: trial.values.iter().map(|(_, value)| value.clone()).collect(),
        scores: evaluated.scores.as_ref().map(|scores| scores[..plans].concat()).map_err(Clone::clone),
        seconds: evaluated.seconds,
    };
    SearchReport {
        recipe: with_values(recipe, &trials[best], None, folds).to_toml(),
        names: trials[0].values.iter().map(|(name, _)| name.clone()).collect(),
        trials: trials.iter().zip(evaluated).map(report).collect(),
        best,
        folds,
        score_name: score_name(task),
        of_fold,
    }
}
