"""Learning from transitions."""
