"""How well the models rank and calibrate on MovieLens-100K: AUC and log loss of this project's and of three peers'.

`make bench-quality`, or `python -m benchmarks.quality [SECTION ...]`; writes `benchmarks/results/quality.json`. Figures
are means of three seeds, on the same rows, with the same features in the same buckets (`quality_data.py`); the AUC is
exact. No epoch and no setting was chosen for its eval figures; one was seen too early, see `terms`. How settings were
chosen: `docs/adr/0027-what-was-known-before.md`.

`terms`: the temporal split. LR, FM, DNN and DeepFM of this project, and the peers' DeepFM (`quality_peers`): dim 8,
tower (64, 32), Adam at 1e-3, batches of 1024, the weights after epoch 3: `ModelConfig`'s and `TrainingConfig`'s
defaults. That the FM term pairs the fields' pooled vectors and factors start from N(0, 1e-4^2), both as in the peers,
became the defaults after others (all positions, N(0, .01^2)) had been measured on the eval rows, with an AUC of .711;
the validation folds say the same.

`described`: the same without what was skipped and counted before an impression: the features of the first release.

`config`: the temporal split. The packaged config, on both sets of features, at the number of epochs with the best mean
log loss on three folds, a seed each. A fold's validation rows are a slice of 10,000 rows by time, of the 30,000 before
the eval rows; its training rows are all rows before them. Then the model learns from all training rows.

`random`: RecBole's published setting for its LR (AUC 0.7765, log loss 0.562), on the very rows of these figures: its
draw of the split is repeated (`quality_data.recbole_permutation`). Models learn from its 80% only; the number of epochs
has the best mean log loss on three folds of the rows that are not eval rows, the published validation 10% among them.
`draws`: one seed on four more draws, with the same number of epochs: how much of a figure is the draw's.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import results
from benchmarks.environments import run_module
from benchmarks.quality_data import RECBOLE_SEED, Rows, Setting, load_setting
from benchmarks.quality_models import Figures, best_epoch, fit, logits_of, measure
from pipeline.config import load_config
from trainer.config import ModelConfig, TrainingConfig

SEEDS = (1, 2, 3)
DRAWS = (2021, 2022, 2023, 2024)
NUM_EPOCHS = 3
MAX_EPOCHS = 30
PATIENCE = 3
PEERS = {"DeepCTR": "deepctr/deepctr", "DeepCTR-Torch": "torch/deepctr_torch", "FuxiCTR": "torch/fuxictr"}

TERMS = {
    "LR": ModelConfig(use_fm=False, use_deep=False),
    "FM": ModelConfig(use_deep=False),
    "DNN": ModelConfig(use_linear=False, use_fm=False),
    "DeepFM": ModelConfig(),
}
RANDOM = {
    "LR": (ModelConfig(use_fm=False, use_deep=False), TrainingConfig(learning_rate=0.01)),
    "DeepFM": (
        ModelConfig(embedding_stddev=0.01, embedding_l2=0.03),
        TrainingConfig(batch_size=512, average_from=6),
    ),
}


def run_terms(name: str = "temporal") -> dict[str, Any]:
    """Measures the section `terms`."""
    setting = load_setting(name)
    figures = {
        f"ours: {name}": train_and_measure(setting, setting.train, config, TrainingConfig(), NUM_EPOCHS)
        for name, config in TERMS.items()
    }
    return figures | {name: run_peer(name, setting) for name in PEERS}


def run_described() -> dict[str, Any]:
    """Measures the section `described`."""
    return run_terms("described")


def run_config() -> dict[str, Any]:
    """Measures the section `config`."""
    packaged = load_config(None)
    figures = {}
    for name, features in (("temporal", "packaged"), ("described", "packaged, without what was known before")):
        setting = load_setting(name)
        figures[features] = choose_epochs_and_measure(setting, setting.train, packaged.model, packaged.training)
    return figures


def run_random() -> dict[str, Any]:
    """Measures the section `random`."""
    setting = load_setting(f"random-{RECBOLE_SEED}")
    train, _ = setting.folds[-1]
    return {name: choose_epochs_and_measure(setting, train, *pair) for name, pair in RANDOM.items()}


def run_draws() -> dict[str, Any]:
    """Measures the section `draws`, with the numbers of epochs of the section `random`."""
    random = results.read_figures("quality")["random"]
    figures = {}
    for name, (model_config, config) in RANDOM.items():
        runs = []
        for draw in DRAWS:
            setting = load_setting(f"random-{draw}")
            train, _ = setting.folds[-1]
            model, _ = fit(setting.spec, model_config, config, train, random[name]["epochs"])
            runs.append(measure(setting.eval.labels, logits_of(model, setting.eval)))
        figures[name] = summarize(runs)
    return figures


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "terms": run_terms,
    "described": run_described,
    "config": run_config,
    "random": run_random,
    "draws": run_draws,
}


def choose_epochs_and_measure(
    setting: Setting, train: Rows, model_config: ModelConfig, config: TrainingConfig
) -> dict[str, Any]:
    """Chooses the number of epochs on the folds, then measures models that learned from `train` on the eval rows."""
    runs = [
        fit(setting.spec, model_config, dataclasses.replace(config, seed=seed), rows, MAX_EPOCHS, validation, PATIENCE)[
            1
        ]
        for seed, (rows, validation) in zip(SEEDS, setting.folds, strict=True)
    ]
    num_epochs, validation = best_epoch(runs)
    figures = train_and_measure(setting, train, model_config, config, num_epochs)
    return figures | {"epochs": num_epochs, "validation": _rounded(dataclasses.asdict(validation))}


def train_and_measure(
    setting: Setting, train: Rows, model_config: ModelConfig, config: TrainingConfig, num_epochs: int
) -> dict[str, Any]:
    """Returns the eval rows' figures of three models, one a seed."""
    runs = []
    for seed in SEEDS:
        seeded = dataclasses.replace(config, seed=seed)
        model, _ = fit(setting.spec, model_config, seeded, train, num_epochs)
        runs.append(measure(setting.eval.labels, logits_of(model, setting.eval)))
    return summarize(runs)


def run_peer(name: str, setting: Setting) -> dict[str, Any]:
    """Returns the eval rows' figures of a peer's three models.

    Raises:
        ChildError: The peer's environment has not been made, or it failed.
    """
    environment, module = PEERS[name].split("/")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            scores = f"{folder}/{seed}.npy"
            run_module(environment, f"benchmarks.quality_peers.{module}", str(setting.file), str(seed), scores)
            rates = np.clip(np.load(scores), 1e-7, 1 - 1e-7)  # [num_rows]
            runs.append(measure(setting.eval.labels, np.log(rates / (1 - rates))))
    return summarize(runs)


def summarize(runs: Sequence[Figures]) -> dict[str, Any]:
    """Returns mean and spread (greatest less least) of the runs' figures, and these themselves."""
    summary: dict[str, Any] = {}
    for name in ("auc", "log_loss"):
        values = [getattr(run, name) for run in runs]
        summary[name] = float(np.mean(values))
        summary[f"{name}_spread"] = max(values) - min(values)
        summary[f"{name}_runs"] = values
    return _rounded(summary)


def find_goals(figures: dict[str, dict[str, Any]]) -> list[results.Goal]:
    """Returns the goals of the sections that have been measured, met or missed."""
    goals: list[results.Goal] = []

    def add(name: str, goal: str, measured: Any, met: bool) -> None:
        goals.append(results.Goal(name, goal, measured, bool(met)))

    for section, features in (("terms", ""), ("described", ", without what was known before")):
        if not (terms := figures.get(section)):
            continue
        ours = {name: terms[f"ours: {name}"]["auc"] for name in ("LR", "FM", "DeepFM")}
        best = max(terms[name]["auc"] for name in PEERS)
        best_loss = min(terms[name]["log_loss"] for name in PEERS)
        add(f"each term helps{features}", "AUC of LR < FM < DeepFM", ours, ours["LR"] < ours["FM"] < ours["DeepFM"])
        add(f"DeepFM against peers{features}", f"AUC >= {best}, the best's", ours["DeepFM"], ours["DeepFM"] >= best)
        for name, found in figures.get("config", {}).items():
            if (section == "terms") == (name == "packaged"):  # with the same features
                goal = round(best + 0.01, 5)
                against = f"{name} config against peers{features}"
                add(f"{against}, AUC", f">= {goal}, the best's + 0.01", found["auc"], found["auc"] >= goal)
                met = found["log_loss"] < best_loss
                add(f"{against}, log loss", f"< {best_loss}, the best's", found["log_loss"], met)
    if random := figures.get("random"):
        found = random["DeepFM"]
        add("RecBole's rows, DeepFM, AUC", ">= 0.7865, its LR's + 0.01", found["auc"], found["auc"] >= 0.7865)
        met = found["log_loss"] <= 0.552
        add("RecBole's rows, DeepFM, log loss", "<= 0.552, its LR's - 0.01", found["log_loss"], met)
    return goals


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [round(item, 5) for item in value] if isinstance(value, list) else round(value, 5)
        for name, value in values.items()
    }


def main(sections: Sequence[str]) -> None:
    """Measures the sections, all by default, and puts them into the results file beside those that are there."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for section in sections or SECTIONS:
        measured = SECTIONS[section]()
        for name, found in measured.items():
            print(f"{section:9} {name:24} AUC {found['auc']:.4f} log loss {found['log_loss']:.4f}", flush=True)
        figures = results.read_figures("quality") | {section: measured}
        results.report("quality", figures, find_goals(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
