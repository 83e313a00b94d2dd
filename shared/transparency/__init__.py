"""The pure core of the transparency logs: Merkle proofs, signed checkpoints, cosignatures, the decision of a witness.

Nothing here reads a database, a clock or the network. Whatever verifies returns a type that says so, or raises.
"""
