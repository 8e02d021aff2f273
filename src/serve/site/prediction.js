// From scores to what the page shows, as the server answers it (src/serve/answer.rs).

/**
 * The prediction for a picture. `model` is what `describe` gives of the models; `scores` holds a list of
 * scores for each year's model and, where there is one, for the model of all posters, each in the order of its thresholds.
 */
export function ofPicture(model, name, scores) {
  const heads = model.years.map(({ thresholds }, i) => said(thresholds, scores[i]));
  const overall = model.overall ? said(model.overall.thresholds, scores[model.years.length]) : means(model.labels, heads.flat());
  const rank = (genres) => ranked(model.labels, genres);
  const years = model.years.map(({ year }, i) => ({ year, genres: rank(heads[i]) }));
  return { name, kind: 'image', years, overall: rank(overall) };
}

/** Label, score and threshold of each of a model's genres. */
const said = (thresholds, scores) => thresholds.map(({ label, threshold }, i) => ({ label, score: scores[i], threshold }));

/** For each label the mean score and the mean threshold of the years that know it. */
function means(labels, genres) {
  return labels.flatMap((label) => {
    const known = genres.filter((genre) => genre.label === label);
    const mean = (key) => known.reduce((sum, genre) => sum + genre[key], 0) / known.length;
    return known.length ? [{ label, score: mean('score'), threshold: mean('threshold') }] : [];
  });
}

/** Highest score first; equal scores in the order of the labels. */
function ranked(labels, genres) {
  const place = new Map(labels.map((label, i) => [label, i]));
  return [...genres]
    .sort((a, b) => b.score - a.score || place.get(a.label) - place.get(b.label))
    .map(({ label, score, threshold }) => ({ label, score, likely: score >= threshold }));
}
