"""make demo: the whole product once, on loopback, in under a minute."""
