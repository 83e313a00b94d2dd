"""The registry: chains of keys, scope-keys, the directory, and access tokens. It is trusted with availability only."""
