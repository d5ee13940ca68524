"""Opens the catalogue for whoever fills it, and says what a route is called in it."""

from __future__ import annotations

from collections.abc import Mapping

from replicator.catalogue.catalogue import Catalogue, open_catalogue
from replicator.catalogue.place import catalogue_url, spool_path
from replicator.catalogue.report import CatalogueReport
from replicator.logs import logger
from replicator.settings import Settings
from replicator.sides import Side, names_of


def catalogue_for(option: str | None, environment: Mapping[str, str]) -> Catalogue:
    """The catalogue of catalogue_url(), with a spool; outages are logged. Raises ConfigurationError for a bad place."""
    url = catalogue_url(option, environment)
    return open_catalogue(url, spool=spool_path(url, environment), warn=logger.warning)


def route_name(source: str, target: Side) -> str:
    """A route in words, which tell buckets of one name at two endpoints apart."""
    return f"{source} -> {_place(target)}"


def reports_for(catalogue: Catalogue, settings: Settings) -> list[CatalogueReport]:
    """What records the outcomes of a run between buckets: a route for each target."""
    source = _place(settings.source)
    named = zip(settings.targets, names_of(settings.targets), strict=True)
    return [CatalogueReport(catalogue, route_name(source, side), target=name) for side, name in named]


def _place(side: Side) -> str:
    return side.location + (f" at {side.endpoint}" if side.endpoint else "")
