"""Where triggers that nobody listed come from: sources of texts, the cheap look at all of them, and what is left of it."""
