"""The container: a bulk run that is told everything by its environment."""
