"""HTTP that the long-running modes answer: metrics, health, requests for presigned URLs. The place of aiohttp."""
