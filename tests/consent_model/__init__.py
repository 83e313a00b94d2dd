"""Who may read and write what: a model in plain Python, held against the services; `machine.py` says how."""
