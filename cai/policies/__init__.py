"""What is trained: policies, what they see, and guides of the dynamics."""
