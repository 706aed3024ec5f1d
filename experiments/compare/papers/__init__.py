"""Tables that papers printed, as data, with the conditions they state."""

from experiments.compare.papers.tables import (
    Column,
    Published,
    Table,
    load_tables,
    published,
)

__all__ = ["Column", "Published", "Table", "load_tables", "published"]
