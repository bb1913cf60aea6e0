"""Speed of this library beside hand-written references and Pyro: ``python -m benchmarks``."""
