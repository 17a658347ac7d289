"""What each verb of the command line does: its settings, its run, its page."""
