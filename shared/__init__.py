"""What the services and the client have in common; no business rule lives here."""
