"""`pod_events`: the facts of each pod's life, as events. docs/pod-events.md describes them.

The modules import one another relatively, because functions-framework loads `main.py` as the package `main`.
"""
