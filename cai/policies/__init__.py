"""What is trained: policies, their heads, what they see, and guides that bend the dynamics."""
