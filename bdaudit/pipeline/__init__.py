"""The suspect model: inspected, loaded, tokenised, run, recorded, sampled, saved."""
