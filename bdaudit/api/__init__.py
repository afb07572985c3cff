"""bdaudit for Python programs: the three verbs as functions, and the parts of a model. Torch is imported when one is called."""
