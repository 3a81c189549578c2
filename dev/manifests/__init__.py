"""Rules for the deployed manifests. No cluster is asked.

`rendering` runs kustomize. `project` reads the facts of the code. `rules_*` are pure functions that compare both and
return complaints. `check` runs every rule for `make check`.
"""
