"""The S3 store: wire, signing, answers, listings. The only place that imports httptools and awscrt."""
