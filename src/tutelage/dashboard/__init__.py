"""The report's page while a run is made, served to browsers on this machine: `tutelage dashboard`.

    folders ── sight ──> runs by their ids, and a version of each ── views ──> pages
    request ── gate ──> refused, let in, or answered ── server ──> a page, with headers that forbid everything else

Default is no: a request is answered only where its method, host, origin, cookie and address are each on a list. No
part of it is ever used as a path. Run folders are only read, and no lock is taken.
"""

from __future__ import annotations

from tutelage.dashboard.server import Dashboard

__all__ = ["Dashboard"]
