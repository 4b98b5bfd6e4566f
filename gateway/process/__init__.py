"""The gateway put together and run: as one process, as several, under uvicorn."""
