"""ELBO and return of a policy, its divergence from the posterior, and methods side by side."""
