"""Whether an exported model says what the model said: both run on the same images."""
