"""A deterministic simulation of the engine's protocol; docs/decisions/0018-simulation.md tells what it covers."""
