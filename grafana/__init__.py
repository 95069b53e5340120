"""Grafana dashboards of GoQueue, as Python. `make dashboards` writes them into the chart.

Queries name the metrics by their declarations in `goqueue.metrics`, so one that is renamed cannot be missed here.
"""
