"""Makes the examples that the OpenAPI documents show."""
