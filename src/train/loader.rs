//! Batches of augmented and normalized frames, made by worker threads ahead of the network.

use std::sync::{Mutex, PoisonError};
use std::thread::Scope;
use std::time::{Duration, Instant};

use kinoprobe::error::{Error, Result};
use kinoprobe::manifest::imbalance::{Resample, resample_by_label_set};
use kinoprobe::ordered::{Ordered, ordered};
use ndarray::Array2;

use super::augment::{Augmenter, ORIENTATIONS, Parameters, orient};
use super::frame_cache::FrameCache;
use super::plan::{self, Draw};
use super::random::{Purpose, generator, symmetric_beta};
use super::recipe::TrainRecipe;

/// Clips with their targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Positions of the clips in the frame cache, (N).
    pub clips: Vec<usize>,
    /// Targets, (N, C), 0 or 1; no columns for clips without labels.
    pub targets: Array2<f32>,
}

/// The input of one step of training or evaluation: N clips with M windows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Number of the batch in its epoch.
    pub step: usize,
    /// Inputs of the network, (M, 3, [T,] H, W): the windows of the first clip, then those of the second, …
    pub inputs: Vec<f32>,
    /// Second views of the same windows for contrastive training, otherwise empty.
    pub second_views: Vec<f32>,
    /// Shape of `inputs`, and of `second_views`.
    pub shape: Vec<usize>,
    /// Targets, (N, C), after mixup.
    pub targets: Vec<f32>,
    /// Indices of the clips among the samples, (N).
    pub clips: Vec<usize>,
    /// Number of windows of each clip, (N); the sum is M.
    pub windows: Vec<usize>,
    /// Transformed frames of the self-supervised task, (R, 3, H, W); empty without it.
    pub rotated: Vec<f32>,
    /// The transform of each of these frames, (R), from 0 to 5 (see [`orient`]).
    pub rotation_labels: Vec<i64>,
}

/// Makes the batches of samples whose frames are cached.
#[derive(Debug)]
pub struct Loader<'a> {
    cache: &'a FrameCache,
    recipe: &'a TrainRecipe,
    samples: Samples,
    label_sets: Vec<Vec<usize>>,
    /// The samples of an epoch, with repetitions if they are resampled.
    resampled: Vec<usize>,
    /// Positions in the cache of the clips of the self-supervised task.
    pool: Vec<usize>,
    workers: usize,
    /// Memory of earlier batches.
    free: Mutex<Vec<Vec<f32>>>,
}

/// What a worker needs for one batch.
struct BatchPlan {
    step: usize,
    /// `None` in evaluation.
    epoch: Option<usize>,
    draws: Vec<Draw>,
    /// Frames of the self-supervised task: position in the cache, window.
    rotated: Vec<(usize, usize)>,
}

impl<'a> Loader<'a> {
    /// Creates a loader. `pool` are the positions in the cache of the clips of the self-supervised task, labeled and unlabeled; they are
    /// not used without `[rotations]`. `workers` is the number of threads, on which the batches do not depend.
    ///
    /// # Errors
    /// Returns an error if there are no samples, a clip has no frames, or all batches would be omitted.
    pub fn new(
        cache: &'a FrameCache,
        recipe: &'a TrainRecipe,
        samples: Samples,
        pool: Vec<usize>,
        workers: usize,
    ) -> Result<Self> {
        assert_eq!(samples.clips.len(), samples.targets.nrows(), "one row of targets per clip");
        if let Some(&clip) = samples.clips.iter().chain(&pool).find(|&&clip| cache.windows(clip).is_empty()) {
            let reason = cache.failure(clip).unwrap_or("no frames");
            return Err(Error::Data(format!("a clip that failed cannot be used for training: {reason}")));
        }
        let labels = |row: ndarray::ArrayView1<'_, f32>| (0..row.len()).filter(|&class| row[class] > 0.0).collect();
        let label_sets: Vec<Vec<usize>> = samples.targets.rows().into_iter().map(labels).collect();
        let resampled = match recipe.epoch.resample {
            Some(Resample::Compose { low, high }) => resample_by_label_set(&label_sets, low, high, recipe.seed).indices,
            None => (0..samples.clips.len()).collect(),
        };
        let pool = if recipe.rotations.is_some() { pool } else { Vec::new() };
        let (workers, free) = (workers.max(1), Mutex::default());
        let loader = Self { cache, recipe, samples, label_sets, resampled, pool, workers, free };
        match (loader.steps(), recipe.training.batch) {
            (0, _) if loader.samples.clips.is_empty() => Err(Error::Data("there are no clips to train on".into())),
            (0, batch) => Err(Error::Data(format!(
                "{} clips are fewer than a batch of {batch}, and epoch.drop_last omits it: lower --batch",
                loader.resampled.len()
            ))),
            _ => Ok(loader),
        }
    }

    /// Returns the clips and their targets.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Takes back the memory of a batch for later ones. New memory of this size costs about as much time as augmentation, since the
    /// system maps and clears its pages.
    pub fn recycle(&self, batch: Batch) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // Up to three arrays for each batch that is in use at the same time.
        let room = (3 * (self.workers + 2)).saturating_sub(free.len());
        free.extend(
            [batch.inputs, batch.second_views, batch.rotated]
                .into_iter()
                .filter(|values| !values.is_empty())
                .take(room),
        );
    }

    /// Returns an array of `len` values, which are arbitrary, from the memory of earlier batches if there is any.
    fn allocate(&self, len: usize) -> Vec<f32> {
        if len == 0 {
            return Vec::new();
        }
        let recycled = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = free.iter().position(|values| values.capacity() >= len);
            fits.map(|position| free.swap_remove(position))
        };
        let Some(mut values) = recycled else { return vec![0.0; len] };
        values.resize(len, 0.0);
        values
    }

    /// Returns the number of batches of a training epoch.
    pub fn steps(&self) -> usize {
        let clips = if self.recipe.epoch.balanced { self.samples.clips.len() } else { self.resampled.len() };
        let batch = self.recipe.training.batch;
        if self.recipe.epoch.drop_last { clips / batch } else { clips.div_ceil(batch) }
    }

    /// Makes the augmented batches of an epoch, counted from 0, from step `first` on. They are a pure function of the recipe, the samples
    /// and the epoch.
    pub fn train<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, epoch: usize, first: usize) -> Batches {
        let seed = self.recipe.seed;
        let draws = match self.recipe.epoch.balanced {
            true => plan::balanced(&self.label_sets, seed, epoch),
            false => plan::shuffled(&self.resampled, seed, epoch),
        };
        let frames = self.recipe.rotations.as_ref().map_or(0, |rotations| rotations.frames);
        let windows: Vec<usize> = self.pool.iter().map(|&clip| self.cache.windows(clip).len()).collect();
        let rotated = plan::from_pool(&windows, frames * self.steps(), seed, epoch);
        let plans =
            draws.chunks(self.recipe.training.batch).take(self.steps()).enumerate().map(|(step, draws)| BatchPlan {
                step,
                epoch: Some(epoch),
                draws: draws.to_vec(),
                rotated: match self.pool.is_empty() {
                    true => Vec::new(),
                    false => rotated[step * frames..][..frames]
                        .iter()
                        .map(|&(clip, window)| (self.pool[clip], window))
                        .collect(),
                },
            });
        self.run(scope, plans.skip(first).collect())
    }

    /// Makes batches of all samples in order, with all of their windows, without augmentation.
    pub fn evaluate<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Batches {
        let draws = plan::sequential(self.samples.clips.len());
        let plans = draws.chunks(self.recipe.training.batch).enumerate();
        let plan = |(step, draws): (usize, &[Draw])| BatchPlan {
            step,
            epoch: None,
            draws: draws.to_vec(),
            rotated: Vec::new(),
        };
        self.run(scope, plans.map(plan).collect())
    }

    fn run<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, plans: Vec<BatchPlan>) -> Batches {
        let workers = (0..self.workers).map(|_| {
            let mut worker = Worker::new(self);
            move |plan: BatchPlan| worker.batch(plan)
        });
        let batches = ordered(scope, plans.into_iter(), workers.collect(), self.workers + 1);
        Batches { batches, waited: Duration::ZERO }
    }
}

/// Iterator over the batches of an epoch, in order. The workers end when it is dropped.
pub struct Batches {
    batches: Ordered<Result<Batch>>,
    waited: Duration,
}

impl Batches {
    /// Returns the time that [`Iterator::next`] has waited for batches.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        let batch = self.batches.next();
        self.waited += start.elapsed();
        batch
    }
}

/// The state of a worker thread.
struct Worker<'a> {
    loader: &'a Loader<'a>,
    augmenter: Augmenter,
    /// One frame.
    frame: Vec<u8>,
    /// The planes of one frame.
    planes: Vec<f32>,
}

impl<'a> Worker<'a> {
    fn new(loader: &'a Loader<'a>) -> Self {
        let augmenter = Augmenter::new(&loader.recipe.input);
        Self { loader, augmenter, frame: vec![0; loader.cache.frame_len()], planes: Vec::new() }
    }

    fn batch(&mut self, plan: BatchPlan) -> Result<Batch> {
        let Loader { cache, recipe, samples, .. } = self.loader;
        let ([height, width], length) = (recipe.input.size, recipe.window_length());
        let item_len = 3 * length.unwrap_or(1) * height * width;
        let most = recipe.epoch.draw.filter(|_| plan.epoch.is_some());
        let chosen: Vec<Vec<usize>> = plan
            .draws
            .iter()
            .map(|&draw| {
                let windows = cache.windows(samples.clips[draw.clip]).len();
                plan::windows(windows, most, recipe.seed, plan.epoch.unwrap_or(0), draw)
            })
            .collect();
        let windows: Vec<usize> = chosen.iter().map(Vec::len).collect();
        let total: usize = windows.iter().sum();
        let mut shape = vec![total, 3];
        shape.extend(length);
        shape.extend([height, width]);
        let two_views = recipe.contrastive.is_some() && plan.epoch.is_some();
        let mut batch = Batch {
            step: plan.step,
            inputs: self.loader.allocate(total * item_len),
            second_views: self.loader.allocate(if two_views { total * item_len } else { 0 }),
            shape,
            targets: Vec::with_capacity(plan.draws.len() * samples.targets.ncols()),
            clips: plan.draws.iter().map(|draw| draw.clip).collect(),
            windows,
            rotated: Vec::new(),
            rotation_labels: Vec::new(),
        };
        for draw in &plan.draws {
            batch.targets.extend(samples.targets.row(draw.clip));
        }
        let items =
            plan.draws.iter().zip(&chosen).flat_map(|(draw, chosen)| chosen.iter().map(move |&window| (*draw, window)));
        let views = [(Purpose::Augmentation, &mut batch.inputs), (Purpose::SecondView, &mut batch.second_views)];
        for (purpose, values) in views {
            for ((draw, window), item) in items.clone().zip(values.chunks_exact_mut(item_len)) {
                let parameters =
                    plan.epoch.map(|epoch| self.parameters(purpose, epoch, draw, window)).unwrap_or_default();
                self.window(samples.clips[draw.clip], window, &parameters, item)?;
            }
        }
        if let (Some(epoch), true) = (plan.epoch, recipe.augment.mixup > 0.0) {
            let mut rng = generator(recipe.seed, Purpose::Mixup, &[epoch as u64, plan.step as u64]);
            mix(&mut batch, item_len, symmetric_beta(recipe.augment.mixup, &mut rng) as f32);
        }
        if let Some(epoch) = plan.epoch {
            self.rotate(epoch, plan.step, &plan.rotated, &mut batch)?;
        }
        Ok(batch)
    }

    /// Draws the parameters of a window.
    fn parameters(&self, purpose: Purpose, epoch: usize, draw: Draw, window: usize) -> Parameters {
        let TrainRecipe { seed, augment, input, .. } = self.loader.recipe;
        let counters = [epoch, draw.clip, draw.occurrence, window].map(|counter| counter as u64);
        Parameters::draw(augment, input.size, &mut generator(*seed, purpose, &counters))
    }

    /// Writes a window, (3, [T,] H, W).
    fn window(&mut self, clip: usize, window: usize, parameters: &Parameters, item: &mut [f32]) -> Result<()> {
        let cache = self.loader.cache;
        let plane_len = cache.frame_len() / 3;
        let plane_stride = item.len() / 3;
        for (t, &frame) in cache.windows(clip)[window].iter().enumerate() {
            cache.read(clip, frame, &mut self.frame)?;
            self.augmenter.write(&mut self.frame, parameters, &mut item[t * plane_len..], plane_stride);
        }
        Ok(())
    }

    /// Adds the frames of the self-supervised task, each under all transforms. They are augmented like other frames, but neither rotated nor
    /// flipped.
    fn rotate(&mut self, epoch: usize, step: usize, frames: &[(usize, usize)], batch: &mut Batch) -> Result<()> {
        let TrainRecipe { seed, augment, input, .. } = self.loader.recipe;
        let plane_len = self.loader.cache.frame_len() / 3;
        batch.rotated = self.loader.allocate(frames.len() * ORIENTATIONS * 3 * plane_len);
        let mut planes = std::mem::take(&mut self.planes);
        planes.resize(3 * plane_len, 0.0);
        for (i, (&(clip, window), out)) in
            frames.iter().zip(batch.rotated.chunks_exact_mut(ORIENTATIONS * 3 * plane_len)).enumerate()
        {
            let counters = [epoch, step, i].map(|counter| counter as u64);
            let mut rng = generator(*seed, Purpose::Rotations, &counters);
            let parameters = Parameters::draw(augment, input.size, &mut rng).upright();
            self.window(clip, window, &parameters, &mut planes)?;
            for (label, out) in out.chunks_exact_mut(3 * plane_len).enumerate() {
                for (plane, out) in planes.chunks_exact(plane_len).zip(out.chunks_exact_mut(plane_len)) {
                    orient(plane, input.size[0], label, out);
                }
                batch.rotation_labels.push(label as i64);
            }
        }
        self.planes = planes;
        Ok(())
    }
}

/// Mixes the first clip of a batch with the last one, the second with the second last, …: a ← λ·a + (1 − λ)·b and b ← λ·b + (1 − λ)·a.
/// Batches are shuffled, so the pairs are random. If a clip has more windows than its partner, the partner's windows are repeated.
fn mix(batch: &mut Batch, item_len: usize, lambda: f32) {
    let clips = batch.windows.len();
    let classes = batch.targets.len() / clips;
    let starts: Vec<usize> = batch.windows.iter().scan(0, |sum, &n| Some(std::mem::replace(sum, *sum + n))).collect();
    for (a, b) in (0..clips / 2).map(|a| (a, clips - 1 - a)) {
        let (first, second) = batch.targets.split_at_mut(b * classes);
        mix_values(&mut first[a * classes..][..classes], &mut second[..classes], lambda);
        let (first, second) = batch.inputs.split_at_mut(starts[b] * item_len);
        let first = &mut first[starts[a] * item_len..][..batch.windows[a] * item_len];
        let second = &mut second[..batch.windows[b] * item_len];
        let common = first.len().min(second.len());
        let (longer, shorter) = if first.len() > common { (first, second) } else { (second, first) };
        let (paired, rest) = longer.split_at_mut(common);
        for (value, other) in rest.iter_mut().zip(shorter.iter().cycle()) {
            *value = lambda * *value + (1.0 - lambda) * other;
        }
        mix_values(paired, shorter, lambda);
    }
}

fn mix_values(a: &mut [f32], b: &mut [f32], lambda: f32) {
    for (a, b) in a.iter_mut().zip(b) {
        (*a, *b) = (lambda * *a + (1.0 - lambda) * *b, lambda * *b + (1.0 - lambda) * *a);
    }
}

#[cfg(test)]
mod tests;
