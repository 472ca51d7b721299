"""Faults, each caused for real: kills, torn mail, lost branches, full disks, jumping clocks."""
