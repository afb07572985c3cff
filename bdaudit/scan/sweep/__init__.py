"""Where triggers that nobody listed come from: the texts of each sweep, the cheap look at all of them, and what is left of it."""
