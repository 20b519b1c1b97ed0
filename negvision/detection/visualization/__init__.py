"""Pictures of what a detector sees: predictions, annotations, assigned anchors."""
