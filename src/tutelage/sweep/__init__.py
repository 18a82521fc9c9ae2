"""A grid of runs, and which of them is best: `tutelage sweep`.

    arguments ── grid ──> Setting ── field ──> Trial (a run folder) ── halving, process ──> measured
    ── standing ──> differences with intervals ── table ──> rows and the sentence ── page ──> sweep.html

Each run is a process and a folder of its own, which any other command reads like any other run. All share one store
of encoded rows. Nothing but `sweep.json` is kept of the sweep itself: how far it is follows from the run folders.
"""

from __future__ import annotations

from tutelage.sweep.tournament import Sweep

__all__ = ["Sweep"]
