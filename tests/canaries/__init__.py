"""A whole run with secrets that are known to the test, and a search for them in all that a server holds or says."""
