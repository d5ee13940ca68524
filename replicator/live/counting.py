"""Where the deletes of all workers are counted, for the brake."""

from __future__ import annotations

from collections.abc import Mapping

from replicator.catalogue.place import catalogue_url, is_configured
from replicator.live.brake import DeleteCounter, MemoryCounter


def counter_for(environment: Mapping[str, str], catalog: str | None = None) -> DeleteCounter:
    """The table of DynamoDB that BRAKE_TABLE names, else the catalogue if there is one, else this process by itself.

    catalog: the catalogue's URL, if not of the environment. Raises ConfigurationError for a bad place.
    """
    table = environment.get("BRAKE_TABLE")
    if table:
        from replicator.aws.delete_counter import DynamoDeleteCounter

        return DynamoDeleteCounter(table)
    if is_configured(catalog, environment):
        from replicator.catalogue.database import Database  # brings a database along
        from replicator.catalogue.delete_counter import CatalogueDeleteCounter

        return CatalogueDeleteCounter(Database(catalogue_url(catalog, environment)))
    return MemoryCounter()
