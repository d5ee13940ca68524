"""What became of every key of every route, in SQLite or PostgreSQL: for people who ask, and for later runs."""
