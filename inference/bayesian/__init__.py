"""Posteriors over the weights of rewards, of one demonstrator or of many."""
