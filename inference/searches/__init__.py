"""Searches that a file keeps and that go on from it: L-BFGS, Adam with early stopping, rounds."""
