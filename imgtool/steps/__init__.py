"""The verbs, one module each; ``verbs`` has those of a plan."""
