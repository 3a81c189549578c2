"""`pod_events`. Its modules import each other relatively: functions-framework loads `main.py` as the package `main`."""
