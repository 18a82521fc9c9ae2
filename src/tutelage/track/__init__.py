"""Trackers are followers: processes of their own that read what the run writes down and pass it on.

    trainer ──> metrics.jsonl, evaluations.jsonl, result.json ──> follower ──> W&B, MLflow, TensorBoard or trackio
       └─ looks whether its followers live, and never waits for them but at the end, for a few seconds

Nothing that a tracker does can reach the trainer: no code of a tracker is loaded there, and no socket opened. How far
a follower came stands in `track/NAME.json` of the run folder, so that another goes on from there: each point arrives
once, however often a follower or the run itself was broken off.
"""

from __future__ import annotations

from tutelage.track.catching_up import catch_up
from tutelage.track.followers import Followers, start
from tutelage.track.packages import refuse_missing

__all__ = ["Followers", "catch_up", "refuse_missing", "start"]
