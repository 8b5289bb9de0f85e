from __future__ import annotations

import math

from schemas.training_log import TrainingLog


def test_the_best_epoch_is_the_one_with_the_greatest_auc_or_the_least_loss():
    history = {"val_auc": [0.6, math.nan, 0.7, 0.7], "val_log_loss": [0.5, 0.4, 0.6, 0.45]}
    assert TrainingLog.from_history(history, "val_auc").best_epoch == 3
    assert TrainingLog.from_history(history, "val_log_loss").best_epoch == 2


def test_json_holds_every_epoch_and_no_nan():
    log = TrainingLog.from_history({"loss": [0.7, 0.6], "val_auc": [0.5, math.nan]}, "val_auc", "warm start")
    assert log.start == "warm start"
    assert log.epochs == ({"loss": 0.7, "val_auc": 0.5}, {"loss": 0.6, "val_auc": None})
    assert TrainingLog.from_json(log.to_json()) == log
