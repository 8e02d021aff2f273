"""Fault injection: every system call by which a program changes files fails in turn.

    faults.py PROGRAMS [SCENARIO…]

PROGRAMS is the directory of the programs. For each scenario (extract, shard, merge, classify, …) the program runs once to count the calls that change
files, and then once for each call and each error that this call may return: a full disk, an exceeded quota, an input or output
error, a stale file handle, and a kill at this moment. A call may also be made and then reported as failed, as network file systems do if the reply is
lost. Each time,

- the program prints an error that names the file and the cause, and its exit code is 1; or it does not need the call, and succeeds;
- what it leaves is usable: the status can be read, an output is complete or absent;
- the same command without the fault gives exactly the result of a run that nothing disturbed, and leaves no other files.

Then the clock of the machine is moved, and several tasks work on the same store. Needs a C compiler and h5py (`make test-faults` provides h5py).
"""
import argparse
import concurrent.futures
import errno
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))
import compare_runs  # noqa: E402
import compare_stores  # noqa: E402

DONE, ERROR, SOME_FAILED, KILLED = 0, 1, 3, -9
# Actions by kind of call. "from": all later calls that need space fail too; "after": the call is made, and then reported as failed.
ACTIONS = {
    "write": [f"from {errno.ENOSPC}", f"{errno.EIO}", f"from {errno.EDQUOT}"],
    "sync": [f"{errno.EIO}", f"{errno.EDQUOT}"],
    "rename": [f"{errno.ESTALE}", f"{errno.EXDEV}", f"from {errno.ENOSPC}", f"after {errno.EIO}", f"after {errno.EEXIST}", f"after {errno.ENOENT}"],
    "create": [f"from {errno.ENOSPC}", f"from {errno.EROFS}", f"{errno.EACCES}"],
    "remove": [f"{errno.EIO}", f"{errno.EROFS}", f"after {errno.ENOENT}"],
}
CAUSES = {
    errno.ENOSPC: "the disk is full|no space left|No space left",
    errno.EDQUOT: "quota",
    errno.EIO: "I/O error|Input/output error|input/output error",
    errno.ESTALE: "[Ss]tale",
    errno.EXDEV: "cross-device|Cross-device|[Ii]nvalid cross-device",
    errno.EEXIST: "exists",
    errno.ENOENT: "[Nn]o such file|not found",
    errno.EROFS: "[Rr]ead-only",
    errno.EACCES: "[Pp]ermission denied",
}


class Failed(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failed(message)


class Scenario:
    """A program with its inputs. `inputs` are files and directories of the template that each attempt starts with."""

    def __init__(self, name, command, code, inputs, outputs):
        self.name, self.command, self.code, self.inputs, self.outputs = name, command, code, inputs, outputs


def run(command, directory, environment=None):
    return subprocess.run(list(map(str, command)), cwd=directory, env=os.environ | (environment or {}), capture_output=True, text=True)


def names(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


class Faults:
    def __init__(self, programs, work):
        self.programs, self.work = programs.resolve(), work.resolve()
        self.template, self.reference = self.work / "template", self.work / "reference"
        self.library = self.work / "fault.so"
        subprocess.run(["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", self.library, HERE / "fault.c"], check=True)

    def program(self, name, *arguments):
        return [self.programs / f"kinoprobe-{name}", *arguments]

    def extract(self, *arguments):
        fixtures = ROOT / "fixtures"
        return self.program("extract", "--method", "tiny", "--recipe", fixtures / "pipelines/tiny.toml", "--models", fixtures / "models",
                            "--manifest", "clips/manifest.csv", "--out", "tiny.h5", "--quiet", *arguments)

    def merge(self):
        return self.program("merge", "tiny.shards", "--out", "tiny.h5", "--quiet")

    def classify(self, classifier="mlp"):
        epochs = ["--epochs", "2"] if classifier == "mlp" else []
        return self.program("classify", "--features", "tiny.h5", "--manifest", "clips/manifest.csv", "--recipe",
                            ROOT / "fixtures/pipelines/tiny.toml", "--classifier", classifier, *epochs, "--out", "run", "--quiet")

    def prepare(self):
        """Makes the inputs of all scenarios."""
        clips = self.template / "clips"
        self.succeed(self.program("demo", "--out", clips, "--clips", "1", "--quiet"), self.work, DONE)
        lines = (clips / "manifest.csv").read_text().splitlines()
        # A few clips, one of them damaged, so that the exit code of a complete extraction is 3.
        (clips / "damaged.mp4").write_text("damaged")
        rows = [f"{line.rsplit(',', 2)[0]},{'ab'[i % 2]},{['train', 'train', 'val', 'test'][i // 2]}" for i, line in enumerate(lines[1:9])]
        (clips / "manifest.csv").write_text("\n".join([lines[0], *rows, "damaged,damaged.mp4,a,train"]) + "\n")
        self.succeed(self.extract(), self.template, SOME_FAILED)
        for index in range(2):
            output = run(self.extract("--shard", f"{index}/2"), self.template)
            check(output.returncode in (DONE, SOME_FAILED), output.stderr)
        self.succeed(self.classify(), self.template, DONE)

    def scenarios(self):
        shard = next(index for index in range(2) if "damaged" not in self.failed_of(index))
        other = f"{1 - shard:04}-of-0002.h5"
        return [
            Scenario("extract", self.extract(), SOME_FAILED, [], ["tiny.h5"]),
            # The store has all clips but those that failed.
            Scenario("retry", self.extract("--retry-failed"), SOME_FAILED, ["tiny.h5"], ["tiny.h5"]),
            Scenario("shard", self.extract("--shard", f"{shard}/2"), DONE, [f"tiny.shards/{other}"], [f"tiny.shards/{shard:04}-of-0002.h5"]),
            Scenario("merge", self.merge(), SOME_FAILED, ["tiny.shards"], ["tiny.h5"]),
            Scenario("merge-again", self.merge(), SOME_FAILED, ["tiny.shards", "tiny.h5"], ["tiny.h5"]),
            Scenario("classify", self.classify(), DONE, ["tiny.h5"], ["run"]),
            Scenario("classify-again", self.classify("knn"), DONE, ["tiny.h5", "run"], ["run"]),
        ]

    def failed_of(self, index):
        with compare_stores.h5py.File(self.template / f"tiny.shards/{index:04}-of-0002.h5") as store:
            return store["failures/id"].asstr()[:].tolist()

    def succeed(self, command, directory, code):
        directory.mkdir(parents=True, exist_ok=True)
        output = run(command, directory)
        check(output.returncode == code, f"{command[0].name}: exit code {output.returncode}, not {code}: {output.stderr}")

    def workspace(self, scenario, name):
        """A directory with the inputs of a scenario."""
        directory = self.work / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        (directory / "clips").symlink_to(self.template / "clips")
        for name in scenario.inputs:
            source, target = self.template / name, directory / name
            target.parent.mkdir(exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
        return directory

    def faulty(self, scenario, directory, call, action, kinds=""):
        log = directory.with_suffix(".log")
        log.unlink(missing_ok=True)
        environment = {
            "LD_PRELOAD": str(self.library), "FAULT_DIRECTORY": str(directory), "FAULT_CALL": str(call), "FAULT_ACTION": action,
            "FAULT_CALLS": kinds, "FAULT_LOG": str(log),
        }
        output = run(scenario.command, directory, environment)
        return output, log.read_text().splitlines() if log.exists() else []

    def differences(self, scenario, directory, reference):
        found = []
        for name in scenario.outputs:
            left, right = reference / name, directory / name
            if not right.exists():
                found.append(f"{name} is missing")
            elif right.is_dir():
                found += compare_runs.differences(left, right)
            else:
                found += store_differences(left, right)
        return found

    def undisturbed(self, scenario):
        """Runs a program without a fault. Returns its directory, the names of the files in it, and the calls."""
        reference = self.workspace(scenario, f"{scenario.name}-reference")
        output, calls = self.faulty(scenario, reference, 0, "")
        check(output.returncode == scenario.code, f"{scenario.name}: exit code {output.returncode}: {output.stderr}")
        return reference, names(reference), calls

    def test(self, scenario):
        """All faults of a scenario. Returns the problems."""
        reference, expected, calls = self.undisturbed(scenario)
        problems, attempts = [], 0
        attempted = [(number, action) for number, call in enumerate(calls, 1) for action in [*ACTIONS[call.split()[0]], "kill"]]

        def attempt(job):
            number, action = job
            directory = self.workspace(scenario, f"{scenario.name}-{number}-{action.replace(' ', '-')}")
            try:
                found = self.attempt(scenario, directory, number, action, reference, expected)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
                directory.with_suffix(".log").unlink(missing_ok=True)
            return found

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for found in pool.map(attempt, attempted):
                attempts += 1
                problems += found
        print(f"test-faults: {scenario.name}: {len(calls)} calls, {attempts} faults, {len(problems)} problems", flush=True)
        return problems

    def attempt(self, scenario, directory, number, action, reference, expected):
        problems = []
        output, call = self.faulty(scenario, directory, number, action)
        if not call:
            return []  # Threads made fewer calls this time.
        kind, name, path = call[0].split(" ", 2)
        path = path.replace(str(directory) + "/", "")
        where = f"{scenario.name}: call {number}, {name} {path}, {action}"

        def problem(text):
            problems.append(f"{where}: {text}")

        code, message = output.returncode, output.stderr
        if action == "kill":
            if code != KILLED:
                problem(f"exit code {code}")
        elif code == scenario.code and not self.differences(scenario, directory, reference):
            pass  # The call was not needed.
        elif code != ERROR:
            problem(f"exit code {code}: {message}")
        else:
            number = int(action.split()[-1])
            last = message.strip().splitlines()[-1] if message.strip() else ""
            if not re.search(CAUSES[number], message):
                problem(f"the message does not have the cause: {message}")
            if not any(part in message for part in (path, pathlib.Path(path).parent.name or ".", *self.outputs_of(scenario))):
                problem(f"the message does not name the file: {message}")
            if "panicked" in message or len(last) > 400:
                problem(f"no clear message: {message}")
        # The status is readable, and outputs are complete or absent.
        if (directory / "tiny.shards" / "shards.json").exists():
            status = run(self.program("status", "tiny.shards", "--json"), directory)
            if status.returncode != DONE:
                problem(f"status: exit code {status.returncode}: {status.stderr}")
        for name in scenario.outputs:
            result = directory / name
            if result.is_dir() and (result / "metrics.json").exists():
                found = compare_runs.differences(reference / name, result)
                # The run before is a copy, whose files name the directory in which it was made.
                unchanged = name in scenario.inputs and contents(self.template / name) == contents(result)
                if found and not unchanged:
                    problem(f"{name} has a metrics.json, but is incomplete: {found}")
            elif result.is_file():
                found = store_differences(reference / name, result)
                before = store_differences(self.template / name, result) if name in scenario.inputs else found
                if found and before:
                    problem(f"{name} is incomplete: {found}")
        # The same command succeeds now.
        output = run(scenario.command, directory)
        if output.returncode != scenario.code:
            problem(f"again, without the fault: exit code {output.returncode}: {output.stderr}")
        found = self.differences(scenario, directory, reference)
        if found:
            problem(f"again, without the fault: {found}")
        remaining = [name for name in names(directory) if name not in expected and not (action == "kill" and "/.writing-" in f"/{name}")]
        if remaining:
            problem(f"again, without the fault: {remaining} remain")
        return problems

    def settle(self, scenario, directory, reference, expected, where):
        """Runs the program to its end. Returns what differs from the undisturbed run."""
        output = run(scenario.command, directory)
        problems = [] if output.returncode == scenario.code else [f"{where}: exit code {output.returncode}: {output.stderr}"]
        problems += [f"{where}: {found}" for found in self.differences(scenario, directory, reference)]
        remaining = [name for name in names(directory) if name not in expected and "/.writing-" not in f"/{name}"]
        return problems + ([f"{where}: {remaining} remain"] if remaining else [])

    def test_clock(self, scenario):
        """The clock is moved back by an hour: during the run, and between a run that is killed and the next one."""
        reference, expected, calls = self.undisturbed(scenario)
        problems = []
        for name, moment in (("during the run", 0.2), ("after a kill", None)):
            where = f"{scenario.name}: clock moved back {name}"
            directory = self.workspace(scenario, f"{scenario.name}-clock")
            if moment is None:
                self.faulty(scenario, directory, len(calls) * 2 // 3, "kill")
                time.sleep(1.1)
            environment = {"LD_PRELOAD": str(self.library), "FAULT_CLOCK": f"{int(time.time() + (1 if moment else 0))} -3600"}
            if moment:
                # The clock has whole seconds here.
                time.sleep(max(0, int(time.time()) + 1 - moment - time.time()))
            output = run(scenario.command, directory, environment)
            if output.returncode != scenario.code:
                problems.append(f"{where}: exit code {output.returncode}: {output.stderr}")
            if (directory / "tiny.shards" / "shards.json").exists():
                status = run(self.program("status", "tiny.shards"), directory, environment)
                if status.returncode != DONE:
                    problems.append(f"{where}: status: {status.stderr}")
            problems += [f"{where}: {found}" for found in self.differences(scenario, directory, reference)]
            problems += self.settle(scenario, directory, reference, expected, where)
            shutil.rmtree(directory)
        print(f"test-faults: {scenario.name}: clock, {len(problems)} problems", flush=True)
        return problems

    def test_rivals(self, scenario, rounds=10):
        """Two processes with the same output. One may be refused, with a message; the output is that of an undisturbed run."""
        reference, expected, _ = self.undisturbed(scenario)
        problems, refused = [], 0
        for number in range(rounds):
            where = f"{scenario.name}: two processes, round {number}"
            directory = self.workspace(scenario, f"{scenario.name}-rivals")
            command = list(map(str, scenario.command))
            processes = []
            for _ in range(2):
                processes.append(subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
                time.sleep(number * 0.02)
            results = [(process.communicate()[1], process.returncode) for process in processes]
            if all(code != scenario.code for _, code in results):
                problems.append(f"{where}: both failed: {results}")
            for message, code in results:
                if code != scenario.code:
                    refused += 1
                    if code != ERROR or not re.search("works on this|another process|No such file", message):
                        problems.append(f"{where}: exit code {code}: {message}")
            problems += [f"{where}: {found}" for found in self.differences(scenario, directory, reference)]
            problems += self.settle(scenario, directory, reference, expected, where)
            shutil.rmtree(directory)
        print(f"test-faults: {scenario.name}: two processes, {rounds} rounds, {refused} refused, {len(problems)} problems", flush=True)
        return problems

    @staticmethod
    def outputs_of(scenario):
        return [pathlib.Path(name).name for name in scenario.outputs]


def store_differences(left, right):
    """The names of the datasets and attributes that differ, except those that compare_stores.py ignores."""
    found = []
    try:
        with compare_stores.h5py.File(left) as a, compare_stores.h5py.File(right) as b:
            for items in (compare_stores.datasets, compare_stores.attributes):
                x, y = items(a), items(b)
                for name in sorted(x.keys() | y.keys()):
                    ignored = name.lstrip("@") in compare_stores.IGNORED
                    if not ignored and (name not in x or name not in y or compare_stores.content(x[name]) != compare_stores.content(y[name])):
                        found.append(f"{right.name}: {name} differs")
    except OSError as error:
        found.append(f"{right}: {error}")
    return found


def contents(directory):
    """The bytes of the files of a directory by their names."""
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=pathlib.Path, metavar="PROGRAMS")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--only", choices=["test", "test_clock", "test_rivals"], help="one kind of test: faults, clock or two processes")
    arguments = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="kinoprobe-faults-"))
    began = time.monotonic()
    try:
        faults = Faults(arguments.programs, work)
        faults.prepare()
        problems = []
        for scenario in faults.scenarios():
            if not arguments.scenarios or scenario.name in arguments.scenarios:
                for test in (faults.test_rivals, faults.test_clock, faults.test):
                    if arguments.only in (None, test.__name__):
                        found = test(scenario)
                        for problem in found:
                            print(f"test-faults: {problem.strip()}", file=sys.stderr, flush=True)
                        problems += found
    except Failed as failure:
        problems = [str(failure)]
        print(f"test-faults: {failure}", file=sys.stderr)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"test-faults: {'FAILED' if problems else 'passed'} in {time.monotonic() - began:.0f} s")
    raise SystemExit(1 if problems else 0)


if __name__ == "__main__":
    main()
