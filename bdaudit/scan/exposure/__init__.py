"""A copy of a part in memory that has unlearned what captions say, and what is left of each text in it."""
