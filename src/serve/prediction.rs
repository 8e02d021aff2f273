//! Builds the JSON responses of the API from the scores of the poster models.

use serde::Serialize;
use serde_json::{Value, json};

use crate::dataset::Task;
use crate::posters::{Head, PosterModels, Scores};

/// The score of one genre.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenreScore {
    /// Name of the genre.
    pub label: String,
    /// In [0, 1]. Genres are scored independently: the scores do not add up to 1. Those of a single-label model do.
    pub score: f32,
    /// `true` if the score reaches the model's threshold for the genre; for a single-label model, if it is the highest.
    pub likely: bool,
}

/// The prediction of one year's model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct YearPrediction {
    /// The year.
    pub year: i32,
    /// All genres of the model, highest score first.
    pub genres: Vec<GenreScore>,
}

/// The prediction for one frame of a video.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FramePrediction {
    /// Presentation time of the frame from the start of the video, in seconds.
    pub seconds: f64,
    /// [`Prediction::overall`] for this frame.
    pub genres: Vec<GenreScore>,
}

/// The prediction for one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The file name sent by the client.
    pub name: String,
    /// `image` or `video`.
    pub kind: &'static str,
    /// One entry per year's model, by ascending year. For a video, the mean over its frames.
    pub years: Vec<YearPrediction>,
    /// The model of all posters or, if there is none, the mean over the years; highest score first.
    pub overall: Vec<GenreScore>,
    /// One entry per sampled frame, for videos only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<Vec<FramePrediction>>,
}

impl Prediction {
    /// Returns the prediction for an image.
    pub fn for_image(models: &PosterModels, name: String, scores: &Scores) -> Self {
        Self { name, kind: "image", years: years(models, scores), overall: overall(models, scores), frames: None }
    }

    /// Returns the prediction for a video from the scores of its sampled frames, at least one. `seconds` holds the
    /// presentation time of each frame.
    pub fn for_video(models: &PosterModels, name: String, seconds: &[f64], frames: &[Scores]) -> Self {
        let mean = mean_scores(frames);
        let frames = seconds
            .iter()
            .zip(frames)
            .map(|(&seconds, scores)| FramePrediction { seconds, genres: overall(models, scores) })
            .collect();
        Self { name, kind: "video", years: years(models, &mean), overall: overall(models, &mean), frames: Some(frames) }
    }
}

fn years(models: &PosterModels, scores: &Scores) -> Vec<YearPrediction> {
    let years = models.posters.years.iter().zip(&models.years).zip(&scores.years);
    years
        .map(|((listed, head), scores)| YearPrediction {
            year: listed.year,
            genres: rank(models, labeled_scores(head, scores).collect()),
        })
        .collect()
}

fn overall(models: &PosterModels, scores: &Scores) -> Vec<GenreScore> {
    if let (Some(head), Some(scores)) = (&models.overall, &scores.overall) {
        return rank(models, labeled_scores(head, scores).collect());
    }
    // Mean score and mean threshold of each label, over the years whose model has the label.
    let mut sums = vec![(0.0, 0.0, 0.0); models.posters.labels.len()];
    let all_years = models.years.iter().zip(&scores.years);
    for (label, score, threshold) in all_years.flat_map(|(head, scores)| labeled_scores(head, scores)) {
        let sum = &mut sums[label];
        *sum = (sum.0 + score, sum.1 + threshold, sum.2 + 1.0);
    }
    let known = sums.iter().enumerate().filter(|(_, sum)| sum.2 > 0.0);
    rank(models, known.map(|(label, sum)| (label, sum.0 / sum.2, sum.1 / sum.2)).collect())
}

/// Yields label index, score and threshold of each genre of a model.
fn labeled_scores<'a>(head: &'a Head, scores: &'a [f32]) -> impl Iterator<Item = (usize, f32, f32)> + 'a {
    let scores = scores.iter().zip(&head.thresholds);
    head.labels.iter().zip(scores).map(|(&label, (&score, &threshold))| (label, score, threshold))
}

/// Sorts genres by descending score; ties keep the order of the labels.
fn rank(models: &PosterModels, mut genres: Vec<(usize, f32, f32)>) -> Vec<GenreScore> {
    genres.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let genre = |(rank, (label, score, threshold)): (usize, (usize, f32, f32))| GenreScore {
        label: models.posters.labels[label].clone(),
        score,
        likely: if models.is_single_label() { rank == 0 } else { score >= threshold },
    };
    genres.into_iter().enumerate().map(genre).collect()
}

fn mean_scores(frames: &[Scores]) -> Scores {
    let mean = |rows: Vec<&Vec<f32>>| -> Vec<f32> {
        let count = rows.len() as f32;
        (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / count).collect()
    };
    Scores {
        years: (0..frames[0].years.len()).map(|y| mean(frames.iter().map(|frame| &frame.years[y]).collect())).collect(),
        overall: frames.iter().map(|frame| frame.overall.as_ref()).collect::<Option<Vec<_>>>().map(mean),
    }
}

/// Returns the summary of the models that accompanies every prediction.
pub fn model_summary(models: &PosterModels, provider: &str) -> Value {
    let posters = &models.posters;
    json!({
        "method": posters.identity.method,
        "card": posters.card,
        "weights": posters.identity.weights,
        "untrained": posters.identity.untrained,
        "demo": posters.demo,
        "provider": provider,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// Returns the full description of the models, as in `GET /api/models`.
pub fn model_description(models: &PosterModels, provider: &str) -> Value {
    let posters = &models.posters;
    let shown_threshold = |threshold| (!models.is_single_label()).then(|| shortest_decimal(threshold));
    let thresholds = |head: &Head| -> Vec<Value> {
        let labels = head.labels.iter().map(|&label| posters.labels[label].as_str());
        labels
            .zip(&head.thresholds)
            .map(|(label, threshold)| json!({ "label": label, "threshold": shown_threshold(*threshold) }))
            .collect()
    };
    let years: Vec<Value> = posters
        .years
        .iter()
        .zip(&models.years)
        .map(|(listed, head)| {
            json!({
                "year": listed.year,
                "clips": listed.clips,
                "metrics": listed.metrics,
                "thresholds": thresholds(head),
            })
        })
        .collect();
    let mut description = model_summary(models, provider);
    description["kind"] = json!(if models.is_run { "run" } else { "posters" });
    description["task"] = json!(if models.is_single_label() { Task::SingleLabel } else { Task::MultiLabel });
    description["labels"] = json!(posters.labels);
    description["by"] = json!(posters.by);
    description["window"] = json!(posters.window);
    description["years"] = json!(years);
    description["overall"] = json!(models.overall.as_ref().map(|head| json!({ "thresholds": thresholds(head) })));
    description
}

/// Converts to f64 so that JSON shows the shortest decimal of the f32: 0.3, not 0.30000001192092896.
fn shortest_decimal(value: f32) -> f64 {
    value.to_string().parse().expect("a printed f32 is a valid f64")
}
