"""`pcehr demo`: the story of the protocol, told on a platform made for it, with every claim checked."""

from client.demo.run import Options, run_demo

__all__ = ["Options", "run_demo"]
