"""Queues of messages: the port, SQS, and a file of SQLite where there is no SQS."""
