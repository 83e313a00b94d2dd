"""Processes are killed, disks fill up, connections break between any two writes; what was acknowledged stays."""
