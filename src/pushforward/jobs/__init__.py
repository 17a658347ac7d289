"""The verbs of the command line: the settings, the run and the page of each."""
