"""Why prepared data is refused: malformed rows, too many of them, or rows that are too long."""

from __future__ import annotations

from typing import Any

import numpy as np

from tutelage.data.store import Store
from tutelage.errors import DataError, Problem, TutelageError
from tutelage.recipe import DataOptions


def refuse_bad_rows(problems: list[Problem], facts: dict[str, Any], options: DataOptions) -> None:
    """Do what the recipe says about malformed rows.

    Raises:
        TutelageError: the first ten of them, when the policy is to stop; data/too-many-dropped.
    """
    if not problems:
        return
    rows = facts["items"]
    if options.on_bad_row == "stop":
        shown = problems[:10]
        more = len(problems) - len(shown)
        note = (
            Problem(
                problems[-1].code,
                f"{more:,} more rows have a problem, {len(problems):,} of {rows:,} in all",
                where=f"the last at {problems[-1].where}",
                fix="data.on_bad_row=quarantine sets bad rows aside, up to data.max_quarantined of all rows",
            ),
        )
        raise TutelageError.of([*shown, *(note if more else ())])
    if len(problems) > options.max_quarantined * rows:
        raise DataError(
            Problem(
                "data/too-many-dropped",
                f"{len(problems):,} of {rows:,} rows are bad, more than data.max_quarantined allows",
                where=", ".join(p.where for p in problems[:5]),
                found=f"{len(problems) / rows:.1%}; the limit is {options.max_quarantined:.1%}",
                fix="mend the rows, or raise data.max_quarantined",
            ),
            *problems[:5],
        )


def over_long_error(store: Store, limit: int) -> DataError:
    """Make the error for rows that are longer than the limit, with the lengths that there are."""
    over_long: list[tuple[str, int, int]] = store.facts["over_long"]
    lengths = [*store.lengths.tolist(), *(length for _, _, length in over_long)]
    quantiles = ", ".join(f"{q} % up to {int(np.percentile(lengths, q)):,}" for q in (50, 90, 99))
    places = ", ".join(f"{file}:{line}" for file, line, _ in over_long[:5])
    count: int = store.facts["ledger"]["dropped"]["over-long"]
    more = f" and {count - 5:,} more" if count > 5 else ""
    return DataError(
        Problem(
            "data/over-long",
            f"{count:,} of {store.facts['items']:,} rows are longer than data.max_length = {limit:,} tokens",
            where=places + more,
            found=f"lengths in tokens: {quantiles}, the longest {max(lengths):,}",
            why="cutting a row would cut its answer and its stop token",
            fix=f"data.max_length={max(lengths)} keeps every row; data.over_long=drop drops and counts them; "
            "data.over_long=trim-context leaves early turns out, then the middle of long messages",
        )
    )
