"""The harness itself: the job is as it must be, and a difference is found."""

from __future__ import annotations

import json

import jobs
import pytest
from harness import job


@pytest.mark.parametrize("variant", jobs.VARIANTS)
def test_the_job_is_the_one_that_is_asked_for(variant):
    """60 steps, two epochs with ragged ends, several micro-batches, dropout, evaluations in between."""
    r60 = job(variant)
    run = r60.root / f"{variant}-reference" / "run"
    assert r60.reference["steps"] == 60
    trained = r60.reference["ledger"]["trained"]
    assert trained % jobs.BATCH == 2
    assert 2 * -(-trained // jobs.BATCH) == 60
    tokens = [line["computed_tokens"] for line in r60.reference["metrics.jsonl"]]
    assert [line["step"] for line in r60.reference["evaluations.jsonl"]] == [0, 12, 24, 36, 48, 60, 60]
    budget = json.loads((run / "plan.json").read_text("utf-8"))["token_budget"]
    assert sum(count > budget for count in tokens) >= 55  # nearly every step has several micro-batches
    r60.same(r60.root / f"{variant}-reference")
