"""What torch and its trainers lack: checkpoints that survive a kill, random states, several processes, a log."""

from pushforward.training.checkpoint import latest, publishing, verify
from pushforward.training.log import Log, read_log
from pushforward.training.state import load_state, save_state

__all__ = ["Log", "latest", "load_state", "publishing", "read_log", "save_state", "verify"]
