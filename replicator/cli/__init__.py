"""The command line: one file for each verb. Exit codes are in main."""
