//! From scores to what is answered.

use serde::Serialize;
use serde_json::{Value, json};

use crate::posters::{Head, PosterModels, Scores};

/// One genre of a poster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Genre {
    /// Its name.
    pub label: String,
    /// In [0, 1]; genres are scored by themselves and do not add up to 1.
    pub score: f32,
    /// Whether the score reaches the model's threshold for the genre.
    pub likely: bool,
}

/// What one year's model says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct YearGenres {
    /// The year.
    pub year: i32,
    /// All genres it knows, highest score first.
    pub genres: Vec<Genre>,
}

/// What is said of one frame of a video.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrameGenres {
    /// When it is shown, from the beginning.
    pub seconds: f64,
    /// As [`Prediction::overall`], of this frame.
    pub genres: Vec<Genre>,
}

/// What is said of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The file's name, as its client gave it.
    pub name: String,
    /// `image` or `video`.
    pub kind: &'static str,
    /// A year's model each, ascending; of a video the mean over its frames.
    pub years: Vec<YearGenres>,
    /// The model of all posters, or where there is none the mean over the years; highest score first.
    pub overall: Vec<Genre>,
    /// Of a video, frame by frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<Vec<FrameGenres>>,
}

/// The prediction for a picture.
pub fn of_picture(models: &PosterModels, name: String, scores: &Scores) -> Prediction {
    Prediction { name, kind: "image", years: years(models, scores), overall: overall(models, scores), frames: None }
}

/// The prediction for a video whose frames are shown at `seconds`; at least one.
pub fn of_video(models: &PosterModels, name: String, seconds: &[f64], frames: &[Scores]) -> Prediction {
    let mean = mean(frames);
    let each = seconds.iter().zip(frames);
    let frames = each.map(|(&seconds, scores)| FrameGenres { seconds, genres: overall(models, scores) }).collect();
    Prediction {
        name,
        kind: "video",
        years: years(models, &mean),
        overall: overall(models, &mean),
        frames: Some(frames),
    }
}

fn years(models: &PosterModels, scores: &Scores) -> Vec<YearGenres> {
    let listed = models.posters.years.iter().zip(&models.years).zip(&scores.years);
    listed
        .map(|((listed, head), scores)| YearGenres {
            year: listed.year,
            genres: ranked(models, said(head, scores).collect()),
        })
        .collect()
}

fn overall(models: &PosterModels, scores: &Scores) -> Vec<Genre> {
    if let (Some(head), Some(scores)) = (&models.overall, &scores.overall) {
        return ranked(models, said(head, scores).collect());
    }
    // For each label the mean score and the mean threshold of the years that know it.
    let mut sums = vec![(0.0, 0.0, 0.0); models.posters.labels.len()];
    for (label, score, threshold) in
        models.years.iter().zip(&scores.years).flat_map(|(head, scores)| said(head, scores))
    {
        let sum = &mut sums[label];
        *sum = (sum.0 + score, sum.1 + threshold, sum.2 + 1.0);
    }
    let known = sums.iter().enumerate().filter(|(_, sum)| sum.2 > 0.0);
    ranked(models, known.map(|(label, sum)| (label, sum.0 / sum.2, sum.1 / sum.2)).collect())
}

/// Label, score and threshold of each of a model's genres.
fn said<'a>(head: &'a Head, scores: &'a [f32]) -> impl Iterator<Item = (usize, f32, f32)> + 'a {
    let both = scores.iter().zip(&head.thresholds);
    head.labels.iter().zip(both).map(|(&label, (&score, &threshold))| (label, score, threshold))
}

/// Highest score first; equal scores in the order of the labels.
fn ranked(models: &PosterModels, mut genres: Vec<(usize, f32, f32)>) -> Vec<Genre> {
    genres.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let genre = |(label, score, threshold): (usize, f32, f32)| Genre {
        label: models.posters.labels[label].clone(),
        score,
        likely: score >= threshold,
    };
    genres.into_iter().map(genre).collect()
}

fn mean(frames: &[Scores]) -> Scores {
    let of = |rows: Vec<&Vec<f32>>| -> Vec<f32> {
        let count = rows.len() as f32;
        (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / count).collect()
    };
    Scores {
        years: (0..frames[0].years.len()).map(|y| of(frames.iter().map(|frame| &frame.years[y]).collect())).collect(),
        overall: frames.iter().map(|frame| frame.overall.as_ref()).collect::<Option<Vec<_>>>().map(of),
    }
}

/// What is said of the models with every prediction.
pub fn model(models: &PosterModels, provider: &str) -> Value {
    let posters = &models.posters;
    json!({
        "method": posters.method,
        "card": posters.card,
        "weights": posters.weights,
        "untrained": posters.untrained,
        "demo": posters.demo,
        "provider": provider,
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// The number that prints as `value` does: 0.3, not 0.30000001192092896.
fn short(value: f32) -> f64 {
    value.to_string().parse().expect("what was printed can be read")
}

/// All that is known of the models.
pub fn described(models: &PosterModels, provider: &str) -> Value {
    let posters = &models.posters;
    let thresholds = |head: &Head| -> Vec<Value> {
        let labeled = head.labels.iter().map(|&label| posters.labels[label].as_str());
        labeled
            .zip(&head.thresholds)
            .map(|(label, threshold)| json!({ "label": label, "threshold": short(*threshold) }))
            .collect()
    };
    let listed = posters.years.iter().zip(&models.years);
    let years: Vec<Value> = listed
        .map(|(listed, head)| {
            json!({
                "year": listed.year,
                "clips": listed.clips,
                "metrics": listed.metrics,
                "thresholds": thresholds(head),
            })
        })
        .collect();
    let mut value = model(models, provider);
    value["labels"] = json!(posters.labels);
    value["by"] = json!(posters.by);
    value["window"] = json!(posters.window);
    value["years"] = json!(years);
    value["overall"] = json!(models.overall.as_ref().map(|head| json!({ "thresholds": thresholds(head) })));
    value
}
