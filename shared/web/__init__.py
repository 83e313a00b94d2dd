"""What every service's HTTP side has in common: the app, problems, limits, health, metrics and access tokens."""
