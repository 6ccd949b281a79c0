"""The schema in PostgreSQL, as numbered migrations: a module per group of tables.

A migration that was released is never edited: a change of the schema is one more at the end.
"""

from llcuda_net.storage.postgres.migrations.migration import Migration as Migration
from llcuda_net.storage.postgres.migrations.schema import MIGRATIONS as MIGRATIONS
from llcuda_net.storage.postgres.migrations.schema import applied as applied
from llcuda_net.storage.postgres.migrations.schema import check as check
from llcuda_net.storage.postgres.migrations.schema import migrate as migrate
