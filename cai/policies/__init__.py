"""What is trained: policies, their heads, what they see, and guides of the dynamics."""
