"""The whole platform on one machine: a Postgres of its own and the services beside it, each its own process."""
