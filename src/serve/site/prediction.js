// Builds predictions from scores, with the same results as the server (src/serve/prediction.rs).

/**
 * Returns the prediction for an image. `model` is the result of `describe`. `scores` holds one array per year's model
 * and, if there is one, the array of the model of all posters; each is in the order of the model's thresholds.
 */
export function predictionForImage(model, name, scores) {
  const heads = model.years.map(({ thresholds }, i) => labeledScores(thresholds, scores[i]));
  const overall = model.overall ? labeledScores(model.overall.thresholds, scores[model.years.length]) : means(model.labels, heads.flat());
  const years = model.years.map(({ year }, i) => ({ year, genres: rank(model, heads[i]) }));
  return { name, kind: 'image', years, overall: rank(model, overall) };
}

/** Returns label, score and threshold of each genre of a model. */
const labeledScores = (thresholds, scores) => thresholds.map(({ label, threshold }, i) => ({ label, score: scores[i], threshold }));

/** Returns the mean score and mean threshold of each label, over the years whose model has the label. */
function means(labels, genres) {
  return labels.flatMap((label) => {
    const known = genres.filter((genre) => genre.label === label);
    const mean = (key) => known.reduce((sum, genre) => sum + genre[key], 0) / known.length;
    return known.length ? [{ label, score: mean('score'), threshold: mean('threshold') }] : [];
  });
}

/** Sorts genres by descending score; ties keep the order of the labels. Of a single-label model, only the first one is likely. */
function rank(model, genres) {
  const index = new Map(model.labels.map((label, i) => [label, i]));
  return [...genres]
    .sort((a, b) => b.score - a.score || index.get(a.label) - index.get(b.label))
    .map(({ label, score, threshold }, i) => ({ label, score, likely: model.task === 'single-label' ? i === 0 : score >= threshold }));
}
