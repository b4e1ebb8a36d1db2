"""From a plan to manifests that a real API server accepts: Kueue, serving, the door, autoscaling, observability."""
