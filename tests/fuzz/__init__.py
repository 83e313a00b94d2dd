"""Every decoder of bytes that somebody else may have written, and machines that try to break each of them."""
