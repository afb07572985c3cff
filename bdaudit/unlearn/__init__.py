"""`unlearn`: take the backdoor out and leave the model as good as before."""
