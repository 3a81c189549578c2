module twofold/dev/kubernetes/go/operator

go 1.26.0

require knative.dev/operator v0.50.0
