"""Validates pipelines/kubernetes: the schemas of Kubernetes, and the rules of Jobs and pods that schemas do not express.

Run by `make test-kubernetes`. Renders the directories as `kubectl apply -k` does; nothing is sent to a cluster.
"""

import copy
import pathlib
import re
import shutil
import subprocess
import sys

import kubernetes_validate
import yaml

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "pipelines/kubernetes"
# backoffLimitPerIndex and podFailurePolicy are enabled by default since 1.29.
VERSIONS = ["1.29", "1.31", "1.33", "1.35", "1.37"]


def render(directory):
    """Returns the objects of a directory with a kustomization.yaml."""
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
    if not shutil.which(command[0]):
        sys.exit("test-kubernetes: kubectl is missing: install kubectl 1.27 or newer, or kustomize 5")
    result = subprocess.run([*command, directory], capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"test-kubernetes: {directory}: {result.stderr}")
    return list(yaml.safe_load_all(result.stdout))


def check_policy(spec, containers):
    """Returns what the API server would refuse about a podFailurePolicy.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy and ValidateJobSpec in Kubernetes'
    pkg/apis/batch/validation/validation.go.
    """
    policy = spec.get("podFailurePolicy")
    if policy is None:
        return
    if spec["template"]["spec"].get("restartPolicy") != "Never":
        yield "podFailurePolicy requires restartPolicy Never"
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "podFailurePolicy requires podReplacementPolicy Failed"
    if len(policy["rules"]) > 20:
        yield "more than 20 rules"
    for rule in policy["rules"]:
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in spec:
            yield "FailIndex requires backoffLimitPerIndex"
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield "a rule needs either onExitCodes or onPodConditions"
        if codes := rule.get("onExitCodes"):
            values = codes["values"]
            if not 1 <= len(values) <= 255 or values != sorted(set(values)):
                yield f"exit codes must be sorted and unique: {values}"
            if codes["operator"] == "In" and 0 in values:
                yield "exit code 0 is not a failure"
            if codes.get("containerName", containers[0]) not in containers:
                yield f"no container {codes['containerName']}"


def check_job(job):
    """Returns what is wrong with a Job."""
    spec = job["spec"]
    indexed = spec.get("completionMode") == "Indexed"
    pod = spec["template"]["spec"]
    yield from check_policy(spec, [container["name"] for container in pod.get("initContainers", []) + pod["containers"]])
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        yield "restartPolicy of a Job is Never or OnFailure"
    if "backoffLimitPerIndex" in spec and not indexed:
        yield "backoffLimitPerIndex requires completionMode Indexed"
    if "maxFailedIndexes" in spec and "backoffLimitPerIndex" not in spec:
        yield "maxFailedIndexes requires backoffLimitPerIndex"
    if indexed and not ("completions" in spec and 0 < spec["parallelism"] <= spec["completions"]):
        yield "an Indexed Job needs completions, and at most as many pods at a time"
    if spec.get("maxFailedIndexes", 0) > spec.get("completions", 1):
        yield "maxFailedIndexes exceeds completions"
    shards = {int(n) for container in pod["containers"] for n in re.findall(r"--shard=auto/(\d+)", " ".join(container["args"]))}
    if shards != ({spec["completions"]} if indexed else set()):
        yield f"--shard=auto/N with N in {shards}, but {spec.get('completions')} completions"
    yield from check_pod(pod)


def check_pod(pod):
    """Returns what the restricted Pod Security Standard, and a read-only root file system, do not allow."""
    context = pod.get("securityContext", {})
    if not (context.get("runAsNonRoot") and context.get("runAsUser")):
        yield "runs as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "privileges are not dropped"
        if not own.get("readOnlyRootFilesystem"):
            yield "the root file system is writable"
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        if not mounts.keys() <= volumes:
            yield f"mounts unknown volumes: {mounts.keys() - volumes}"
        paths = [entry["value"] for entry in container["env"] if entry["value"].startswith("/")]
        paths += re.findall(r"/[\w./]+", " ".join(re.sub(r"auto/\d+", "", argument) for argument in container["args"]))
        for path in paths:
            if not any(path == mount or path.startswith(mount + "/") for mount in mounts.values()):
                yield f"{path} is not on a volume"
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        if requests["memory"] != limits["memory"]:
            yield "the memory that is requested differs from the limit: the pod may be killed for the memory of others"


def check(obj):
    """Returns all problems of an object."""
    problems = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(obj, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"schema of {version}: {error.message}")
    yield from problems
    if obj["kind"] == "Job" and not problems:
        yield from check_job(obj)


def check_mutations(job):
    """Asserts that a wrong job is refused, so that the checks above are known to work."""

    def refused(expected, change):
        wrong = copy.deepcopy(job)
        change(wrong["spec"])
        problems = list(check(wrong))
        assert any(expected in problem for problem in problems), (expected, problems)

    def rule(**values):
        return lambda spec: spec["podFailurePolicy"]["rules"].append(values)

    def exit_codes(*values, name="kinoprobe"):
        return {"containerName": name, "operator": "In", "values": list(values)}

    container = lambda spec: spec["template"]["spec"]["containers"][0]
    refused("schema", lambda spec: spec.update(completionsMode="Indexed"))
    refused("schema", lambda spec: spec.update(completions="16"))
    refused("schema", lambda spec: container(spec)["resources"].update(request={}))
    refused("restartPolicy Never", lambda spec: spec["template"]["spec"].update(restartPolicy="OnFailure"))
    refused("completionMode Indexed", lambda spec: spec.pop("completionMode"))
    refused("maxFailedIndexes requires", lambda spec: spec.pop("backoffLimitPerIndex"))
    refused("sorted and unique", rule(action="Ignore", onExitCodes=exit_codes(143, 130)))
    refused("sorted and unique", rule(action="Ignore", onExitCodes=exit_codes(130, 130)))
    refused("exit code 0", rule(action="Ignore", onExitCodes=exit_codes(0, 130)))
    refused("no container", rule(action="Ignore", onExitCodes=exit_codes(1, name="other")))
    refused("either", rule(action="Count"))
    refused("15 completions", lambda spec: spec.update(completions=15))
    refused("as many pods", lambda spec: spec.update(parallelism=17))
    refused("not on a volume", lambda spec: container(spec)["args"].append("--models=/models"))
    refused("is writable", lambda spec: container(spec)["securityContext"].pop("readOnlyRootFilesystem"))
    fail_index = {"action": "FailIndex", "onExitCodes": exit_codes(1)}
    refused("FailIndex", lambda spec: (spec.pop("backoffLimitPerIndex"), spec["podFailurePolicy"]["rules"].append(fail_index)))


def main():
    objects = {"volume.yaml": list(yaml.safe_load_all((DIRECTORY / "volume.yaml").read_text()))}
    objects |= {path.parent.name: render(path.parent) for path in sorted(DIRECTORY.glob("*/kustomization.yaml"))}
    failed = False
    for name, rendered in objects.items():
        for obj in rendered:
            problems = list(check(obj))
            failed |= bool(problems)
            print(f"{name}: {obj['kind']} {obj['metadata']['name']}: {'; '.join(problems) or 'valid'}")
    (extract,), (gpu,) = objects["extract"], objects["extract-gpu"]
    container = gpu["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1" and "--device=cuda" in container["args"]
    # Apart from that, both are the same.
    container["resources"]["limits"].pop("nvidia.com/gpu")
    container["args"].remove("--device=cuda")
    container["image"] = container["image"].removesuffix("-cuda")
    assert gpu == extract
    check_mutations(extract)
    sys.exit("test-kubernetes: FAILED" if failed else None)


main()
