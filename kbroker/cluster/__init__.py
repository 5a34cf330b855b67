"""The one truth all brokers share (`ClusterState`) and the replicated log that carries it. Knows no partitions' bytes."""
