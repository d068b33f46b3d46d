"""The resolver that pods of a local mesh are given: names of the cluster, and the machine's resolvers for the rest."""
