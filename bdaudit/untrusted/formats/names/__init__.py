"""What tensors are called in single files and what in diffusers' parts: pure maps both ways, one file a spelling. No torch, no file."""
