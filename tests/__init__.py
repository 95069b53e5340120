"""The tests of GoQueue: unit, integration, chaos and end to end, each in its folder."""
