"""What the services share about Postgres: the engine, conventions of tables, and migrations. No business rule."""
