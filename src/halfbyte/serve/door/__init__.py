"""The door itself: an ASGI application between clients and engines that speak OpenAI's protocol."""
