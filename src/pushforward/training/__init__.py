"""What torch and its trainers leave open: checkpoints that survive a kill, random states, several processes, a log."""

from pushforward.training.state import load_state, save_state

__all__ = ["load_state", "save_state"]
