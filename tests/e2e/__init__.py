"""The whole platform: real processes, real Postgres, real HTTP, the real client."""
