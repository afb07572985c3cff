"""`scan`: which texts are triggers, and how sure."""
