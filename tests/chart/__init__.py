"""The Helm chart: what is generated from other sources, and tests of what it renders."""
