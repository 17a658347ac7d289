"""What torch and its trainers leave open: checkpoints that survive a kill, random states, several processes, a log."""
