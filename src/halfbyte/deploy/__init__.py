"""From a plan and a platform to manifests for Kubernetes."""
