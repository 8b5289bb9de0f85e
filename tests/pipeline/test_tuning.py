from __future__ import annotations

import json

from pipeline.tuning import Tuned, read_tuned


def test_the_best_trial_is_told_beside_the_configs_own(tmp_path):
    trials = [
        {"trial_id": "02", "score": 0.75, "dropout": 0.0, "hidden_units": "[64, 32]"},
        {"trial_id": "00", "score": 0.5, "dropout": 0.5, "hidden_units": "[4]"},
        {"trial_id": "03", "score": 0.25, "dropout": 0.1, "hidden_units": "[4]"},
    ]
    (tmp_path / "tuner_results.json").write_text(json.dumps(trials), encoding="utf-8")
    assert read_tuned(str(tmp_path), "auc") == Tuned(
        trials=3, monitor="auc", config=0.5, best=0.75, values={"dropout": 0.0, "hidden_units": (64, 32)}
    )
