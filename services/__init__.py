"""The three services. Each has the same anatomy and never imports another."""
