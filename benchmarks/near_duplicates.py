"""Time and memory of the search for near-duplicates among the prompts of a file.

python benchmarks/near_duplicates.py ROWS.jsonl
"""

from __future__ import annotations

import argparse
import resource
import time

from tutelage.data import formats, sources
from tutelage.data.repeats.dedup import NearDuplicates
from tutelage.data.split import asked
from tutelage.recipe import Source
from tutelage.types import Record


def main() -> None:
    """Read the prompts, search, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    given = parser.parse_args()
    records = [item for item in sources.read(Source(path=given.path)) if isinstance(item, Record)]
    format = formats.detect(formats.sample(records), source=given.path)
    prompts = ["\n".join(asked(formats.parse(record, format))) for record in records]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    search = NearDuplicates(threshold=0.8, words=3)
    for prompt in prompts:
        search.add(prompt)
    groups = search.groups()
    seconds = time.perf_counter() - start
    alike = sum(int(first) != number for number, first in enumerate(groups))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{len(prompts):,} prompts in {seconds:.2f} s; {alike:,} like an earlier one; {grown:.0f} MiB more memory")


if __name__ == "__main__":
    main()
