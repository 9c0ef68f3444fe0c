"""The page: what it says, what it allows, how it draws, and how it looks."""
