//! The jobs in pipelines/kubernetes: their commands and exit codes are those of the programs. `make test-kubernetes` validates the files.

use std::fs;
use std::process::{Command, Output};

use super::interruption::run_with_signal;
use super::{IDS, Workspace};
use crate::support::{assert_code, fixture, root, run_python};

const SHARDS: usize = 16;

/// Returns the lines of a file in pipelines/kubernetes, without indentation.
fn lines(file: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("pipelines/kubernetes").join(file)).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

/// Returns the arguments of the container in a job.
fn arguments(file: &str) -> Vec<String> {
    let lines = lines(file).into_iter().skip_while(|line| line != "args:").skip(1);
    let lines =
        lines.filter(|line| !line.starts_with('#')).map_while(|line| line.strip_prefix("- ").map(str::to_owned));
    lines.collect()
}

/// Returns the actions of a job's exit codes, such as `("Ignore", "[130]")`.
fn actions(file: &str) -> Vec<(String, String)> {
    let mut action = String::new();
    let mut actions = Vec::new();
    for line in lines(file) {
        if let Some(next) = line.strip_prefix("- action: ") {
            action = next.into();
        } else if let Some(values) = line.strip_prefix("values: ") {
            actions.push((action.clone(), values.into()));
        }
    }
    actions
}

impl Workspace {
    /// Runs the program of a job with its arguments in this directory.
    fn run_job(&self, job: &str, program: &str, variables: &[(&str, &str)], flags: &[&str]) -> Output {
        let directory = self.directory.path().display().to_string();
        let mut command = Command::new(program);
        command.current_dir(root()).envs(variables.iter().copied());
        command.args(arguments(job).iter().map(|argument| argument.replace("/data", &directory))).args(flags);
        command.output().unwrap()
    }
}

#[test]
fn pods_extract_their_shards_and_the_merge_accepts_them() {
    let workspace = Workspace::with_failures();
    assert_code(&workspace.command("single.h5").output().unwrap(), 3);
    fs::rename(workspace.path("manifest.csv"), workspace.path("clips.csv")).unwrap();
    assert!(lines("extract/job.yaml").contains(&format!("completions: {SHARDS}")));
    let (recipe, models) = (fixture("pipelines/tiny.toml"), fixture("models"));
    // The recipe of the job would need the weights of its network.
    let flags = ["--recipe", recipe.to_str().unwrap(), "--models", models.to_str().unwrap()];
    for shard in 0..SHARDS {
        let index = shard.to_string();
        let variables = [("JOB_COMPLETION_INDEX", index.as_str())];
        let output = workspace.run_job("extract/job.yaml", env!("CARGO_BIN_EXE_kinoprobe-extract"), &variables, &flags);
        assert_code(&output, 0);
    }
    assert_code(&workspace.run_job("merge/job.yaml", env!("CARGO_BIN_EXE_kinoprobe-merge"), &[], &[]), 0);
    let ids = |store: &str| run_python(IDS, &[&workspace.path(store)]);
    assert_eq!(ids("features/cnn.h5"), ids("single.h5"));
}

#[test]
fn exit_codes_of_the_policies_are_those_of_the_programs() {
    let expected = [("Ignore", "[130]"), ("FailJob", "[2]")].map(|(action, code)| (action.into(), code.into()));
    for job in ["extract/job.yaml", "merge/job.yaml"] {
        assert_eq!(actions(job), expected, "{job}");
    }
    let workspace = Workspace::new(60);
    assert_code(&run_with_signal(&workspace, "interrupted.h5", "-TERM"), 130);
    let usage = |program| Command::new(program).arg("--unknown").output().unwrap();
    assert_code(&usage(env!("CARGO_BIN_EXE_kinoprobe-extract")), 2);
    assert_code(&usage(env!("CARGO_BIN_EXE_kinoprobe-merge")), 2);
    // Counted: another attempt may or may not help.
    let missing = workspace.run_job("merge/job.yaml", env!("CARGO_BIN_EXE_kinoprobe-merge"), &[], &[]);
    assert_code(&missing, 1);
}
