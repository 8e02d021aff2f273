//! Flags that override single values of a training recipe.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use kinoprobe::classify::flags_of;

use super::TrainRecipe;

/// Flags of kinoprobe-train for values of its recipe, derived from [`TrainRecipe`].
#[derive(Debug, Clone, Default)]
pub struct TrainFlags {
    matches: Option<ArgMatches>,
}

impl Args for TrainFlags {
    fn augment_args(command: Command) -> Command {
        command.args(flags_of::<TrainRecipe>().into_iter().map(|flag| flag.help_heading("Recipe overrides")))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TrainFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { matches: Some(matches.clone()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.matches = Some(matches.clone());
        Ok(())
    }
}

impl TrainFlags {
    /// Overrides values of `recipe`.
    ///
    /// # Errors
    /// Returns a message that names the flag if it does not apply.
    pub(super) fn apply(&self, recipe: &mut TrainRecipe) -> Result<(), String> {
        let Some(matches) = &self.matches else { return Ok(()) };
        recipe.update_from_arg_matches(matches).map_err(|error| error.to_string())?;
        for flag in flags_of::<TrainRecipe>() {
            let id = flag.get_id().as_str();
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let ignored = recipe.ignored();
            let by = ignored.iter().find(|(_, ids, _)| ids.contains(&id)).map(|(.., by)| by.as_str());
            // The remaining flags that can be ineffective are those of labels, in pre-training.
            let labels = ["task", "label_smoothing", "balanced", "loss", "loss_weights"];
            let by =
                by.or((recipe.contrastive.is_some() && labels.contains(&id)).then_some("contrastive pre-training"));
            if let Some(by) = by {
                return Err(format!("--{} does not apply to {by}", flag.get_long().unwrap_or(id)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use kinoprobe::classify::OptimizerKind;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        flags: TrainFlags,
    }

    fn apply(name: &str, arguments: &str) -> Result<(TrainRecipe, Vec<String>), String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("pipelines/train/{name}.toml"));
        let arguments = ["train"].into_iter().chain(arguments.split_whitespace());
        let parsed = Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?;
        let mut recipe = TrainRecipe::load(&path).unwrap();
        let unused = recipe.apply(&parsed.flags, &path).map_err(|error| error.to_string())?;
        Ok((recipe, unused))
    }

    #[test]
    fn flags_override_values_and_nothing_else() {
        let flags =
            "--epochs 3 --batch 8 --seed 5 --learning-rate 0.1 --patience 2 --weights none --draw 7 --pooling max";
        let (recipe, unused) = apply("resnet50", flags).unwrap();
        assert_eq!((recipe.training.epochs, recipe.training.batch, recipe.training.patience), (3, 8, 2));
        assert_eq!((recipe.seed, recipe.optimizer.learning_rate, recipe.epoch.draw), (5, 0.1, Some(7)));
        assert_eq!((recipe.network.initial_weights(), unused.len()), (None, 0));
        let (default, _) = apply("resnet50", "").unwrap();
        assert_eq!((recipe.network.head, recipe.augment), (default.network.head, default.augment));
        assert_eq!((recipe.input, recipe.sampling), (default.input, default.sampling));
    }

    #[test]
    fn keys_that_flags_make_ineffective_are_reset() {
        let (recipe, unused) = apply("r2plus1d", "--optimizer adam --schedule cosine").unwrap();
        assert_eq!(unused, ["optimizer.momentum", "schedule.step_every"]);
        assert_eq!((recipe.optimizer.kind, recipe.optimizer.momentum), (OptimizerKind::Adam, 0.9));
        assert_eq!(
            (recipe.optimizer.weight_decay, recipe.loss.kind),
            (0.005, apply("r2plus1d", "").unwrap().0.loss.kind)
        );
    }

    #[test]
    fn flags_without_effect_or_out_of_range_name_the_flag() {
        for (name, arguments, expected) in [
            ("resnet50", "--momentum 0.5", "--momentum does not apply to optimizer adam"),
            ("r2plus1d", "--margin 0.1", "--margin does not apply to loss bce"),
            ("simclr", "--balanced true", "--balanced does not apply to contrastive pre-training"),
            ("resnet50", "--epochs 0", "--epochs"),
            ("resnet50", "--draw 0", "--draw"),
            ("resnet50", "--label-smoothing 1", "--label-smoothing"),
            ("resnet50", "--card x", "unexpected argument '--card'"),
        ] {
            let error = apply(name, arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments}: {error}");
        }
    }
}
