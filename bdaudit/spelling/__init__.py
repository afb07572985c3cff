"""How a text that may be a trigger is written and read: one way for every flag and file."""
