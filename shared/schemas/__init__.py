"""The wire contract of each service: request and response bodies, with their bounds and examples."""
