"""The control plane: what is set up once around the buckets, by boto3. Objects are not touched here."""
