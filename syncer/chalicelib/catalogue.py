"""Notes what became of every key in a catalogue, where the function's own variables name a database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from replicator.catalogue.place import is_configured
from replicator.model import Outcome
from replicator.settings import Settings


def recorder(environment: Mapping[str, str], routes: Sequence[Settings]) -> Callable[[Sequence[Outcome]], None]:
    """What takes the outcomes of a batch, and forgets them where there is neither DATABASE_URL nor DB_HOST.

    A database that is away stops nothing.
    """
    if not is_configured(None, environment):
        return lambda _: None
    from replicator.catalogue.opening import catalogue_for, reports_for  # not in the package unless somebody adds it

    catalogue = catalogue_for(None, environment)
    reports = [report for route in routes for report in reports_for(catalogue, route)]

    def record(outcomes: Sequence[Outcome]) -> None:
        for report in reports:
            for outcome in outcomes:
                report.add(outcome)
            report.flush()

    return record
