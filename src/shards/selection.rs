//! The shard of a task: from the command line, or from the environment of a scheduler.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// One of several shards. [`Display`](fmt::Display) formats it as `INDEX/COUNT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Index, from 0.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl Shard {
    fn new(index: usize, count: usize) -> Result<Self, String> {
        match index < count {
            true => Ok(Self { index, count }),
            false => Err(format!("{index}/{count}: shards are numbered from 0 to {}", count.max(1) - 1)),
        }
    }
}

/// The value of `--shard`: `I/N`, `auto` or `auto/N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardChoice {
    /// This shard.
    Given(Shard),
    /// The shard in the environment.
    Auto {
        /// Number of shards, if the environment does not have it.
        count: Option<usize>,
    },
}

impl FromStr for ShardChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<usize>().ok();
        let positive = |text: &str| number(text).filter(|&count| count > 0);
        let parsed = match text.split_once('/') {
            None if text == "auto" => Some(Self::Auto { count: None }),
            Some(("auto", count)) => positive(count).map(|count| Self::Auto { count: Some(count) }),
            Some((index, count)) => match (number(index), positive(count)) {
                (Some(index), Some(count)) => Some(Self::Given(Shard::new(index, count)?)),
                _ => None,
            },
            None => None,
        };
        parsed.ok_or_else(|| "expected I/N (I from 0), auto, or auto/N, such as 3/200".into())
    }
}

impl ShardChoice {
    /// Returns the shard. For `auto`, the first of these rows whose variables are set decides:
    ///
    /// | variables | index | number of shards |
    /// |-|-|-|
    /// | `SLURM_ARRAY_TASK_ID`, `…_MIN`, `…_MAX`, `…_STEP` | (ID − MIN) / STEP; with `auto/N`, ID | (MAX − MIN) / STEP + 1 |
    /// | `SLURM_PROCID`, `SLURM_NTASKS` (more than one task) | PROCID | NTASKS |
    /// | `JOB_COMPLETION_INDEX` (Kubernetes) | the value | only `auto/N` |
    /// | `RANK`, `WORLD_SIZE` (torchrun) | RANK | WORLD_SIZE |
    ///
    /// In an array of Slurm jobs with several tasks each, the tasks of all jobs are numbered consecutively: with the index I of the array
    /// as above, I · NTASKS + PROCID.
    ///
    /// # Errors
    /// Returns an error if no row applies, the number of shards is unknown or differs from N, or a variable is not a number.
    pub fn resolve(self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard> {
        match self {
            Self::Given(shard) => Ok(shard),
            Self::Auto { count } => {
                from_environment(count, variable).map_err(|message| Error::Data(format!("--shard auto: {message}")))
            }
        }
    }
}

fn from_environment(count: Option<usize>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard, String> {
    let number = |name: &str| -> Result<Option<usize>, String> {
        let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("{name}={text} is not a number"))
    };
    let required = |name: &str| number(name)?.ok_or_else(|| format!("{name} is not set"));
    let task = match (number("SLURM_PROCID")?, number("SLURM_NTASKS")?) {
        (Some(task), Some(tasks)) if tasks > 1 => Some((task, tasks)),
        _ => None,
    };
    let (index, known) = if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
        let (task, tasks) = task.unwrap_or((0, 1));
        let (job, jobs) = match count {
            Some(_) => (id, None),
            None => array(id, &number, &required)?,
        };
        (job * tasks + task, jobs.map(|jobs| jobs * tasks))
    } else if let Some((task, tasks)) = task {
        (task, Some(tasks))
    } else if let Some(index) = number("JOB_COMPLETION_INDEX")? {
        (index, None)
    } else if let Some(rank) = number("RANK")? {
        (rank, Some(required("WORLD_SIZE")?))
    } else {
        return Err(
            "no variable of a scheduler is set (SLURM_ARRAY_TASK_ID, SLURM_PROCID, JOB_COMPLETION_INDEX, RANK); \
                    pass --shard I/N"
                .into(),
        );
    };
    match (known, count) {
        (Some(known), Some(count)) if known != count => {
            Err(format!("the environment has {known} tasks, not {count}; pass --shard I/N"))
        }
        (None, None) => Err("the environment does not have the number of shards; pass --shard auto/N".into()),
        (known, count) => Shard::new(index, count.or(known).unwrap_or(0)),
    }
}

/// Returns the index of an array job and the number of jobs.
fn array(
    id: usize,
    number: &dyn Fn(&str) -> Result<Option<usize>, String>,
    required: &dyn Fn(&str) -> Result<usize, String>,
) -> Result<(usize, Option<usize>), String> {
    let (min, max) = (required("SLURM_ARRAY_TASK_MIN")?, required("SLURM_ARRAY_TASK_MAX")?);
    let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1);
    let invalid = || format!("array task {id} is not in {min}-{max}:{step}; pass --shard I/N");
    let index =
        id.checked_sub(min).filter(|_| step > 0 && id <= max && (id - min).is_multiple_of(step)).ok_or_else(invalid)?;
    let count = (max - min) / step + 1;
    // An array such as 3,7,9 has no step.
    match number("SLURM_ARRAY_TASK_COUNT")? {
        Some(tasks) if tasks != count => {
            Err(format!("the array has {tasks} tasks, but {min}-{max}:{step} are {count}; pass --shard auto/N"))
        }
        _ => Ok((index / step, Some(count))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(choice: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into());
        let choice: ShardChoice = choice.parse()?;
        choice.resolve(&variable).map(|shard| shard.to_string()).map_err(|error| error.to_string())
    }

    const ARRAY: [(&str, &str); 5] = [
        ("SLURM_ARRAY_TASK_ID", "9"),
        ("SLURM_ARRAY_TASK_MIN", "5"),
        ("SLURM_ARRAY_TASK_MAX", "13"),
        ("SLURM_ARRAY_TASK_STEP", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "5"),
    ];

    #[test]
    fn shards_are_read_from_the_command_line() {
        assert_eq!(resolve("3/200", &ARRAY).unwrap(), "3/200");
        assert_eq!(resolve("0/1", &[]).unwrap(), "0/1");
        assert!(resolve("200/200", &[]).unwrap_err().contains("from 0 to 199"));
        for wrong in ["", "3", "3/", "/4", "0/0", "-1/4", "auto/", "auto/0", "automatic", "1/2/3"] {
            assert!(resolve(wrong, &[]).unwrap_err().contains("expected I/N"), "{wrong}");
        }
    }

    #[test]
    fn shards_are_read_from_the_environment_in_order() {
        let slurm = [("SLURM_PROCID", "2"), ("SLURM_NTASKS", "4")];
        let kubernetes = [("JOB_COMPLETION_INDEX", "7")];
        let torchrun = [("RANK", "1"), ("WORLD_SIZE", "8")];
        assert_eq!(resolve("auto", &ARRAY).unwrap(), "2/5");
        assert_eq!(resolve("auto/20", &ARRAY).unwrap(), "9/20");
        assert_eq!(resolve("auto", &[&ARRAY[..], &slurm].concat()).unwrap(), "10/20");
        assert_eq!(resolve("auto", &[&slurm[..], &kubernetes, &torchrun].concat()).unwrap(), "2/4");
        assert_eq!(resolve("auto/9", &[&kubernetes[..], &torchrun].concat()).unwrap(), "7/9");
        assert_eq!(resolve("auto", &torchrun).unwrap(), "1/8");
        // One task is no distribution.
        assert_eq!(
            resolve("auto", &[&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1")][..], &torchrun].concat()).unwrap(),
            "1/8"
        );
    }

    #[test]
    fn unclear_environments_are_refused() {
        let with = |name: &'static str, value: &'static str| {
            let mut variables = ARRAY.to_vec();
            variables.retain(|(known, _)| *known != name);
            variables.push((name, value));
            variables
        };
        for (choice, variables, expected) in [
            ("auto", vec![], "no variable of a scheduler is set"),
            ("auto", vec![("JOB_COMPLETION_INDEX", "7")], "pass --shard auto/N"),
            ("auto/7", vec![("JOB_COMPLETION_INDEX", "7")], "from 0 to 6"),
            ("auto", with("SLURM_ARRAY_TASK_COUNT", "3"), "3 tasks, but 5-13:2 are 5"),
            ("auto", with("SLURM_ARRAY_TASK_ID", "8"), "not in 5-13:2"),
            ("auto", with("SLURM_ARRAY_TASK_ID", "4"), "not in 5-13:2"),
            ("auto", with("SLURM_ARRAY_TASK_MAX", "x"), "SLURM_ARRAY_TASK_MAX=x is not a number"),
            ("auto/3", vec![("RANK", "1"), ("WORLD_SIZE", "8")], "8 tasks, not 3"),
            ("auto", vec![("RANK", "1")], "WORLD_SIZE is not set"),
        ] {
            let error = resolve(choice, &variables).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
