"""Evidence: one file with everything that proves what happened to a patient's records, checkable by anybody, offline.

`file` says what is in it, `write` collects it, `verify` checks it without network, database or state.
"""
