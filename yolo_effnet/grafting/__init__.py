"""Another backbone for a trained detector, which keeps its neck and its head."""
