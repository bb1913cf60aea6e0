"""Linear-Gaussian problems: the model, its policy, Riccati recursions and solutions."""
