"""What the weights say by themselves, without a single pass: evidence beside the verdicts, never one of them."""
