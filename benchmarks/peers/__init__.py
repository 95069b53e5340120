"""One small driver per system; README.md has the protocol they all speak."""
