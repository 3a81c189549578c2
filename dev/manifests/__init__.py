"""What is deployed: rendered without a cluster, and held to rules. No test of ours may say what these say twice.

`rendering` runs kustomize; `project` says what the manifests are compared with; `rules_*` are pure functions over both
that return complaints; `check` runs all rules, for `make check`.
"""
