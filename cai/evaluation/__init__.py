"""What a policy gets, how far it is from the posterior, and methods side by side."""
