"""Revocation in a simulated world of faults and liars; `simulation.py` says what is shown and how."""
